//! The status of a local cloud as text.

use pgentra_local::Status;
use serde::Serialize;

use crate::table::{Need, list};
use crate::text::{Text, bold, text};
use crate::time::date;

/// The text of `pgentra local status`.
pub(super) fn text(status: &Status) -> Text {
    let server = &status.server;
    let pgbouncer = server
        .pgbouncer_port
        .map(|port| format!("  PgBouncer    {}:{port}, while pgbouncer.enabled is true\n", server.host));
    let places = format!(
        "\n  PostgreSQL   {}:{} ({}, {})\n{}  page         {}\n  metadata     {}\n  Entra        {}{}\n  management   {}\n  subscription {}\n  certificate  {}\n",
        server.host,
        server.port,
        server.version,
        status.flavour,
        pgbouncer.unwrap_or_default(),
        status.page,
        status.metadata_url,
        status.authority_host,
        status.tenant_id,
        status.management_url,
        status.subscription_id,
        server.sslrootcert.display(),
    );
    let mut text = text![bold(&format!("local cloud `{}`", status.name)), places];
    if let Some(file) = &status.state {
        text.push(format!("  state        {}\n", file.display()));
    }
    for identity in &status.identities {
        let client = identity.client_id.as_ref().map(|id| format!("    client id  {id}\n"));
        text.push(text![
            format!("  {:<13}", identity.kind.replace("-assigned", " MI")),
            bold(&identity.role),
            format!("\n    object id  {}\n", identity.object_id),
            client.unwrap_or_default(),
        ]);
    }
    text
}

/// A local cloud in the document of `pgentra local list -o json`.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    name: &'a str,
    flavour: &'a str,
    pid: u32,
    host: &'a str,
    port: u16,
    metadata_url: &'a str,
    /// Seconds since 1970.
    started: u64,
}

impl<'a> Row<'a> {
    pub(super) fn of(status: &'a Status) -> Self {
        Self {
            name: &status.name,
            flavour: &status.flavour,
            pid: status.pid,
            host: &status.server.host,
            port: status.server.port,
            metadata_url: &status.metadata_url,
            started: status.started,
        }
    }
}

/// The text of `pgentra local list` at this time, in seconds since 1970. With a `width`, it has what
/// fits.
pub(super) fn table(clouds: &[Status], now: u64, width: Option<usize>) -> Text {
    let columns = [
        ("name", Need::Always),
        ("flavour", Need::Always),
        ("PostgreSQL", Need::Always),
        ("metadata", Need::IfItFits),
        ("pid", Need::IfItFits),
        ("since", Need::IfItFits),
    ];
    let row = |status: &Status| {
        let since = format!("{}, {}", date(status.started), ago(now.saturating_sub(status.started)));
        [
            status.name.clone(),
            status.flavour.clone(),
            format!("{}:{}", status.server.host, status.server.port),
            status.metadata_url.clone(),
            status.pid.to_string(),
            since,
        ]
        .map(Some)
        .to_vec()
    };
    list(&columns, &clouds.iter().map(row).collect::<Vec<_>>(), width)
}

/// A time that has passed, in its largest unit.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
