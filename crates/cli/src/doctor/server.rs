//! The checks from the server's name to the result of a query.

use std::net::{IpAddr, SocketAddr};

use pgentra_connect::quote;
use pgentra_connect::{ConnectError, ConnectErrorKind, Connector, Session, SslMode, role_candidates};
use pgentra_identity::{AccessToken, Refreshed, UnverifiedClaims};
use pgentra_system::System;
use tokio::net::TcpStream;

use super::azure_name::{azure_server, cloud_of};
use super::check::Check;
use super::report::{Report, Stage, Stop};
use super::settings::Settings;
use crate::catalogue::Finding;
use crate::time::{date, unix};

/// A connection and its address.
struct Reached {
    stream: TcpStream,
    host: String,
    address: SocketAddr,
}

pub(crate) async fn check(
    system: &System,
    settings: &Settings,
    token: &AccessToken,
    report: &mut Report,
) -> Stage {
    let connector = &settings.connector;
    let Reached { stream, host, address } = reach(connector, report).await?;
    let (secured, stream_address) = match connector.secure(stream, &host).await {
        Ok(secured) => (secured, address),
        Err(error) => return Err(not_secured(&error, &host, report)),
    };
    report.pass(Check::Offered, secured.tls().to_string());
    let name = match connector.target().ssl_mode() {
        SslMode::VerifyCa => "for whatever name, as sslmode=verify-ca asks for".to_owned(),
        _ => format!("for {host}"),
    };
    report.pass(Check::Certificate, format!("valid, of a trusted authority, {name}"));
    let session = match connector.sign_in(secured, token).await {
        Ok(session) => session,
        Err(error) => second_try(settings, token, (error, &host, stream_address), report).await?,
    };
    report.pass(Check::Admitted, "let in");
    report.pass(Check::Method, "the server asked for nothing else than the token, inside TLS");
    report.pass(Check::Accepted, "not refused");
    let user = connector.target().user();
    report.pass(
        Check::Owned,
        format!("the server takes the identity for the role {user}", user = quote::name(user)),
    );
    report.pass(Check::Login, format!("the role {user} may log in", user = quote::name(user)));
    report.pass(Check::Exists, quote::name(connector.target().database()));
    report.pass(Check::Connect, format!("the role {user} may connect", user = quote::name(user)));
    query(system, &session, report).await?;
    mapping(&session, token, report).await;
    Ok(())
}

/// The first host that has an address which answers, as a sign-in takes it.
async fn reach(connector: &Connector, report: &mut Report) -> Stage<Reached> {
    let mut last: Option<(Finding, ConnectError, Option<String>)> = None;
    let mut silent = Vec::new();
    for endpoint in connector.target().endpoints() {
        let addresses = match connector.resolve(endpoint).await {
            Ok(addresses) => addresses,
            Err(error) => {
                last = Some((Finding::NameUnresolved, error, name_hint(&endpoint.host)));
                continue;
            }
        };
        let listed: Vec<_> =
            addresses.iter().map(|address| format!("{} ({})", address.ip(), kind_of(address.ip()))).collect();
        report.pass(Check::Name, format!("{} is {}", endpoint.host, listed.join(", ")));
        for address in addresses {
            match connector.dial(address).await {
                Ok(stream) => {
                    report.pass(Check::Tcp, format!("connected to {address}"));
                    tell_silent(&silent, report);
                    return Ok(Reached { stream, host: endpoint.host.clone(), address });
                }
                Err(error) => {
                    let finding = match error.kind() {
                        ConnectErrorKind::Timeout => Finding::TcpTimeout,
                        _ => Finding::from(&error),
                    };
                    if finding == Finding::TcpTimeout {
                        silent.push(address);
                    }
                    report.fact(Check::Tcp, "not reached", error.to_string());
                    last = Some((finding, error, tcp_hint(finding, &endpoint.host, address)));
                }
            }
        }
    }
    Err(match last {
        Some((finding, error, hint)) => {
            let hint = hint.or_else(|| error.hint());
            report.fail(finding, &error, hint)
        }
        None => report.fail_saying(Finding::ConnectionSettings, "no server is named", (Vec::new(), None)),
    })
}

fn tell_silent(silent: &[SocketAddr], report: &mut Report) {
    if silent.is_empty() {
        report.pass(Check::Addresses, "none stayed silent");
        return;
    }
    let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
    let summary =
        format!("no answer from {}: clients that try it first wait for the timeout", silent.join(", "));
    report.warn(Finding::TcpDeadAddress, summary, None);
}

/// What kind of network an address belongs to: RFC 1918, 3927, 4193, 6598.
fn kind_of(address: IpAddr) -> &'static str {
    let private = match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xfe00 == 0xfc00,
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    match address.is_loopback() {
        true => "this machine",
        false if private => "private",
        false if link_local => "link-local",
        false => "public",
    }
}

