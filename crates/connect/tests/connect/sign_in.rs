//! Honest servers: a session, a second try with a newer token, refusals in words.

use std::error::Error as _;
use std::time::Duration;

use pgentra_connect::{
    ConnectErrorKind, Connector, Layers, Refusal, Roots, Session, SessionAttrs, Target, TlsFailure,
};
use pgentra_emulator::certificates::Authority;
use pgentra_emulator::{Endpoint, Fault};
use pgentra_system::{Env, Files};
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::net::TcpListener;
use tokio_postgres::SimpleQueryMessage;

use crate::server::{
    Machine, OLD_PRIMARY, OLD_STANDBY, PROCESS_ID, Server, Tls, Verdict, Wants, bearer, certificate,
    cleartext, resource,
};

const EXPIRED: Verdict = Verdict::Refuse {
    sqlstate: "28000",
    message: "The access token has expired. Acquire a new token and try again.",
};

struct Place {
    machine: Machine,
    authority: Authority,
    server: Server,
}

impl Place {
    async fn new(verdicts: &[Verdict]) -> Place {
        Place::asking(cleartext(), verdicts).await
    }

    async fn asking(wants: Wants, verdicts: &[Verdict]) -> Place {
        let authority = Authority::generate().unwrap();
        let tls = Tls::Speaks(certificate(&authority, &["localhost"]));
        let server = Server::start(tls, wants, verdicts).await;
        Place { machine: Machine::start().await, authority, server }
    }

    async fn connect(&self, options: &str) -> Result<Session, pgentra_connect::ConnectError> {
        let port = self.server.port;
        let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={port} user=myuser {options}");
        self.machine.connector(&conninfo, self.authority.pem()).unwrap().connect().await
    }
}

async fn forty_two(session: &Session) -> String {
    let messages = session.client().simple_query("SELECT 42").await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap().to_owned()
}

#[tokio::test]
async fn a_session() {
    let place = Place::new(&[Verdict::Accept]).await;
    let session =
        place.connect("dbname=mydb application_name=test options='-c search_path=x'").await.unwrap();
    assert_eq!(forty_two(&session).await, "42");
    assert_eq!(forty_two(&session).await, "42");
    assert_eq!(session.parameter("server_version"), Some("17.5"));
    assert_eq!(session.address().unwrap().port(), place.server.port);
    assert_eq!((session.tls().version(), session.tls().resumed()), ("TLSv1.3", false));
    session.close().await.unwrap();

    let token = place.machine.token().await;
    let log = place.server.log();
    assert_eq!(log.queries, ["SELECT 42", "SELECT 42"]);
    assert_eq!(log.passwords, [token.as_str()]);
    let times = log.plain.windows(token.len()).filter(|window| *window == token.as_bytes()).count();
    assert_eq!(times, 1, "the token is sent once");
    let startup = &log.startups[0];
    for (name, value) in [
        ("user", "myuser"),
        ("database", "mydb"),
        ("application_name", "test"),
        ("options", "-c search_path=x"),
        ("client_encoding", "UTF8"),
    ] {
        assert_eq!(startup.get(name), Some(value.as_bytes()), "{name}");
    }
    assert_eq!(log.startups.len(), 1, "what the driver sends to start up goes nowhere");
}

/// PostgreSQL 18 with `oauth` in pg_hba.conf: the token is the answer to the offer, once, and no password is sent.
#[tokio::test]
async fn a_session_by_oauthbearer() {
    let place = Place::asking(bearer(), &[Verdict::Accept]).await;
    let session = place.connect("").await.unwrap();
    assert_eq!(forty_two(&session).await, "42");
    let token = place.machine.token().await;
    let log = place.server.log();
    assert_eq!((log.bearers.as_slice(), log.passwords.len()), (&[token.clone()][..], 0));
    let times = log.plain.windows(token.len()).filter(|window| *window == token.as_bytes()).count();
    assert_eq!(times, 1, "the token is sent once");
}

#[tokio::test]
async fn a_refusal_by_oauthbearer() {
    let no = Verdict::Refuse {
        sqlstate: "28000",
        message: "OAuth bearer authentication failed for user \"myuser\"",
    };
    let place = Place::asking(bearer(), &[no]).await;
    let error = place.connect("").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Refused(Refusal::Validation));
    assert_eq!(error.server_message().unwrap().sqlstate(), "28000");
    let hint = error.hint().unwrap();
    assert!(hint.contains("https://issuer.example/.well-known/openid-configuration"), "{hint}");
    assert!(hint.contains("with the scope \"openid \\x1B[2J\""), "the server's text is data: {hint}");
    let token = place.machine.token().await;
    assert!(!format!("{error} {error:?} {hint}").contains(&token));
}

