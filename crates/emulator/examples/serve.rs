//! Serves a local Azure until standard input ends, and tells on standard output, as one line of JSON, where it is.
//!
//! `cargo run -p pgentra-emulator --example serve -- FOLDER` also writes certificates and service account tokens into
//! FOLDER, for clients that want files. With `--link-local` after it, 169.254.169.254 answers too, where that address is
//! on an interface. With `--arc KEYS`, there is an Azure Arc agent that writes its challenge files into the folder KEYS.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pgentra_emulator::options::AzureArcAgent;
use pgentra_emulator::{Clock, Identity, LocalAzure, Options};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

#[expect(clippy::print_stdout, reason = "its output is what this program is for")]
#[expect(clippy::disallowed_methods, reason = "here the system's clock becomes the local cloud's")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: serve FOLDER [--link-local] [--arc KEYS]")?);
    let mut options = Options::new(Clock::following(SystemTime::now));
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--link-local" => options.link_local = true,
            "--arc" => options.arc = arguments.next().map(AzureArcAgent::new),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let azure = LocalAzure::start(options).await?;
    let files = write_files(&azure, &folder).await?;
    println!("{}", json!({"files": files, "identities": identities(&azure), "hosts": hosts(&azure)}));
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    azure.stop().await;
    Ok(())
}

async fn write_files(azure: &LocalAzure, folder: &Path) -> Result<Value, Box<dyn Error>> {
    let certificate = azure.new_client_certificate().await?.pem();
    let federation = azure.federation();
    let mut paths = json!({});
    for (name, text) in [
        ("ca", azure.ca_pem()),
        ("client_certificate", certificate.expose_secret()),
        ("service_account_token", federation.service_account_token()?.expose_secret()),
        ("bound_service_account_token", federation.bound_service_account_token()?.expose_secret()),
        ("token_proxy_ca", &azure.token_proxy().ca_pem),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        paths[name] = json!(path);
    }
    Ok(paths)
}

fn identities(azure: &LocalAzure) -> Value {
    let managed = |identity: &Identity| {
        json!({
            "client_id": identity.client_id(),
            "object_id": identity.object_id(),
            "resource_id": identity.resource_id(),
        })
    };
    let application = azure.application();
    json!({
        "tenant": azure.tenant(),
        "vm": managed(azure.vm()),
        "user_assigned": managed(azure.user_assigned()),
        "administrator": {"object_id": azure.administrator().object_id()},
        "application": {
            "client_id": application.client_id(),
            "object_id": application.object_id(),
            "secret": application.secret().expose_secret(),
        },
    })
}

/// The variables of each host.
fn hosts(azure: &LocalAzure) -> Value {
    let (app, fabric, learning) = (azure.app_service(), azure.service_fabric(), azure.machine_learning());
    let (pipelines, proxy) = (azure.pipelines(), azure.token_proxy());
    json!({
        "imds": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": azure.metadata_url()},
        "authority": {"AZURE_AUTHORITY_HOST": azure.authority_host()},
        "cloud_shell": {"MSI_ENDPOINT": azure.cloud_shell()},
        "app_service": {"IDENTITY_ENDPOINT": app.endpoint, "IDENTITY_HEADER": app.header.expose_secret()},
        "service_fabric": {
            "IDENTITY_ENDPOINT": fabric.endpoint,
            "IDENTITY_HEADER": fabric.header.expose_secret(),
            "IDENTITY_SERVER_THUMBPRINT": fabric.thumbprint,
        },
        "machine_learning": {
            "MSI_ENDPOINT": learning.endpoint,
            "MSI_SECRET": learning.secret.expose_secret(),
            "DEFAULT_IDENTITY_CLIENT_ID": learning.default_client_id,
        },
        "arc": azure.arc().map(|arc| {
            json!({"IDENTITY_ENDPOINT": arc.identity_endpoint, "IMDS_ENDPOINT": arc.imds_endpoint})
        }),
        "pipelines": {
            "SYSTEM_OIDCREQUESTURI": pipelines.request_uri,
            "SYSTEM_ACCESSTOKEN": pipelines.access_token.expose_secret(),
            "SERVICE_CONNECTION": pipelines.service_connection,
        },
        "token_proxy": {
            "AZURE_KUBERNETES_TOKEN_PROXY": proxy.url,
            "AZURE_KUBERNETES_SNI_NAME": proxy.sni_name,
        },
    })
}