fn name_hint(host: &str) -> Option<String> {
    cloud_of(host)?;
    let server = quote::shell_word(azure_server(host)?);
    Some(format!(
        "does it exist: az postgres flexible-server show --resource-group GROUP --name {server}. A server in a private network has a name only where its private DNS zone is linked: az network private-dns link vnet list --resource-group GROUP --zone-name ZONE"
    ))
}

/// The hint for a TCP failure depends on the kind of address.
fn tcp_hint(finding: Finding, host: &str, address: SocketAddr) -> Option<String> {
    if finding != Finding::TcpTimeout {
        return None;
    }
    let server = quote::shell_word(azure_server(host)?);
    Some(match kind_of(address.ip()) {
        "private" => format!(
            "the address is private: connect from inside the server's network or one that is peered with it, and see that no network security group drops port {}",
            address.port()
        ),
        _ => format!(
            "let this machine's public address in: az postgres flexible-server firewall-rule create --resource-group GROUP --name {server} --rule-name this-machine --start-ip-address ADDRESS --end-ip-address ADDRESS"
        ),
    })
}

fn not_secured(error: &ConnectError, host: &str, report: &mut Report) -> Stop {
    let finding = match error.kind() {
        ConnectErrorKind::Timeout => Finding::TlsTimeout,
        ConnectErrorKind::Protocol => Finding::TlsHungUp,
        _ => Finding::from(error),
    };
    let hint = match finding {
        Finding::TlsName if host.parse::<IpAddr>().is_ok() => Some(
            "a certificate is for a name: connect by the server's name; hostaddr=ADDRESS beside host=NAME says where it is".to_owned(),
        ),
        Finding::TlsUnknownIssuer if cloud_of(host).is_some() => Some(
            "Azure's servers are signed by DigiCert Global Root G2 or Microsoft RSA Root Certificate Authority 2017: leave sslrootcert out, and update the package ca-certificates".to_owned(),
        ),
        _ => error.hint(),
    };
    report.fail(finding, error, hint)
}

/// As a sign-in does: if an outdated token can be the reason, tries once with a newer one.
async fn second_try(
    settings: &Settings,
    token: &AccessToken,
    (error, host, address): (ConnectError, &str, SocketAddr),
    report: &mut Report,
) -> Stage<Session> {
    let stale = matches!(error.kind(), ConnectErrorKind::Refused(refusal) if refusal.stale_token_explains());
    if !stale {
        return Err(refused(settings, token, &error, report));
    }
    let newer = match settings.credential.refresh(&settings.resource, token).await {
        Ok(Refreshed::New(newer)) => newer,
        Ok(_) => {
            report.fact(Finding::from(&error).check(), "newer token", "the source gave the same one again");
            return Err(refused(settings, token, &error, report));
        }
        Err(none) => {
            report.fact(Finding::from(&error).check(), "newer token", format!("none: {none}"));
            return Err(refused(settings, token, &error, report));
        }
    };
    let again = async {
        let stream = settings.connector.dial(address).await?;
        let secured = settings.connector.secure(stream, host).await?;
        settings.connector.sign_in(secured, &newer).await
    };
    match again.await {
        Ok(session) => {
            report.fact(
                Check::Token,
                "second try",
                format!("the first token was refused ({error}), a newer one is accepted"),
            );
            Ok(session)
        }
        Err(error) => Err(refused(settings, &newer, &error, report)),
    }
}

fn refused(settings: &Settings, token: &AccessToken, error: &ConnectError, report: &mut Report) -> Stop {
    let finding = match error.kind() {
        ConnectErrorKind::Timeout => Finding::SignInTimeout,
        _ => Finding::from(error),
    };
    let mut hint = error.hint();
    if let Some(server) = error.server_message() {
        for (name, text) in [("detail", server.detail()), ("the server's hint", server.hint())] {
            if let Some(text) = text {
                report.fact(finding.check(), name, text);
            }
        }
    }
    if finding == Finding::RoleNotMapped
        && let Some(claims) = UnverifiedClaims::of(token)
    {
        let user = settings.connector.target().user();
        hint = another_name(user, &claims).or(hint);
    }
    report.fail(finding, error, hint)
}

/// A role that matches the token, but was written in another case or with the server's name after
/// it.
fn another_name(user: &str, claims: &UnverifiedClaims) -> Option<String> {
    let candidates = role_candidates(claims);
    let bare = user.rsplit_once('@').map_or(user, |(role, _)| role);
    let meant = candidates.iter().find(|candidate| {
        candidate.name != user
            && (candidate.name.eq_ignore_ascii_case(user) || candidate.name.eq_ignore_ascii_case(bare))
    })?;
    let why = if bare == meant.name {
        "only Single Server has its name behind the role's"
    } else {
        "names of roles are case-sensitive"
    };
    Some(format!("did you mean the role {}? {why}", quote::name(&meant.name)))
}