/// The stages one by one are the session.
#[tokio::test]
async fn a_session_by_stages() {
    let place = Place::new(&[Verdict::Accept]).await;
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} user=myuser", place.server.port);
    let connector = place.machine.connector(&conninfo, place.authority.pem()).unwrap();
    let addresses = connector.resolve(&connector.target().endpoints()[0]).await.unwrap();
    assert_eq!(addresses, [([127, 0, 0, 1], place.server.port).into()]);
    let stream = connector.dial(addresses[0]).await.unwrap();
    let secured = connector.secure(stream, "localhost").await.unwrap();
    assert_eq!(secured.tls().version(), "TLSv1.3");
    assert!(place.server.log().startups.is_empty(), "no role has been sent yet");
    let token = place.machine.credential.token(&resource()).await.unwrap();
    let session = connector.sign_in(secured, &token).await.unwrap();
    assert_eq!(forty_two(&session).await, "42");
}

/// Invariant 2: what is told of the token holds nothing of its text.
#[tokio::test]
async fn whose_token_it_was_and_how_long_it_took() {
    let place = Place::new(&[EXPIRED, Verdict::Accept]).await;
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={}", place.server.port);
    let target = Target::resolve_server(
        &Layers::gather(Some(&conninfo), &[], &Env::from_map::<String, String>([]), &Files::in_memory())
            .unwrap(),
    );
    let target = target.unwrap().with_roots(Roots::from_pem(place.authority.pem().as_bytes()).unwrap());
    let connector = Connector::new(target, place.machine.credential.clone(), resource()).unwrap();
    let before = connector.token_state();
    assert_eq!((before.identity, before.expires_on, before.succeeded), (None, None, 0));
    connector.token_ready().await.unwrap();
    // The next one is another.
    place.machine.azure.faults().push(Endpoint::ImdsToken, Fault::ShortLife(Duration::from_secs(7200)));

    let startup = StartupMessage::new(ProtocolVersion::V3_0, "myuser").unwrap();
    let signed_in = connector.open(&startup).await.unwrap();
    let identity = signed_in.identity().unwrap();
    let vm = place.machine.azure.vm();
    assert_eq!(identity.object_id(), Some(&*vm.object_id().to_string()));
    assert_eq!(identity.client_id(), Some(&*vm.client_id().to_string()));
    assert_eq!(identity.tenant(), Some(&*place.machine.azure.tenant().to_string()));
    let timings = signed_in.timings();
    for (stage, took) in
        [("token", timings.token), ("dial", timings.dial), ("tls", timings.tls), ("sign-in", timings.sign_in)]
    {
        assert!(took > Duration::ZERO, "{stage}");
    }

    let state = connector.token_state();
    assert_eq!((state.succeeded, state.failed, state.source.as_deref()), (2, 0, Some("imds")));
    assert!(state.obtained_on.unwrap() < state.expires_on.unwrap());
    let shown = format!("{state:?} {signed_in:?} {identity}");
    let token = place.machine.token().await;
    assert!(token.split('.').all(|piece| !shown.contains(piece)), "{shown}");
}

#[tokio::test]
async fn tls_sessions_are_resumed() {
    let place = Place::new(&[Verdict::Accept]).await;
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} user=myuser", place.server.port);
    let connector = place.machine.connector(&conninfo, place.authority.pem()).unwrap();
    let first = connector.connect().await.unwrap();
    assert_eq!(forty_two(&first).await, "42");
    let second = connector.clone().connect().await.unwrap();
    assert!(!first.tls().resumed() && second.tls().resumed());
}

