//! All settings of `pgentra proxy`: the flag, the variable, the key in the file and in a target's
//! URI, and the line in the documentation come from [`KEYS`].

use std::ops::RangeInclusive;

use pgentra_proxy::{DemotedSessions, Drain};
use pgentra_settings::{Form, KeyTable, ListenAddr, RawValue};

use crate::identity_keys;
use crate::key::{Key, Set};
use crate::settings::{ProcessSettings, TargetSettings};

/// With 0 every client would be refused; a larger number is a typing error.
const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// Unused sessions cost the server memory, so the number is bounded.
const WARM: RangeInclusive<u64> = 0..=1000;
/// More than any server can sign in.
const RATE: RangeInclusive<u64> = 0..=100_000;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// Every key. To add one: a field in `settings.rs` and an entry here; then `docs/proxy-configure.md` (a test says which line).
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        form: Form::List,
        value: "ADDR",
        default: "127.0.0.1:5432, the next target 5433, and so on",
        help: Some(
            "Where clients come in: IP:PORT, PORT, /FOLDER[:PORT] for a Unix socket, or systemd:NAME for one of systemd's; port 0 \
             takes any free one. May be given once for each target, or several times for one",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.list().map(|value| target.listen = value)),
    },
    Key {
        name: "listen_read",
        form: Form::List,
        value: "ADDR",
        default: "none",
        help: Some(
            "Where clients come in whose sessions go to a standby, if one of the target's hosts is one \
             (target_session_attrs=prefer-standby)",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.list().map(|value| target.listen_read = value)),
    },
    Key {
        name: "listen_direct",
        form: Form::List,
        value: "ADDR",
        default: "none",
        help: Some(
            "Where clients come in whose sessions are never pooled: each is opened for its client and ends with it, whatever \
             warm and reuse say",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.list().map(|value| target.listen_direct = value)),
    },
    Key {
        name: "databases",
        form: Form::List,
        value: "NAME",
        default: "all",
        help: Some("The databases whose clients are led to this target, of those that share its address"),
        excludes: &[],
        set: Set::Target(|target, given| given.list().map(|value| target.route.databases = value)),
    },
    Key {
        name: "host_names",
        form: Form::List,
        value: "NAME",
        default: "all",
        help: Some(
            "The host names, as clients give them in the TLS handshake (SNI), that are led to this target; they need \
             listen_tls_cert",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.list().map(|value| target.route.host_names = value)),
    },
    Key {
        name: "roles",
        form: Form::List,
        value: "ROLE",
        default: "all",
        help: Some("The roles, as clients name them, that are led to this target"),
        excludes: &[],
        set: Set::Target(|target, given| given.list().map(|value| target.route.roles = value)),
    },
    Key {
        name: "name",
        form: Form::Text,
        value: "NAME",
        default: "",
        help: Some(
            "What metrics, audit lines and the status page call the target, at most 63 characters; without it, its host and \
             database. Each target has a name of its own",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.label().map(|value| target.name = Some(value))),
    },
    Key {
        name: "listen_tls_cert",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some(
            "The certificate chain (PEM) that is shown to clients over TCP, who have to use TLS then; read again when it changes",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.path().map(|value| target.client_auth.tls_cert = Some(value))),
    },
    Key {
        name: "listen_tls_key",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("The private key of listen_tls_cert (PEM), for the proxy's eyes alone: mode 0600 or 0640"),
        excludes: &[],
        set: Set::Target(|target, given| given.path().map(|value| target.client_auth.tls_key = Some(value))),
    },
    Key {
        name: "listen_tls_client_ca",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("The authorities (PEM) of which one has to have issued a client's certificate"),
        excludes: &[],
        set: Set::Target(|target, given| {
            given.path().map(|value| target.client_auth.tls_client_ca = Some(value))
        }),
    },
    Key {
        name: "listen_tls_client_name",
        form: Form::Text,
        value: "NAME",
        default: "any",
        help: Some(
            "What of its certificate has to be a client's role: any (nothing), cn (the common name) or dn (the distinguished name)",
        ),
        excludes: &[],
        set: Set::Target(|target, given| {
            given.parsed().map(|value| target.client_auth.tls_client_name = value)
        }),
    },
    Key {
        name: "listen_tls_client_map",
        form: Form::Table,
        value: "NAME=ROLE",
        default: "",
        help: Some("Which roles a certificate's name opens, instead of the one that is called the same"),
        excludes: &[],
        set: Set::Target(|target, given| {
            given.pairs().map(|value| target.client_auth.tls_client_map = value)
        }),
    },
    Key {
        name: "listen_auth_file",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some(
            "A file of roles and their SCRAM-SHA-256 verifiers, in the form of PgBouncer's userlist.txt: clients have to know the password; read again when it changes",
        ),
        excludes: &[],
        set: Set::Target(|target, given| {
            given.path().map(|value| target.client_auth.auth_file = Some(value))
        }),
    },
    Key {
        name: "listen_uids",
        form: Form::List,
        value: "USER",
        default: "",
        help: Some(
            "Users of this machine, by number or name, who may use the Unix sockets beside the proxy's own",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.list().map(|value| target.client_auth.uids = value)),
    },
    Key {
        name: "role_map",
        form: Form::Table,
        value: "ROLE=ROLE",
        default: "",
        help: Some("Which role of the database a client's role is; a role that is not in it is refused"),
        excludes: &[],
        set: Set::Target(|target, given| given.map().map(|value| target.client_auth.role_map = value)),
    },
    Key {
        name: "pin",
        form: Form::Switch,
        value: "BOOL",
        default: "false",
        help: Some(
            "Put the role and the database that the target names in the place of those that clients name",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.switch().map(|value| target.pin = value)),
    },
    Key {
        name: "max_connections",
        form: Form::Number,
        value: "NUMBER",
        default: "100",
        help: Some(
            "Sessions with each target at the same time; a further client is refused (SQLSTATE 53300)",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.size(CONNECTIONS).map(|value| target.max_connections = value)),
    },
    Key {
        name: "start_up_timeout",
        form: Form::Time,
        value: "TIME",
        default: "60s",
        help: Some("Time that a client has for TLS, its start-up packet and its password"),
        excludes: &[],
        set: Set::Target(|target, given| given.time(1..=HOUR).map(|value| target.start_up_timeout = value)),
    },
    Key {
        name: "first_packet_timeout",
        form: Form::Time,
        value: "TIME",
        default: "10s",
        help: Some(
            "Time that a client has for its first packet: the start-up packet, or the request for TLS; never more than start_up_timeout",
        ),
        excludes: &[],
        set: Set::Target(|target, given| {
            given.time(1..=HOUR).map(|value| target.first_packet_timeout = value)
        }),
    },
    Key {
        name: "warm",
        form: Form::Number,
        value: "NUMBER",
        default: "0",
        help: Some(
            "Sessions that stand ready, signed in and never used, for each role, database and other parameters that clients ask \
             for; they count as sessions of the target, and make room for clients. 0: none",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.size(WARM).map(|value| target.warm = value)),
    },
    Key {
        name: "warm_max_age",
        form: Form::Time,
        value: "TIME",
        default: "3m",
        help: Some("How long a session may wait for a client before it is replaced"),
        excludes: &[],
        set: Set::Target(|target, given| given.time(1..=DAY).map(|value| target.warm_max_age = value)),
    },
    Key {
        name: "reuse",
        form: Form::Switch,
        value: "BOOL",
        default: "false",
        help: Some(
            "Clean a session that its client has left with DISCARD ALL and give it to the next client with the same role, \
             database and other parameters",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.switch().map(|value| target.reuse = value)),
    },
    Key {
        name: "server_lifetime",
        form: Form::Time,
        value: "TIME",
        default: "1h",
        help: Some(
            "How long after it was opened a session is kept by warm and reuse, however often it was used. 0: none is kept",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.time(0..=DAY).map(|value| target.server_lifetime = value)),
    },
    Key {
        name: "server_check_delay",
        form: Form::Time,
        value: "TIME",
        default: "0s",
        help: Some(
            "How long a kept session goes to clients without asking the server again whether its role may sign in and with which \
             settings. 0: it is asked each time",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.time(0..=HOUR).map(|value| target.server_check_delay = value)),
    },
    Key {
        name: "server_role_interval",
        form: Form::Time,
        value: "TIME",
        default: "2s",
        help: Some(
            "How often each server of a target with several hosts or target_session_attrs is asked whether it is a standby, so \
             that new sessions go to the right one. 0: each sign-in finds out for itself",
        ),
        excludes: &[],
        set: Set::Target(|target, given| {
            given.time(0..=HOUR).map(|value| target.server_role_interval = value)
        }),
    },
    Key {
        name: "demoted_sessions",
        form: Form::Text,
        value: "WHAT",
        default: "keep",
        help: Some(
            "What becomes of sessions with a server that no longer fits target_session_attrs: keep, they go on; close, they end \
             with SQLSTATE 57P01 between two messages",
        ),
        excludes: &[],
        set: Set::Target(|target, given| given.read(demoted).map(|value| target.demoted_sessions = value)),
    },
    Key {
        name: "connect_rate",
        form: Form::Number,
        value: "NUMBER",
        default: "0",
        help: Some(
            "New connections to the target in a second; a further client waits for its turn, or is refused (SQLSTATE 57P03) where \
             that takes longer than 5 seconds. 0: no limit",
        ),
        excludes: &[],
        set: Set::Target(|target, given| {
            let rate = given.number(RATE)?;
            u32::try_from(rate).map(|rate| target.connect_rate = rate).map_err(|error| error.to_string())
        }),
    },
    Key {
        name: "drain_timeout",
        form: Form::Time,
        value: "TIME",
        default: "5s",
        help: Some("Time that sessions have to end by themselves when the proxy is told to stop"),
        excludes: &[],
        set: Set::Process(|process, given| given.time(0..=DAY).map(|value| process.drain_timeout = value)),
    },
    Key {
        name: "drain",
        form: Form::Text,
        value: "UNIT",
        default: "session",
        help: Some(
            "What a session may still do when the proxy is told to stop: session, end by itself; transaction, end its transaction \
             and be told 57P01",
        ),
        excludes: &[],
        set: Set::Process(|process, given| given.read(drain).map(|value| process.drain = value)),
    },
    Key {
        name: "danger_listen_beyond_loopback",
        form: Form::Switch,
        value: "BOOL",
        default: "false",
        help: Some(
            "Listen beyond the loopback interface without asking for TLS and a certificate or password: every \
             client that reaches the address has the identity's rights",
        ),
        excludes: &[],
        set: Set::Process(|process, given| {
            given.switch().map(|value| process.danger_listen_beyond_loopback = value)
        }),
    },
    Key {
        name: "admin_listen",
        form: Form::Text,
        value: "ADDR",
        default: "",
        help: Some(
            "Where the status page is, with probes, metrics, POST /pool/close and POST /quitquitquit: IP:PORT or PORT, on the loopback interface",
        ),
        excludes: &[],
        set: Set::Process(|process, given| {
            let place = given.parsed::<ListenAddr>()?;
            if !place.is_local() {
                return Err(format!(
                    "cannot be {place}: every client that reaches it may end the proxy; health_listen has probes and metrics alone"
                ));
            }
            process.telemetry.admin_listen = Some(place.tcp()?);
            Ok(())
        }),
    },
    Key {
        name: "health_listen",
        form: Form::Text,
        value: "ADDR",
        default: "",
        help: Some("Where probes and metrics are, and nothing else: IP:PORT or PORT, on any interface"),
        excludes: &[],
        set: Set::Process(|process, given| {
            process.telemetry.health_listen = Some(given.parsed::<ListenAddr>()?.tcp()?);
            Ok(())
        }),
    },
    Key {
        name: "log_format",
        form: Form::Text,
        value: "FORMAT",
        default: "text",
        help: Some("How the log is written: text, or json for an object a line"),
        excludes: &[],
        set: Set::Process(|process, given| given.parsed().map(|value| process.telemetry.log_format = value)),
    },
    Key {
        name: "audit",
        form: Form::Text,
        value: "FILE",
        default: "",
        help: Some("A file that gets a JSON line for each start, end and refusal of a session; - is stderr"),
        excludes: &[],
        set: Set::Process(|process, given| {
            given.text().map(|value| process.telemetry.audit = Some(value.into()))
        }),
    },
    identity_keys::CLIENT_ID,
    identity_keys::OBJECT_ID,
    identity_keys::RESOURCE_ID,
    identity_keys::SOURCE,
    identity_keys::TOKEN_COMMAND,
    identity_keys::TOKEN_LIFETIME,
    identity_keys::TENANT,
    identity_keys::CLOUD,
    identity_keys::RESOURCE,
    identity_keys::TOKEN_TIMEOUT,
];

