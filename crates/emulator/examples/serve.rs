//! Serves a local Azure until standard input ends, and tells on standard output, as one line of JSON, where it is.
//!
//! `cargo run -p pgentra-emulator --example serve -- FOLDER` also writes the local authority's certificate and a
//! service account token into FOLDER, for clients that want files. With `--link-local` after it, 169.254.169.254 answers
//! too, where that address is on an interface.

use std::error::Error;
use std::path::PathBuf;
use std::time::SystemTime;

use pgentra_emulator::{Clock, LocalAzure, Options};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

#[expect(clippy::print_stdout, reason = "its output is what this program is for")]
#[expect(clippy::disallowed_methods, reason = "here the system's clock becomes the local cloud's")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: serve FOLDER [--link-local]")?);
    let mut options = Options::new(Clock::following(SystemTime::now));
    options.link_local = std::env::args().nth(2).is_some_and(|argument| argument == "--link-local");
    let azure = LocalAzure::start(options).await?;

    let certificate = folder.join("ca.pem");
    std::fs::write(&certificate, azure.ca_pem())?;
    let token = folder.join("service-account-token");
    std::fs::write(&token, azure.federation().service_account_token()?.expose_secret())?;

    println!("{}", describe(&azure, &certificate, &token));
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    azure.stop().await;
    Ok(())
}

fn describe(azure: &LocalAzure, certificate: &std::path::Path, token: &std::path::Path) -> serde_json::Value {
    let service = azure.app_service();
    let identity = |identity: &pgentra_emulator::Identity| {
        json!({
            "client_id": identity.client_id(),
            "object_id": identity.object_id(),
            "resource_id": identity.resource_id(),
        })
    };
    json!({
        "metadata": azure.metadata_url(),
        "app_service": {"endpoint": service.endpoint, "header": service.header.expose_secret()},
        "cloud_shell": azure.cloud_shell(),
        "authority_host": azure.authority_host(),
        "tenant": azure.tenant(),
        "ca_file": certificate,
        "token_file": token,
        "vm": identity(azure.vm()),
        "user_assigned": identity(azure.user_assigned()),
        "administrator": {"object_id": azure.administrator().object_id()},
        "application": {
            "client_id": azure.application().client_id(),
            "object_id": azure.application().object_id(),
            "secret": azure.application().secret().expose_secret(),
        },
    })
}