#[tokio::test]
async fn direct_tls() {
    let authority = Authority::generate().unwrap();
    let machine = Machine::start().await;
    for (alpn, works) in [(&[&b"postgresql"[..]][..], true), (&[], false), (&[&b"http/1.1"[..]], false)] {
        let config = authority.issue(&["localhost"]).unwrap().server_config(alpn).unwrap();
        let server = Server::start(Tls::Direct(config), cleartext(), &[Verdict::Accept]).await;
        let conninfo = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=myuser sslnegotiation=direct",
            server.port
        );
        match machine.connector(&conninfo, authority.pem()).unwrap().connect().await {
            Ok(session) => {
                assert!(works);
                assert_eq!(forty_two(&session).await, "42");
            }
            Err(error) => {
                assert!(!works, "{error:?}");
                assert_eq!(error.kind(), ConnectErrorKind::Tls(TlsFailure::Handshake));
                assert!(server.log().passwords.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_statement_is_cancelled_with_the_sessions_key() {
    let place = Place::new(&[Verdict::Accept]).await;
    let session = place.connect("").await.unwrap();
    session.canceller().unwrap().cancel().await.unwrap();
    place.server.until("a cancel request", |log| !log.cancels.is_empty()).await;
    let log = place.server.log();
    assert_eq!(log.cancels[0].process_id, PROCESS_ID);
    assert_eq!(log.cancels[0].key.expose(), b"\x01\x02\x03\x04");
    assert_eq!(log.passwords.len(), 1);
}

#[tokio::test]
async fn over_a_stream_of_somebody_else() {
    let place = Place::new(&[Verdict::Accept]).await;
    let connector = place.machine.connector("host=elsewhere user=myuser", place.authority.pem()).unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", place.server.port)).await.unwrap();
    let session = connector.connect_over(stream, "localhost").await.unwrap();
    assert_eq!(forty_two(&session).await, "42");
    assert_eq!(session.address(), None);
    let canceller = session.canceller().unwrap();
    assert_eq!(canceller.cancel().await.unwrap_err().kind(), ConnectErrorKind::Config);
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", place.server.port)).await.unwrap();
    canceller.cancel_over(stream).await.unwrap();
    place.server.until("one cancel request", |log| log.cancels.len() == 1).await;
}

#[tokio::test]
async fn a_stale_token_is_replaced_once() {
    let place = Place::new(&[EXPIRED, Verdict::Accept]).await;
    let old = place.machine.token().await;
    // The platform keeps its token; this makes it give another one.
    place.machine.azure.faults().push(Endpoint::ImdsToken, Fault::ShortLife(Duration::from_secs(7200)));
    let session = place.connect("").await.unwrap();
    assert_eq!(forty_two(&session).await, "42");
    let new = place.machine.token().await;
    assert_ne!(old, new);
    assert_eq!(place.server.log().passwords, [old, new]);
}

#[tokio::test]
async fn a_second_refusal_is_the_last() {
    let place = Place::new(&[EXPIRED]).await;
    place.machine.token().await;
    place.machine.azure.faults().push(Endpoint::ImdsToken, Fault::ShortLife(Duration::from_secs(7200)));
    let error = place.connect("").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Refused(Refusal::Expired));
    assert!(!error.same_token_came_back());
    assert_eq!(place.server.log().passwords.len(), 2);
}

#[tokio::test]
async fn the_same_token_is_not_sent_twice() {
    let place = Place::new(&[EXPIRED, Verdict::Accept]).await;
    let error = place.connect("").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Refused(Refusal::Expired));
    assert!(error.same_token_came_back());
    assert!(error.hint().unwrap().contains("the same one again"));
    assert_eq!(place.server.log().passwords.len(), 1);
}

#[tokio::test]
async fn no_newer_token_leaves_the_first_refusal() {
    let place = Place::new(&[EXPIRED]).await;
    place.machine.token().await;
    place.machine.azure.faults().push(Endpoint::ImdsToken, Fault::status(400, "{}"));
    let error = place.connect("").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Refused(Refusal::Expired));
    assert_eq!(place.server.log().passwords.len(), 1);
}

#[tokio::test]
async fn what_no_token_can_mend_is_not_tried_again() {
    for (sqlstate, message, refusal) in [
        ("28P01", "password authentication failed for user \"myuser\"", Refusal::RoleNotMapped),
        ("3D000", "database \"myuser\" does not exist", Refusal::DatabaseMissing),
        ("53300", "sorry, too many clients already", Refusal::TooManyConnections),
        ("XX000", "no idea", Refusal::Other),
    ] {
        let place = Place::new(&[Verdict::Refuse { sqlstate, message }]).await;
        let error = place.connect("").await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Refused(refusal));
        assert_eq!(error.to_string(), format!("the server refused: {message} (SQLSTATE {sqlstate})"));
        assert_eq!(error.server_message().unwrap().sqlstate(), sqlstate);
        assert_eq!(place.server.log().passwords.len(), 1, "{message}");
    }
}