impl KeyTable for Set {
    const PREFIX: &'static str = "PGENTRA_";
    const OTHERS: &'static [&'static str] = &["config", "log", "local", "local_folder", "local_instance"];
    const FOREIGN: &'static [&'static str] = &["gateway_"];
    const TABLE: &'static str = "target";
    const SERVER: (&'static str, &'static str) = ("server", "a connection URI or a conninfo string");

    fn keys() -> &'static [Key] {
        KEYS
    }

    fn is_of_table(self) -> bool {
        matches!(self, Self::Target(_))
    }
}

/// Stores a value. Without `process`, settings of the process are left as they are.
pub(crate) fn store(
    set: Set,
    process: Option<&mut ProcessSettings>,
    target: &mut TargetSettings,
    given: &RawValue<'_>,
) -> Result<(), String> {
    match (set, process) {
        (Set::Target(set), _) => set(target, given),
        (Set::Process(set), Some(process)) => set(process, given),
        (Set::Process(_), None) => Ok(()),
    }
}

fn drain(text: &str) -> Result<Drain, String> {
    match text {
        "session" => Ok(Drain::Session),
        "transaction" => Ok(Drain::Transaction),
        other => Err(format!("is session or transaction, not `{other}`")),
    }
}

fn demoted(text: &str) -> Result<DemotedSessions, String> {
    match text {
        "keep" => Ok(DemotedSessions::Keep),
        "close" => Ok(DemotedSessions::Close),
        other => Err(format!("is keep or close, not `{other}`")),
    }
}