/// One row, every value as text.
async fn row(session: &Session, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = session.client().simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else { return Ok(Vec::new()) };
    Ok((0..row.len()).map(|at| row.try_get(at).ok().flatten().unwrap_or_default().to_owned()).collect())
}

const WHO: &str = "SELECT current_setting('server_version'), session_user, current_database(), \
                   pg_catalog.pg_is_in_recovery(), \
                   pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp()))::bigint";

async fn query(system: &System, session: &Session, report: &mut Report) -> Stage {
    let values = match row(session, WHO).await {
        Ok(values) => values,
        Err(error) => {
            let finding = if error.as_db_error().is_some() {
                Finding::StatementRefused
            } else {
                Finding::ConnectionLost
            };
            return Err(report.fail(finding, &error, None));
        }
    };
    let [version, user, database, in_recovery, time] = &values[..] else {
        let summary = "the server's answer to a query is not a row of five values";
        return Err(report.fail_saying(Finding::StatementRefused, summary, (Vec::new(), None)));
    };
    report.pass(
        Check::Query,
        format!(
            "PostgreSQL {version}, as {user} in database {database}",
            user = quote::name(user),
            database = quote::name(database)
        ),
    );
    if in_recovery == "t" {
        report.fact(Check::Query, "replica", "this server is a read replica: roles are made on the primary");
    }
    if let Ok(seconds) = time.parse::<u64>() {
        let ours = unix(system.clock().now());
        let told = format!("{}, {} s from this machine's", date(seconds), ours.abs_diff(seconds));
        report.fact(Check::Query, "the server's clock", told);
    }
    Ok(())
}

/// Every role can read the labels (Flexible Server keeps the mapping there).
const LABELS: &str = "SELECT pg_catalog.string_agg(l.label, ' ') FROM pg_catalog.pg_seclabels l \
                      JOIN pg_catalog.pg_roles r ON r.oid = l.objoid \
                      WHERE l.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND r.rolname = session_user \
                      AND l.provider LIKE 'pgaadauth%'";

/// The function exists in the database postgres only, and for administrators. Columns are read by
/// position, because their names have changed.
const MAY_LIST: &str = "SELECT pg_catalog.to_regprocedure('pg_catalog.pgaadauth_list_principals(boolean)') IS NOT NULL \
                        AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'azure_pg_admin' \
                        AND pg_catalog.pg_has_role(oid, 'member'))";
const LISTED: &str = "SELECT p.a || ',oid=' || p.c || ',type=' || p.b \
                      FROM pg_catalog.pgaadauth_list_principals(false) AS p(a, b, c, d, e, f) WHERE p.a = session_user";

/// After the sign-in, asks the server which principal the role is mapped to.
async fn mapping(session: &Session, token: &AccessToken, report: &mut Report) {
    let first = |values: Vec<String>| values.into_iter().next().filter(|value| !value.is_empty());
    let mut told = row(session, LABELS).await.ok().and_then(first);
    if told.is_none() && row(session, MAY_LIST).await.ok().and_then(first).as_deref() == Some("t") {
        told = row(session, LISTED).await.ok().and_then(first);
    }
    let Some(told) = told else {
        report.skip(Check::Mapping, "the server does not show it to this role");
        return;
    };
    let claims = UnverifiedClaims::of(token);
    let ids = claims.iter().flat_map(|claims| [claims.object_id(), claims.client_id()]).flatten();
    let is_ours = ids.map(str::to_ascii_lowercase).any(|id| told.to_ascii_lowercase().contains(&id));
    // A group's role names the group, which is not always in a member's token.
    if is_ours || told.contains("type=group") || claims.is_none() {
        report.pass(Check::Mapping, told);
    } else {
        report.warn(
            Finding::RoleMappingDiffers,
            format!("signed in, but the role is mapped to another identity: {told}"),
            None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_private_or_not() {
        for (address, kind) in [
            ("127.0.0.1", "this machine"),
            ("::1", "this machine"),
            ("10.1.2.3", "private"),
            ("172.31.0.1", "private"),
            ("100.64.0.1", "private"),
            ("fd00::1", "private"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("20.1.2.3", "public"),
            ("100.128.0.1", "public"),
            ("2603::1", "public"),
        ] {
            assert_eq!(kind_of(address.parse().unwrap()), kind, "{address}");
        }
    }

    #[test]
    fn what_to_do_about_silence_depends_on_the_address() {
        let hint = |address: &str| {
            let address = SocketAddr::new(address.parse().unwrap(), 5432);
            tcp_hint(Finding::TcpTimeout, "my.postgres.database.azure.com", address).unwrap()
        };
        assert!(hint("10.0.0.4").contains("private"));
        assert!(
            hint("20.0.0.4").contains("firewall-rule create --resource-group GROUP --name my --rule-name")
        );
    }
}