/// Invariant 2: a token is never printable, not even where the server sends it back.
#[tokio::test]
async fn a_server_that_repeats_the_token_is_not_quoted() {
    let place = Place::new(&[Verdict::Echo]).await;
    let error = place.connect("").await.unwrap_err();
    let token = place.machine.token().await;
    let server = error.server_message().unwrap();
    let said = format!("{error} {error:?} {:?} {server:?} {:?}", error.hint(), error.source());
    for piece in std::iter::once(token.as_str()).chain(token.split('.')) {
        assert!(!said.contains(piece), "{said}");
    }
    assert!(said.contains("what is [redacted]?"), "{said}");
}

#[tokio::test]
async fn a_server_that_asks_for_nothing_gets_no_token() {
    let place = Place::new(&[Verdict::Accept]).await;
    let tls = Tls::Speaks(certificate(&place.authority, &["localhost"]));
    let ok = Wants::Message(BackendMessage::Authentication(Authentication::Ok));
    let server = Server::start(tls, ok, &[Verdict::Accept]).await;
    let place = Place { server, ..place };
    let session = place.connect("").await.unwrap();
    assert_eq!(forty_two(&session).await, "42");
    assert!(place.server.log().passwords.is_empty());
}

#[tokio::test]
async fn a_server_that_never_gets_ready() {
    let place = Place::new(&[Verdict::Chatter]).await;
    let error = place.connect("").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Protocol, "{error:?}");
}

#[tokio::test]
async fn the_next_host_is_tried_if_one_cannot_be_reached() {
    let place = Place::new(&[Verdict::Accept]).await;
    // Bound and closed again: no process listens there.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let conninfo = format!(
        "host=localhost,localhost hostaddr=127.0.0.1,127.0.0.1 port={closed},{} user=myuser",
        place.server.port
    );
    let session = place.machine.connector(&conninfo, place.authority.pem()).unwrap().connect().await.unwrap();
    assert_eq!(session.address().unwrap().port(), place.server.port);

    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={closed} user=myuser");
    let error =
        place.machine.connector(&conninfo, place.authority.pem()).unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Tcp);
}

#[tokio::test]
async fn a_refusal_does_not_lead_to_the_next_host() {
    let first = Place::new(&[Verdict::Refuse { sqlstate: "28P01", message: "no" }]).await;
    let tls = Tls::Speaks(certificate(&first.authority, &["localhost"]));
    let second = Server::start(tls, cleartext(), &[Verdict::Accept]).await;
    let conninfo = format!(
        "host=localhost,localhost hostaddr=127.0.0.1,127.0.0.1 port={},{} user=myuser",
        first.server.port, second.port
    );
    let error =
        first.machine.connector(&conninfo, first.authority.pem()).unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Refused(Refusal::RoleNotMapped));
    assert_eq!(second.log().connections, 0);
}

const STANDBY: Verdict =
    Verdict::AcceptAs(&[("in_hot_standby", "on"), ("default_transaction_read_only", "off")]);
const PRIMARY: Verdict =
    Verdict::AcceptAs(&[("in_hot_standby", "off"), ("default_transaction_read_only", "off")]);

/// Several servers with one certificate.
struct Cluster {
    machine: Machine,
    authority: Authority,
    servers: Vec<Server>,
}

impl Cluster {
    async fn new(verdicts: &[Verdict]) -> Cluster {
        let authority = Authority::generate().unwrap();
        let tls = Tls::Speaks(certificate(&authority, &["localhost"]));
        let mut servers = Vec::new();
        for verdict in verdicts {
            servers.push(Server::start(tls.clone(), cleartext(), std::slice::from_ref(verdict)).await);
        }
        Cluster { machine: Machine::start().await, authority, servers }
    }

    fn connector(&self, ports: &[u16], options: &str) -> Connector {
        let each = |one: &dyn Fn(&u16) -> String| ports.iter().map(one).collect::<Vec<_>>().join(",");
        let (hosts, ports) = (each(&|_| "localhost".to_owned()), each(&ToString::to_string));
        let addresses = hosts.replace("localhost", "127.0.0.1");
        let conninfo = format!("host={hosts} hostaddr={addresses} port={ports} user=myuser {options}");
        self.machine.connector(&conninfo, self.authority.pem()).unwrap()
    }

    async fn connect(&self, ports: &[u16], attrs: &str) -> Result<Session, pgentra_connect::ConnectError> {
        self.connector(ports, &format!("target_session_attrs={attrs}")).connect().await
    }
}