#[cfg(test)]
mod tests {
    use pgentra_connect::{connection_keywords, is_connection_keyword};

    use super::*;

    #[test]
    fn no_key_is_also_a_word_of_libpqs_or_of_a_cluster() {
        for key in KEYS {
            assert!(!is_connection_keyword(key.name), "{}", key.name);
            // Kubernetes sets these variables in every pod if a Service is named pgentra.
            for suffix in ["_HOST", "_PORT", "_TCP", "_ADDR", "_PROTO"] {
                assert!(!key.variable().ends_with(suffix), "{}", key.name);
            }
        }
        assert_ne!(connection_keywords().count(), 0);
    }

    #[test]
    fn the_defaults_are_as_documented() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty() && key.form != Form::List) {
            let (mut process, mut target) = (ProcessSettings::default(), TargetSettings::default());
            let given = [key.default.to_owned()];
            match key.set {
                Set::Process(set) => set(&mut process, &RawValue(&given)).unwrap(),
                Set::Target(set) => set(&mut target, &RawValue(&given)).unwrap(),
            }
            assert_eq!((process, target), Default::default(), "{}", key.name);
        }
    }

    #[test]
    fn what_excludes_is_excluded() {
        for key in KEYS {
            for other in key.excludes {
                assert!(Key::find(other).unwrap().excludes.contains(&key.name), "{} and {other}", key.name);
            }
        }
    }
}
