//! Signs in with tokio-postgres and a token of Microsoft's `azure_identity`. The server comes from `PGHOST`, `PGUSER`, …
//!
//! Usage: `on_hosts HOST` prints the role that it is.

use std::env::var;
use std::error::Error;
use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_identity::{
    AzurePipelinesCredential, ClientSecretCredential, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The crate has no `DefaultAzureCredential`.
fn credential(host: &str) -> Result<Arc<dyn TokenCredential>, Box<dyn Error>> {
    Ok(match host {
        "aks" => WorkloadIdentityCredential::new(None)?,
        "client-secret" => ClientSecretCredential::new(
            &var("AZURE_TENANT_ID")?,
            var("AZURE_CLIENT_ID")?,
            var("AZURE_CLIENT_SECRET")?.into(),
            None,
        )?,
        "azure-pipelines" => AzurePipelinesCredential::new(
            var("AZURESUBSCRIPTION_TENANT_ID")?,
            var("AZURESUBSCRIPTION_CLIENT_ID")?,
            &var("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID")?,
            var("SYSTEM_ACCESSTOKEN")?,
            None,
        )?,
        _ => ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
            user_assigned_id: var("AZURE_CLIENT_ID").ok().map(UserAssignedId::ClientId),
            ..Default::default()
        }))?,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = std::env::args().nth(1).ok_or("no HOST")?;
    let scope = "https://ossrdbms-aad.database.windows.net/.default";
    let token = credential(&host)?.get_token(&[scope], None).await?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(var("PGSSLROOTCERT")?)? {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let (client, connection) = tokio_postgres::Config::new()
        .host(var("PGHOST")?)
        .port(var("PGPORT").map_or(Ok(5432), |port| port.parse())?)
        .dbname(var("PGDATABASE")?)
        .user(var("PGUSER")?)
        .password(token.token.secret())
        .ssl_mode(tokio_postgres::config::SslMode::Require)
        .connect(tokio_postgres_rustls::MakeRustlsConnect::new(config))
        .await?;
    let connection = tokio::spawn(connection);
    println!("{}", client.query_one("SELECT current_user", &[]).await?.get::<_, &str>(0));
    drop(client);
    connection.await??;
    Ok(())
}