/// After a failover the first host may be the standby: with `read-write` the next host is tried.
#[tokio::test]
async fn the_server_that_was_asked_for_is_taken() {
    let verdicts = [STANDBY, PRIMARY, Verdict::AcceptOld(OLD_STANDBY), Verdict::AcceptOld(OLD_PRIMARY)];
    let cluster = Cluster::new(&[&verdicts[..], &[Verdict::Accept]].concat()).await;
    let ports: Vec<u16> = cluster.servers.iter().map(|server| server.port).collect();
    let [standby, primary, old_standby, old_primary, mute] = ports[..] else { panic!("five servers") };
    for (standby, primary) in [(standby, primary), (old_standby, old_primary)] {
        for (ports, attrs, expected) in [
            ([standby, primary], "any", standby),
            ([standby, primary], "read-write", primary),
            ([standby, primary], "primary", primary),
            ([primary, standby], "read-only", standby),
            ([primary, standby], "standby", standby),
            ([primary, standby], "prefer-standby", standby),
            ([primary, primary], "prefer-standby", primary),
        ] {
            let session = cluster.connect(&ports, attrs).await.unwrap();
            assert_eq!(session.address().unwrap().port(), expected, "{attrs}");
            // Messages of the search are not taken for answers of the session.
            assert_eq!(forty_two(&session).await, "42");
        }
    }
    for (ports, attrs, says) in [
        ([standby, standby], "read-write", "is a standby"),
        ([primary, old_primary], "standby", "is a primary"),
        ([mute, mute], "primary", "does not say what it is"),
    ] {
        let error = cluster.connect(&ports, attrs).await.unwrap_err();
        let [one, two] = ports.map(|port| format!("localhost:{port} {says}"));
        let expected = format!("no server fits target_session_attrs={attrs}: {one}; {two}");
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    }
}

/// A session that is not wanted is ended in PostgreSQL's way, so that the server logs no broken connection; and a server
/// that is taken in the end is signed in to once.
#[tokio::test]
async fn no_session_is_left_behind_or_opened_twice() {
    let cluster = Cluster::new(&[PRIMARY, PRIMARY]).await;
    let ports = [cluster.servers[0].port, cluster.servers[1].port];
    let session = cluster.connect(&ports, "prefer-standby").await.unwrap();
    assert_eq!(session.address().unwrap().port(), ports[0]);
    assert_eq!(cluster.servers.iter().map(|it| it.log().connections).collect::<Vec<_>>(), [1, 1]);
    cluster.servers[1].until("the session is ended", |log| log.plain.ends_with(b"X\0\0\0\x04")).await;
    assert!(!cluster.servers[0].log().plain.ends_with(b"X\0\0\0\x04"));
}

/// The rule of libpq: what is not up leads on, and the last error names each host.
#[tokio::test]
async fn a_server_that_accepts_no_connections_leads_to_the_next_host() {
    const STARTING: Verdict =
        Verdict::Refuse { sqlstate: "57P03", message: "the database system is starting up" };
    let cluster = Cluster::new(&[STARTING, PRIMARY]).await;
    let [starting, primary] = [cluster.servers[0].port, cluster.servers[1].port];
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let session = cluster.connect(&[closed, starting, primary], "any").await.unwrap();
    assert_eq!(session.address().unwrap().port(), primary);

    let error = cluster.connect(&[closed, starting], "any").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Refused(Refusal::NotReady));
    assert_eq!(error.server_message().unwrap().sqlstate(), "57P03");
    let text = error.to_string();
    for part in [
        "no server can be reached: ",
        &format!("localhost:{closed}: no connection to 127.0.0.1:{closed}: "),
        &format!("; localhost:{starting}: the server refused: the database system is starting up"),
    ] {
        assert!(text.contains(part), "{text}");
    }
    let error = cluster.connect(&[closed, primary], "standby").await.unwrap_err().to_string();
    assert!(error.contains(&format!("localhost:{closed}: no connection")), "{error}");
    assert!(error.ends_with(&format!("localhost:{primary} is a primary")), "{error}");
}

/// A caller that knows more of the hosts says in which order they are tried.
#[tokio::test]
async fn hosts_are_tried_in_the_order_that_is_given() {
    let cluster = Cluster::new(&[PRIMARY, STANDBY]).await;
    let ports = [cluster.servers[0].port, cluster.servers[1].port];
    let connector = cluster.connector(&ports, "");
    let startup = StartupMessage::new(ProtocolVersion::V3_0, "myuser").unwrap();
    for (order, expected) in [(&[0, 1][..], 0), (&[1, 0], 1), (&[1], 1), (&[7, 1], 1)] {
        let signed_in = connector.open_among(&startup, order).await.unwrap();
        assert_eq!(signed_in.host(), Some(expected), "{order:?}");
        assert_eq!(signed_in.state().unwrap().is_standby, expected == 1);
    }
    assert!(connector.open_among(&startup, &[]).await.is_err());
    let mut standby = connector.with_session_attrs(SessionAttrs::Standby).open(&startup).await.unwrap();
    assert_eq!(standby.host(), Some(1));
    // This server's answers are no states.
    assert!(standby.ask_state().await.is_err());
}

