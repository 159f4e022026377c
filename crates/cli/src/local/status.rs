//! The status of a local cloud as text.

use pgentra_local::Status;

use crate::text::{Text, bold, faint, text};

/// The text of `pgentra local status`.
pub(super) fn text(status: &Status) -> Text {
    let server = &status.server;
    let places = format!(
        "\n  PostgreSQL   {}:{} ({}, {})\n  metadata     {}\n  Entra        {}{}\n  management   {}\n  subscription {}\n  certificate  {}\n",
        server.host,
        server.port,
        server.version,
        status.flavour,
        status.metadata_url,
        status.authority_host,
        status.tenant_id,
        status.management_url,
        status.subscription_id,
        server.sslrootcert.display(),
    );
    let mut text = text![bold(&format!("local cloud `{}`", status.name)), places];
    for identity in &status.identities {
        let client = identity.client_id.as_deref().map(|id| format!("  client id {id}")).unwrap_or_default();
        text.push(text![
            format!("  {:<13}", identity.kind.replace("-assigned", " MI")),
            bold(&identity.role),
            " ",
            faint(&format!("object id {}{client}", identity.object_id)),
            "\n",
        ]);
    }
    text
}
