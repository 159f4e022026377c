//! The script that prepares a PostgreSQL for the gateway, and the lines of its configuration files.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::Flavour;
use super::init::{FLEXIBLE, GATEWAY, InitError, SINGLE, random_password};
use super::principal::Principal;

/// The role that the gateway itself signs in as.
pub const SERVICE_ROLE: &str = "pgentra_gateway";

const SERVICE: &str = include_str!("sql/service.sql");

/// How the gateway will sign in at the server, for [`ServerScript`].
#[derive(Clone, Debug)]
pub enum ServerScriptMethod {
    /// The server trusts this user of its machine.
    Peer(String),
    /// The server trusts certificates of the gateway's authority.
    Certificate,
    /// The gateway and the mapped roles have this password.
    Password(SecretString),
}

/// Prepares a PostgreSQL (13 or newer) for `pgentra gateway`. `Debug` does not show the password.
#[derive(Clone, Debug)]
pub struct ServerScript {
    /// Whose mapping of roles the database gets. `None`: the mapping is elsewhere.
    pub flavour: Option<Flavour>,
    /// The tenant of the principals.
    pub tenant: Uuid,
    /// How the gateway will sign in.
    pub method: ServerScriptMethod,
    /// The first principals that may manage Entra roles. Each gets a role of its name; an existing
    /// role is bound to the principal.
    pub administrators: Vec<Principal>,
    /// Where the gateway connects from over TLS. Empty: the loopback interface of the server's
    /// machine.
    pub gateways: Vec<GatewayNetwork>,
}

/// An address or a network of `pg_hba.conf` from which gateways connect, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayNetwork {
    address: IpAddr,
    bits: u8,
}

/// A text that is no [`GatewayNetwork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a network: write 10.1.2.3 or 10.0.0.0/8")]
pub struct NotANetwork;