#[tokio::test]
async fn with_random_order_every_host_gets_sessions() {
    let cluster = Cluster::new(&[PRIMARY, PRIMARY]).await;
    let ports = [cluster.servers[0].port, cluster.servers[1].port];
    let connector = cluster.connector(&ports, "load_balance_hosts=random");
    // One host gets all of 40 sessions with a probability of 2 in 2^40.
    for _ in 0..40 {
        connector.connect().await.unwrap();
    }
    assert!(cluster.servers.iter().all(|server| server.log().connections > 0));
    let in_order = cluster.connector(&ports, "");
    let before = cluster.servers[1].log().connections;
    for _ in 0..3 {
        in_order.connect().await.unwrap();
    }
    assert_eq!(cluster.servers[1].log().connections, before);
}

#[tokio::test]
async fn without_a_token_nothing_is_dialled() {
    let place = Place::new(&[Verdict::Accept]).await;
    place
        .machine
        .azure
        .faults()
        .push_lasting(Endpoint::ImdsToken, Fault::status(400, r#"{"error":"invalid_request"}"#));
    let error = place.connect("").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Token);
    assert!(error.token_error().is_some());
    assert_eq!(place.server.log().connections, 0);
}

#[tokio::test]
async fn a_name_without_an_address() {
    let machine = Machine::start().await;
    let authority = Authority::generate().unwrap();
    let connector = machine.connector("host=no-such-host.invalid user=myuser", authority.pem()).unwrap();
    let error = connector.connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Dns);
    assert!(error.to_string().contains("no-such-host.invalid"));
}

/// Whether bytes have the token in them, or a part of it that is no common word.
fn has(bytes: &[u8], token: &str) -> bool {
    let pieces = std::iter::once(token).chain(token.split('.'));
    pieces.into_iter().any(|piece| bytes.windows(piece.len()).any(|window| window == piece.as_bytes()))
}

/// Invariant 2: what a server says may repeat the token, and is given to others.
#[tokio::test]
async fn a_server_that_repeats_the_token_does_not_get_it_any_further() {
    let place = Place::new(&[Verdict::Repeat]).await;
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} user=myuser", place.server.port);
    let connector = place.machine.connector(&conninfo, place.authority.pem()).unwrap();
    let startup = StartupMessage::new(ProtocolVersion::V3_0, "myuser").unwrap();
    let said = connector.open(&startup).await.unwrap().said();
    let token = place.machine.token().await;
    assert!(!has(&said, &token));
    let mut said = bytes::BytesMut::from(&said[..]);
    let mut settings = Vec::new();
    let mut notices = Vec::new();
    while let Some(message) = BackendMessage::decode(&mut said).unwrap() {
        match message {
            BackendMessage::ParameterStatus(setting) => settings.push((setting.name, setting.value)),
            BackendMessage::NoticeResponse(fields) => notices.push(fields),
            _ => {}
        }
    }
    assert_eq!(settings[0], ("application_name".into(), "[redacted]".into()));
    assert_eq!(settings[1], ("[redacted]".into(), "value".into()));
    assert_eq!(settings[2], ("server_version".into(), "17.5".into()), "the rest is as it was");
    assert_eq!(notices[0].message(), "[redacted][redacted]");
    assert_eq!(notices[0].hint().unwrap(), "is it [redacted]?");
    assert_eq!(notices[0].iter().filter(|(_, text)| *text == b"[redacted]").count(), 2, "detail and where");

    let session = place.connect("").await.unwrap();
    assert_eq!(session.parameter("application_name"), Some("[redacted]"));
    assert_eq!(forty_two(&session).await, "42");
}

#[tokio::test]
async fn a_refusal_behind_the_sign_in_does_not_repeat_the_token_either() {
    let place = Place::new(&[Verdict::AcceptAndEcho]).await;
    let error = place.connect("").await.unwrap_err();
    let server = error.server_message().unwrap();
    assert_eq!((server.sqlstate(), server.detail()), ("28000", Some("[redacted]")));
    let token = place.machine.token().await;
    assert!(!has(format!("{error:?}").as_bytes(), &token));
}
