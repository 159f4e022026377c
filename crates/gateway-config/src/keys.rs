//! All settings of `pgentra gateway`: the flag, the variable, the key in the file, and the line in
//! the documentation come from [`GATEWAY_KEYS`].

use std::ops::RangeInclusive;

use pgentra_settings::{Form, KeyTable, RawValue};

use crate::key_values::{admin, ask_method, cloud, flavour, health, keys_url, session_attrs, unmapped};
use crate::settings::{GatewayProcessSettings, ServerSettings};

/// With 0 every client would be refused; a larger number is a typing error.
const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// Each of these costs the server a process, for every set of start-up parameters.
const WARM: RangeInclusive<u64> = 0..=1000;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// A setting. Flag `--max-connections` = variable `PGENTRA_GATEWAY_MAX_CONNECTIONS` =
/// `max_connections` in the file.
pub type GatewayKey = pgentra_settings::SettingKey<GatewaySet>;

/// What a setting applies to.
#[derive(Clone, Copy)]
pub enum GatewaySet {
    /// The whole process.
    Process(fn(&mut GatewayProcessSettings, &RawValue<'_>) -> Result<(), String>),
    /// A server; in a process-wide layer, all servers that do not set it.
    Server(fn(&mut ServerSettings, &RawValue<'_>) -> Result<(), String>),
}

/// Every key. To add one: a field in `settings.rs` and an entry here; then `docs/gateway-configure.md`
/// (a test says which line).
pub const GATEWAY_KEYS: &[GatewayKey] = &[
    GatewayKey {
        name: "listen",
        form: Form::List,
        value: "ADDR",
        default: "127.0.0.1:5432",
        help: Some(
            "Where clients connect: IP:PORT, PORT, or systemd:NAME for one of systemd's sockets; port 0 takes any free one",
        ),
        excludes: &[],
        set: GatewaySet::Process(|it, given| given.list().map(|value| it.listen = value)),
    },
    GatewayKey {
        name: "listen_tls_cert",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("The certificate chain (PEM) that is shown to clients; read again when it changes"),
        excludes: &[],
        set: GatewaySet::Process(|it, given| given.path().map(|value| it.tls_cert = Some(value))),
    },
    GatewayKey {
        name: "listen_tls_key",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some(
            "The private key of listen_tls_cert (PEM), which no other user may read: mode 0600 or 0640",
        ),
        excludes: &[],
        set: GatewaySet::Process(|it, given| given.path().map(|value| it.tls_key = Some(value))),
    },
    GatewayKey {
        name: "danger_accept_plaintext",
        form: Form::Switch,
        value: "BOOL",
        default: "false",
        help: Some(
            "Accept tokens without TLS from clients of this machine: every program that can read its loopback interface can take them",
        ),
        excludes: &[],
        set: GatewaySet::Process(|it, given| given.switch().map(|value| it.danger_accept_plaintext = value)),
    },
    GatewayKey {
        name: "start_up_timeout",
        form: Form::Time,
        value: "TIME",
        default: "60s",
        help: Some(
            "Time that a client has for TLS, its start-up packet, its token and the sign-in at the server",
        ),
        excludes: &[],
        set: GatewaySet::Process(|it, given| given.time(1..=HOUR).map(|value| it.start_up_timeout = value)),
    },
    GatewayKey {
        name: "first_packet_timeout",
        form: Form::Time,
        value: "TIME",
        default: "10s",
        help: Some(
            "Time that a client has for its first packet: the start-up packet, or the request for TLS",
        ),
        excludes: &[],
        set: GatewaySet::Process(|it, given| {
            given.time(1..=HOUR).map(|value| it.first_packet_timeout = value)
        }),
    },
    GatewayKey {
        name: "drain_timeout",
        form: Form::Time,
        value: "TIME",
        default: "5s",
        help: Some("Time that sessions have to end by themselves when the gateway is told to stop"),
        excludes: &[],
        set: GatewaySet::Process(|it, given| given.time(0..=DAY).map(|value| it.drain_timeout = value)),
    },
    GatewayKey {
        name: "admin_listen",
        form: Form::Text,
        value: "ADDR",
        default: "",
        help: Some(
            "Where the status page, probes, metrics and POST /quitquitquit are: IP:PORT or PORT, on the loopback interface",
        ),
        excludes: &[],
        set: GatewaySet::Process(admin),
    },
    GatewayKey {
        name: "health_listen",
        form: Form::Text,
        value: "ADDR",
        default: "",
        help: Some("Where probes and metrics are, and nothing else: IP:PORT or PORT, on any interface"),
        excludes: &[],
        set: GatewaySet::Process(health),
    },
    GatewayKey {
        name: "log_format",
        form: Form::Text,
        value: "FORMAT",
        default: "text",
        help: Some("How the log is written: text, or json for an object a line"),
        excludes: &[],
        set: GatewaySet::Process(|it, given| given.parsed().map(|value| it.telemetry.log_format = value)),
    },
    GatewayKey {
        name: "audit",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("A file that gets a JSON line for each start, end and refusal of a session; - is stderr"),
        excludes: &[],
        set: GatewaySet::Process(|it, given| {
            given.text().map(|value| it.telemetry.audit = Some(value.into()))
        }),
    },
    GatewayKey {
        name: "name",
        form: Form::Text,
        value: "NAME",
        default: "",
        help: Some(
            "What metrics and audit lines call the server, at most 63 characters; without it, its address",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.label().map(|value| it.name = Some(value))),
    },
    GatewayKey {
        name: "upstream",
        form: Form::Text,
        value: "ADDR",
        default: "",
        help: Some(
            "The PostgreSQL server: /FOLDER[:PORT] for its Unix socket, or HOST[:PORT] for TLS; several with commas, a primary and its standbys",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.text().map(|value| it.upstream = Some(value.to_owned()))),
    },
    GatewayKey {
        name: "target_session_attrs",
        form: Form::Text,
        value: "WHICH",
        default: "any",
        help: Some(
            "Which server of upstream takes a client, the first that fits: any, that can be reached; primary or read-write; standby or read-only; prefer-standby",
        ),
        excludes: &[],
        set: GatewaySet::Server(session_attrs),
    },
    GatewayKey {
        name: "databases",
        form: Form::List,
        value: "NAME",
        default: "all",
        help: Some("The databases whose clients are led to this server"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.list().map(|value| it.databases = value)),
    },
    GatewayKey {
        name: "host_names",
        form: Form::List,
        value: "NAME",
        default: "all",
        help: Some(
            "The host names, as clients give them in the TLS handshake (SNI), that are led to this server",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.list().map(|value| it.host_names = value)),
    },
    GatewayKey {
        name: "method",
        form: Form::Text,
        value: "METHOD",
        default: "peer for a Unix socket, cert for TLS",
        help: Some(
            "How the gateway signs in at the server: peer, by the user that it runs as; cert, by a certificate that it signs for each role; scram, by a password that all mapped roles have",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.parsed().map(|value| it.method = Some(value))),
    },
    GatewayKey {
        name: "upstream_ca",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("The authorities (PEM) of which one has to have issued the server's certificate"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.path().map(|value| it.upstream_ca = Some(value))),
    },
    GatewayKey {
        name: "authority",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some(
            "The certificate and key (PEM) that sign the gateway's certificates, made by pgentra gateway init; no other user may read it",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.path().map(|value| it.authority = Some(value))),
    },
    GatewayKey {
        name: "password_file",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("The file with the password for method scram; no other user may read it"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.path().map(|value| it.password_file = Some(value))),
    },
    GatewayKey {
        name: "service_role",
        form: Form::Text,
        value: "ROLE",
        default: "pgentra_gateway",
        help: Some("The role as which the gateway reads the mapping and ends sessions"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.text().map(|value| it.service_role = value.to_owned())),
    },
    GatewayKey {
        name: "flavour",
        form: Form::Text,
        value: "FLAVOUR",
        default: "flexible",
        help: Some(
            "Where roles are mapped to principals: flexible or single, in the database, as on that Azure product; none, in the file of mapping",
        ),
        excludes: &[],
        set: GatewaySet::Server(flavour),
    },
    GatewayKey {
        name: "mapping",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("A TOML file that maps roles to principals, for flavour none; read again when it changes"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.path().map(|value| it.mapping = Some(value))),
    },
    GatewayKey {
        name: "unmapped",
        form: Form::Text,
        value: "WORD",
        default: "refuse",
        help: Some(
            "What becomes of clients whose role is not mapped: refuse; password, they authenticate at the server by SCRAM-SHA-256, over a Unix socket",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.read(unmapped).map(|value| it.unmapped = value)),
    },
    GatewayKey {
        name: "auth",
        form: Form::Text,
        value: "WORD",
        default: "password",
        help: Some(
            "How clients are asked for a token that do not say it in their start-up, with options=-c pgentra.auth=WORD: password, or oauth (OAUTHBEARER)",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.read(ask_method).map(|value| it.auth = value)),
    },
    GatewayKey {
        name: "server_name",
        form: Form::Text,
        value: "NAME",
        default: "",
        help: Some("What clients may write behind the last @ of a user name, with flavour single"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.text().map(|value| it.server_name = value.to_owned())),
    },
    GatewayKey {
        name: "tenant",
        form: Form::List,
        value: "GUID",
        default: "",
        help: Some("The Entra tenants whose tokens are accepted"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.list().map(|value| it.tenant = value)),
    },
    GatewayKey {
        name: "cloud",
        form: Form::Text,
        value: "CLOUD",
        default: "public",
        help: Some("The national cloud of the tenants: public, usgov or china"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.read(cloud).map(|value| it.cloud = value)),
    },
    GatewayKey {
        name: "audience",
        form: Form::List,
        value: "URI",
        default: "the cloud's PostgreSQL resource",
        help: Some("The audiences (aud) of tokens that are accepted"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.list().map(|value| it.audience = value)),
    },
    GatewayKey {
        name: "issuer",
        form: Form::List,
        value: "URI",
        default: "those of the tenant",
        help: Some(
            "The issuers (iss) of tokens that are accepted, where there is one tenant; without a tenant, other OpenID Connect issuers",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.list().map(|value| it.issuer = value)),
    },
    GatewayKey {
        name: "keys_url",
        form: Form::Text,
        value: "URL",
        default: "derived from the tenant",
        help: Some(
            "Where the issuer publishes its signing keys (jwks_uri), where there is one tenant or issuer; another issuer's metadata names it",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.read(keys_url).map(|value| it.keys_url = Some(value))),
    },
    GatewayKey {
        name: "keys_ca",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("Authorities (PEM) for the host of keys_url, beside the system's"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.path().map(|value| it.keys_ca = Some(value))),
    },
    GatewayKey {
        name: "expiry",
        form: Form::Text,
        value: "WORD",
        default: "off",
        help: Some(
            "What happens to a session when its token expires: off, nothing, as on Azure; warn, the client gets a notice before; end, and PostgreSQL ends the session (SQLSTATE 57P01)",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.parsed().map(|value| it.expiry = value)),
    },
    GatewayKey {
        name: "expiry_notice",
        form: Form::Time,
        value: "TIME",
        default: "5m",
        help: Some("How long before the expiry the client gets its notice"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.time(0..=DAY).map(|value| it.expiry_notice = value)),
    },
    GatewayKey {
        name: "group_overage",
        form: Form::Text,
        value: "WORD",
        default: "refuse",
        help: Some(
            "What becomes of a principal that is in more groups than its token lists: refuse, it is in none; graph, Microsoft Graph is asked whether it is in those of the mapping",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.parsed().map(|value| it.group_overage = value)),
    },
    GatewayKey {
        name: "account_check",
        form: Form::Text,
        value: "WORD",
        default: "off",
        help: Some(
            "When Microsoft Graph is asked whether the account of a principal is enabled: off; login, at each login; session, also during sessions, which PostgreSQL ends then (SQLSTATE 57P01)",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.parsed().map(|value| it.account_check = value)),
    },
    GatewayKey {
        name: "account_check_interval",
        form: Form::Time,
        value: "TIME",
        default: "5m",
        help: Some("How often that is during a session"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| {
            given.time(MINUTE..=DAY).map(|value| it.account_check_interval = value)
        }),
    },
    GatewayKey {
        name: "graph_down",
        form: Form::Text,
        value: "WORD",
        default: "refuse",
        help: Some(
            "What becomes of logins with account_check while Microsoft Graph does not answer: refuse (SQLSTATE 57P03) or allow; sessions go on",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.parsed().map(|value| it.graph_down = value)),
    },
    GatewayKey {
        name: "max_connections",
        form: Form::Number,
        value: "NUMBER",
        default: "100",
        help: Some("Sessions with the server at the same time; a further client is refused (SQLSTATE 53300)"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.size(CONNECTIONS).map(|value| it.max_connections = value)),
    },
    GatewayKey {
        name: "warm",
        form: Form::Number,
        value: "NUMBER",
        default: "0",
        help: Some(
            "Sessions that stand ready, signed in and never used, for each role, database and other parameters that clients ask for; they make room for clients. 0: none",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.size(WARM).map(|value| it.warm.number = value)),
    },
    GatewayKey {
        name: "warm_max_age",
        form: Form::Time,
        value: "TIME",
        default: "3m",
        help: Some("How long a session may wait for a client before another takes its place"),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.time(1..=DAY).map(|value| it.warm.max_age = value)),
    },
    GatewayKey {
        name: "server_check_delay",
        form: Form::Time,
        value: "TIME",
        default: "0s",
        help: Some(
            "How long sessions that wait go to clients without asking the server again whether their role may sign in and with which settings. 0: it is asked each time",
        ),
        excludes: &[],
        set: GatewaySet::Server(|it, given| given.time(0..=HOUR).map(|value| it.warm.check_delay = value)),
    },
];

impl KeyTable for GatewaySet {
    const PREFIX: &'static str = "PGENTRA_GATEWAY_";
    const OTHERS: &'static [&'static str] = &["config"];
    const TABLE: &'static str = "server";
    const SERVER: (&'static str, &'static str) = ("upstream", "/FOLDER[:PORT] or HOST[:PORT]");

    fn keys() -> &'static [GatewayKey] {
        GATEWAY_KEYS
    }

    fn is_of_table(self) -> bool {
        matches!(self, Self::Server(_))
    }
}

/// Stores a value. Without `process`, settings of the process are left as they are.
pub(crate) fn store(
    set: GatewaySet,
    process: Option<&mut GatewayProcessSettings>,
    server: &mut ServerSettings,
    given: &RawValue<'_>,
) -> Result<(), String> {
    match (set, process) {
        (GatewaySet::Server(set), _) => set(server, given),
        (GatewaySet::Process(set), Some(process)) => set(process, given),
        (GatewaySet::Process(_), None) => Ok(()),
    }
}

impl std::fmt::Debug for GatewaySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Process(_) => "Process",
            Self::Server(_) => "Server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_is_one_of_a_cluster() {
        for key in GATEWAY_KEYS {
            // Kubernetes sets these variables in every pod if a Service is named pgentra-gateway.
            for suffix in ["_HOST", "_PORT", "_TCP", "_ADDR", "_PROTO"] {
                assert!(!key.variable().ends_with(suffix), "{}", key.name);
            }
        }
    }

    #[test]
    fn the_defaults_are_as_documented() {
        for key in GATEWAY_KEYS {
            if key.default.is_empty() || key.form == Form::List || ["method", "keys_url"].contains(&key.name)
            {
                continue;
            }
            let (mut process, mut server) = Default::default();
            let given = [key.default.to_owned()];
            store(key.set, Some(&mut process), &mut server, &RawValue(&given)).unwrap();
            assert_eq!((process, server), Default::default(), "{}", key.name);
        }
    }
}