impl FromStr for GatewayNetwork {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').unzip();
        let address: IpAddr = address.unwrap_or(text).parse().map_err(|_| NotANetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| NotANetwork)?;
        if bits > most { Err(NotANetwork) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for GatewayNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl ServerScript {
    /// The SQL, for a superuser in the database `postgres`: one transaction, which can be repeated.
    /// It has no password in clear text.
    ///
    /// # Errors
    /// [`InitError::NoRandomness`].
    pub fn sql(&self) -> Result<String, InitError> {
        let shared = match &self.method {
            ServerScriptMethod::Password(password) => password.clone(),
            // No program knows this password: roles that are mapped lose theirs.
            ServerScriptMethod::Peer(_) | ServerScriptMethod::Certificate => random_password()?,
        };
        let verifier = postgres_protocol::password::scram_sha_256(shared.expose_secret().as_bytes());
        let mut sql = String::from("BEGIN;\nSET LOCAL client_min_messages = warning;\n");
        sql.push_str(GATEWAY);
        sql.push_str(&format!(
            "\nINSERT INTO pgentra.gateway (tenant_id, password, verifier) VALUES ({tenant}, '', {verifier})
    ON CONFLICT (only_row) DO UPDATE SET tenant_id = excluded.tenant_id, password = '', verifier = excluded.verifier;\n\n",
            tenant = literal(&self.tenant.to_string()),
            verifier = literal(&verifier),
        ));
        sql.push_str(SERVICE);
        if matches!(self.method, ServerScriptMethod::Password(_)) {
            sql.push_str(&format!("ALTER ROLE {SERVICE_ROLE} PASSWORD {};\n", literal(&verifier)));
        }
        match self.flavour {
            None => {}
            Some(Flavour::Flexible) => {
                sql.push_str(&format!("\n{FLEXIBLE}\nGRANT SELECT ON pgentra.mapping TO {SERVICE_ROLE};\n"));
            }
            Some(Flavour::Single) => {
                sql.push_str(&format!("\n{SINGLE}\nGRANT SELECT ON pgentra.member TO {SERVICE_ROLE};\n"));
            }
        }
        for Principal { name, object_id, kind } in &self.administrators {
            let (name, object_id) = (literal(name), object_id.to_string());
            match self.flavour {
                None => {}
                Some(Flavour::Flexible) => sql.push_str(&format!(
                    "SELECT pgentra.make_administrator({name}, {}, {});\n",
                    literal(&object_id),
                    literal(kind.as_str())
                )),
                Some(Flavour::Single) => {
                    let verifier = postgres_protocol::password::scram_sha_256(object_id.as_bytes());
                    sql.push_str(&format!(
                        "SELECT pgentra.bind_administrator({name}, {});\n",
                        literal(&verifier)
                    ));
                }
            }
        }
        sql.push_str("COMMIT;\n");
        Ok(sql)
    }

    /// The lines of `pg_hba.conf`, for the top of the file: the first line that fits counts.
    pub fn hba(&self) -> String {
        let members = match self.flavour {
            Some(Flavour::Single) => "azure_ad_user",
            _ => "pgentra_principal",
        };
        let lines = |kind: &str, address: &str, method: &str| {
            format!(
                "{kind:<8} all  {SERVICE_ROLE:<20} {address:<14} {method}\n{kind:<8} all  +{members:<19} {address:<14} {method}\n"
            )
        };
        let own = || ["127.0.0.1/32", "::1/128"].map(str::to_owned).to_vec();
        let networks = match &self.gateways[..] {
            [] => own(),
            networks => networks.iter().map(ToString::to_string).collect(),
        };
        let over_tls = |method: &str| {
            networks.iter().map(|network| lines("hostssl", network, method)).collect::<String>()
        };
        match &self.method {
            ServerScriptMethod::Peer(_) => lines("local", "", "peer map=pgentra"),
            ServerScriptMethod::Certificate => over_tls("cert"),
            ServerScriptMethod::Password(_) => {
                lines("local", "", "scram-sha-256") + &over_tls("scram-sha-256")
            }
        }
    }

    /// The lines of `pg_ident.conf`; empty where none is needed. Before PostgreSQL 16 each role needs
    /// a line of its own: `roles` are those that there are.
    pub fn ident(&self, server_version: u32, roles: &[String]) -> String {
        let ServerScriptMethod::Peer(user) = &self.method else { return String::new() };
        let user = quoted(user);
        if server_version >= 16 {
            return format!("pgentra  {user}  all\n");
        }
        std::iter::once(SERVICE_ROLE.to_owned())
            .chain(roles.iter().cloned())
            .map(|role| format!("pgentra  {user}  {}\n", quoted(&role)))
            .collect()
    }
}

/// A string constant, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A word of `pg_ident.conf`. Quotation marks keep it from having another meaning (PostgreSQL
/// documentation, "User Name Maps").
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PrincipalKind;

    fn script(method: ServerScriptMethod) -> ServerScript {
        let name = "o'brien\\@example.org".to_owned();
        let administrators =
            vec![Principal { name, object_id: Uuid::from_u128(7), kind: PrincipalKind::User }];
        ServerScript {
            flavour: Some(Flavour::Flexible),
            tenant: Uuid::from_u128(1),
            method,
            administrators,
            gateways: Vec::new(),
        }
    }

    #[test]
    fn names_are_quoted_and_passwords_are_not_written() {
        let sql = script(ServerScriptMethod::Password("open sesame".to_owned().into())).sql().unwrap();
        assert!(sql.contains(r"pgentra.make_administrator(E'o''brien\\@example.org', E'00000000-"), "{sql}");
        assert!(
            !sql.contains("open sesame")
                && sql.contains("ALTER ROLE pgentra_gateway PASSWORD E'SCRAM-SHA-256$")
        );
        let sql = script(ServerScriptMethod::Certificate).sql().unwrap();
        assert!(!sql.contains("ALTER ROLE pgentra_gateway PASSWORD"));
    }

    #[test]
    fn the_lines_fit_the_method() {
        let peer = script(ServerScriptMethod::Peer("pg entra".to_owned()));
        assert!(peer.hba().contains("+pgentra_principal") && peer.hba().contains("peer map=pgentra"));
        assert_eq!(peer.ident(16, &[]), "pgentra  \"pg entra\"  all\n");
        let lines = peer.ident(15, &["a\"b".to_owned()]);
        assert_eq!(lines, "pgentra  \"pg entra\"  \"pgentra_gateway\"\npgentra  \"pg entra\"  \"a\"\"b\"\n");
        let cert = script(ServerScriptMethod::Certificate);
        assert!(cert.hba().lines().all(|line| line.starts_with("hostssl") && line.ends_with("cert")));
        assert_eq!(cert.ident(16, &[]), "");
    }

    #[test]
    fn the_lines_name_the_networks_of_the_gateways() {
        let gateways = ["10.0.0.0/8", "fd00::7"].map(|text| text.parse().unwrap()).to_vec();
        let cert = ServerScript { gateways, ..script(ServerScriptMethod::Certificate) };
        let addresses: Vec<_> =
            cert.hba().lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect();
        assert_eq!(addresses, ["10.0.0.0/8", "10.0.0.0/8", "fd00::7/128", "fd00::7/128"]);
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/8\nhost", "db.example", "/8"] {
            assert_eq!(wrong.parse::<GatewayNetwork>(), Err(NotANetwork), "{wrong:?}");
        }
    }
}
