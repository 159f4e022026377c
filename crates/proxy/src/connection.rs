//! One connection of a client, in the order of events: the start-up, the client's authentication, a
//! session from the pool or a new one, the answer to the client, the relay, the end, the record.

use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::BytesMut;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::startup::{CancelRequest, StartupMessage};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::auth::{ClientAuth, Tls};
use super::drain::{Drain, DrainWatch};
use super::limits::SessionPermit;
use super::options::DemotedSessions;
use super::pool::ServerPool;
use super::telemetry::{Cancelled, ConnectionRecord, Ended, SignIn};
use super::upstream::{Cancel, Upstream};
use super::upstream_start::upstream_start;
use super::{AuthProxy, RoutedProxies, refusal};
use pgentra_session::cancel::{Passed, Registration};
use pgentra_session::client::{Client, Opening, Socket};
use pgentra_session::greeting::Greeting;
use pgentra_session::listen::Shutdown;
use pgentra_session::login_error::{self, LoginError};
use pgentra_session::relay::{AsIs, Filter, RelayOutcome, hang_up, relay};
use pgentra_session::starting::Seat;
use pgentra_session::tracker::ProtocolTracker;
use pgentra_session::traffic::Counted;
use pgentra_session::turn_away::turn_away;

/// A client's session, from ReadyForQuery on.
struct ReadySession {
    upstream: Upstream,
    /// Bytes that the server sent after its ReadyForQuery.
    first: BytesMut,
    /// Keeps the client's cancel key valid.
    registration: Option<Registration<Cancel>>,
    sign_in: SignIn,
    /// Counts the client while it has the session.
    counted: Option<SessionPermit>,
    /// The start-up under which the session can be pooled; `None`: it cannot.
    pooled_as: Option<StartupMessage>,
}

/// Runs one connection from its accept to its end. Both sides are closed on every path.
pub(crate) async fn run<S: Socket>(
    proxies: Arc<RoutedProxies>,
    mut client: Client<S>,
    seat: Seat,
    shutdown: Shutdown,
) {
    let address = client.address();
    let mut record = ConnectionRecord::begin(&proxies.first().telemetry, proxies.is_one(), address);
    // Boxed, as everything that ends before the session begins: it keeps the task of an idle
    // session small.
    let login = Box::pin(log_in(&proxies, &mut client, &mut record, &seat));
    let Some(login) = shutdown.during(login, refusal::shutting_down).await else { return };
    drop(proxies);
    let (proxy, mut session) = match login {
        Ok(Some(ready)) => ready,
        Ok(None) => return Box::pin(client.close()).await,
        Err(error) => {
            if let LoginError::Rejected(fields) = &error {
                record.refused(fields);
            }
            return Box::pin(turn_away(client, seat, error, &shutdown)).await;
        }
    };
    drop(seat);
    let observed = record.signed_in(std::mem::take(&mut session.sign_in));
    let traffic = observed.traffic();
    let demoted = session.upstream.demoted.clone();
    let demoted = demoted.filter(|_| proxy.demoted_sessions == DemotedSessions::Close);
    let mut watched = DrainWatch::new(&mut client, proxy.drain, &shutdown.drain, demoted.as_ref());
    let outcome = {
        let mut counted = Counted::new(&mut watched, &traffic);
        let mut relaying = pin!(relay_session(&proxy, &mut counted, session));
        let mut is_draining = proxy.drain == Drain::Session;
        loop {
            tokio::select! {
                biased;
                () = shutdown.terminate.cancelled() => break None,
                outcome = &mut relaying => break Some(outcome),
                // Polls the relay once more, so that an idle session sees the drain.
                () = shutdown.drain.cancelled(), if !is_draining => is_draining = true,
                () = cancelled(demoted.as_ref()) => {
                    break Box::pin(rest_of_answer(&mut relaying, &proxy, &shutdown)).await;
                }
            }
        }
    };
    let is_demoted = demoted.as_ref().is_some_and(CancellationToken::is_cancelled);
    let ended = match outcome {
        Some(RelayOutcome::ClosedByClient) => Ended::Client,
        Some(RelayOutcome::ClosedByServer | RelayOutcome::ServerIo(_)) if watched.is_terminated() => {
            Ended::Client
        }
        Some(RelayOutcome::ClosedByServer) => Ended::Server,
        Some(RelayOutcome::ClientIo(error)) => {
            tracing::debug!(%address, %error, "the client's connection broke");
            Ended::Client
        }
        Some(RelayOutcome::ServerIo(error)) => {
            tracing::debug!(%address, %error, "the server's connection broke");
            Ended::Server
        }
        Some(RelayOutcome::Drained) if is_demoted => Ended::Demoted,
        Some(RelayOutcome::Drained) => Ended::Drained,
        None if watched.is_between_messages() => Ended::Drained,
        None => Ended::Cut,
    };
    let last_words = match ended {
        Ended::Drained => Some(refusal::terminated()),
        Ended::Demoted => Some(refusal::demoted(proxy.pool.wanted())),
        Ended::Client | Ended::Server | Ended::Cut => None,
    };
    let is_told = last_words.is_some();
    match ended {
        Ended::Client => tracing::debug!(%address, "a session ended"),
        Ended::Server => {
            tracing::debug!(%address, "a session ended");
            proxy.pool.ask_servers();
        }
        Ended::Drained | Ended::Demoted | Ended::Cut => {
            tracing::info!(%address, is_told, "a session was ended");
        }
    }
    observed.ended(ended);
    if let Some(last_words) = last_words {
        tokio::select! {
            () = shutdown.kill.cancelled() => {}
            () = Box::pin(client.tell(last_words)) => {}
        }
    }
}

/// Ends when the token is cancelled; never without one.
async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Relays a session with a server that does not suit any more, until the client has got whole messages only. `None`: it
/// took too long, or the shutdown ends it.
async fn rest_of_answer<F>(
    relaying: &mut Pin<&mut F>,
    proxy: &AuthProxy,
    shutdown: &Shutdown,
) -> Option<RelayOutcome>
where
    F: Future<Output = RelayOutcome>,
{
    tokio::select! {
        biased;
        () = shutdown.terminate.cancelled() => None,
        outcome = relaying => Some(outcome),
        () = sleep(proxy.limits.drain) => None,
    }
}

/// Runs the login up to ReadyForQuery. `None`: the connection was a cancel request and is done.
///
/// Not cancel-safe; after a drop, the client can still get an error.
async fn log_in<S: Socket>(
    proxies: &RoutedProxies,
    client: &mut Client<S>,
    record: &mut ConnectionRecord,
    seat: &Seat,
) -> Result<Option<(Arc<AuthProxy>, Box<ReadySession>)>, LoginError> {
    // Checked first, so that a user without access takes no resources from the others.
    check_origin(client, &proxies.first().client_auth())?;
    let first_packet = proxies.first().limits.first_packet_deadline();
    seat.arrive(client, first_packet).await?;
    // Boxed to keep the task of a silent connection small.
    Box::pin(async {
        let authenticated = authenticate(proxies, client, record, first_packet);
        let authenticated = seat.ask(authenticated).await?;
        seat.admitted();
        let Authenticated { proxy, client_auth, start } = match authenticated {
            Ok(authenticated) => authenticated,
            Err(request) => {
                forward_cancel(proxies, &request).await;
                return Ok(None);
            }
        };
        let role = client_auth.role(start.user())?;
        let server_start = upstream_start(proxy.connector.target(), proxy.naming, role, &start)?;
        record.asks_for(&server_start);
        let pool: &ServerPool = &proxy.pool;
        let opened = async {
            match proxy.is_direct {
                true => pool.open_apart(&server_start).await,
                false => pool.acquire(&server_start).await,
            }
        };
        let upstream = client.while_present(opened).await?;
        tracing::info!(
            address = %client.address(),
            role = &*String::from_utf8_lossy(server_start.user()),
            database = &*String::from_utf8_lossy(server_start.database()),
            tls = %upstream.tls,
            "a client is signed in"
        );
        let pooled_as = (!proxy.is_direct && pool.reuses(&server_start)).then_some(server_start);
        let session = answer(&proxy, client, &start, upstream, pooled_as).await?;
        Ok(Some((proxy, session)))
    })
    .await
}

/// Whether a client from there may use this proxy.
fn check_origin<S: Socket>(client: &Client<S>, client_auth: &ClientAuth) -> Result<(), LoginError> {
    if !client.is_trusted(&client_auth.uids) {
        return Err(refusal::peer_uid_denied(client.address()).into());
    }
    // The listener was checked too, but a reload may have replaced its client authentication.
    if client.is_remote() && !client_auth.admits_other_machines() {
        return Err(refusal::unauthenticated(client.address()).into());
    }
    Ok(())
}

/// A client that may use the role that it names.
struct Authenticated {
    proxy: Arc<AuthProxy>,
    client_auth: Arc<ClientAuth>,
    start: StartupMessage,
}

/// Reads the client's first request, finds its proxy, and reads the proof that it may use the role that it names. The
/// inner error is a cancel request, which is checked by its key alone.
async fn authenticate<S: Socket>(
    proxies: &RoutedProxies,
    client: &mut Client<S>,
    record: &mut ConnectionRecord,
    first_packet: Instant,
) -> Result<Result<Authenticated, CancelRequest>, LoginError> {
    let first = proxies.first();
    let authenticated = async {
        let offered = first.client_auth();
        let tls = offered.tls_over::<S>();
        let start = match client.open(tls.map(Tls::acceptor), first_packet).await? {
            Opening::Startup(start) => start,
            Opening::Cancel(request) => return Ok(Err(request)),
        };
        if start.user().is_empty() {
            return Err(login_error::no_user().into());
        }
        record.asks(&start);
        let found = proxies.find(client.server_name(), &start);
        let proxy = Arc::clone(found.ok_or_else(|| refusal::no_target(&start, proxies.is_by_role()))?);
        let client_auth = proxy.client_auth();
        if !proxies.is_one() {
            record.is_led_to(&proxy.telemetry);
            // That of the first one let the client in so far.
            check_origin(client, &client_auth)?;
        }
        client_auth.check_channel(client, start.user())?;
        client.negotiate(&start).await?;
        client_auth.check_password(client, start.user(), tls, &proxy.shared.attempts).await?;
        Ok(Ok(Authenticated { proxy, client_auth, start }))
    };
    let authenticated = timeout(first.limits.start_up, authenticated).await;
    authenticated.unwrap_or_else(|_| Err(refusal::slow().into()))
}

/// Forwards a cancel request to the server that has its session.
async fn forward_cancel(proxies: &RoutedProxies, request: &CancelRequest) {
    let pass = async |cancel: Cancel| cancel.forward_cancel().await;
    for proxy in proxies.all() {
        let how = match proxy.shared.cancel.forward_cancel(request, pass).await {
            Passed::UnknownKey => continue,
            Passed::WithAnother => Cancelled::WithAnother,
            Passed::Forwarded => Cancelled::PassedOn,
            Passed::Failed => Cancelled::Failed,
        };
        return proxy.telemetry.cancelled(how);
    }
    proxies.first().telemetry.cancelled(Cancelled::UnknownKey);
}

/// Forwards the server's messages up to ReadyForQuery, with a cancel key of the proxy.
async fn answer<S: Socket>(
    proxy: &AuthProxy,
    client: &mut Client<S>,
    start: &StartupMessage,
    upstream: Upstream,
    pooled_as: Option<StartupMessage>,
) -> Result<Box<ReadySession>, LoginError> {
    let mut received = BytesMut::from(&upstream.greeting[..]);
    let mut greeting = Greeting::new(start);
    while let Some(message) = BackendMessage::decode(&mut received)? {
        match (message, &upstream.cancel) {
            (BackendMessage::BackendKeyData(key), Some(cancel)) => {
                greeting.add_key(key.process_id, cancel.clone(), &proxy.shared.cancel)?;
            }
            // The server cannot be asked to cancel, so the client gets no key.
            (BackendMessage::BackendKeyData(_), None) => {}
            (ready @ BackendMessage::ReadyForQuery(_), _) => {
                greeting.add(&ready)?;
                break;
            }
            (other, _) => greeting.add(&other)?,
        }
    }
    let counted = proxy.shared.clients.take(usize::MAX);
    let registration = greeting.take_registration();
    greeting.send(client).await?;
    let sign_in = SignIn { identity: upstream.identity.clone(), backend_pid: upstream.process_id };
    // Boxed: each async function that it is passed through would reserve space for it.
    Ok(Box::new(ReadySession { upstream, first: received, registration, sign_in, counted, pooled_as }))
}

/// Relays a session from its first query until it ends or goes back to the pool.
async fn relay_session<C>(proxy: &AuthProxy, client: &mut C, mut session: Box<ReadySession>) -> RelayOutcome
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let first = std::mem::take(&mut session.first);
    let server = &mut session.upstream.stream;
    let mut tracker = session.pooled_as.is_some().then(ProtocolTracker::default);
    let outcome = match &mut tracker {
        None => relay(client, server, first, &mut AsIs).await,
        Some(tracker) => {
            tracker.see(&first);
            relay(client, server, first, tracker).await
        }
    };
    if matches!(outcome, RelayOutcome::Drained) {
        Box::pin(session.upstream.terminate()).await;
    }
    if matches!(outcome, RelayOutcome::ClosedByClient)
        && let Some(tracker) = tracker.filter(ProtocolTracker::ended_idle)
    {
        // Boxed to keep the task of an idle session small.
        Box::pin(async {
            // The relay has delivered everything; the client gets the end of the connection at
            // once.
            let _ = client.shutdown().await;
            let ReadySession { upstream, registration, counted, pooled_as, .. } = *session;
            drop((registration, counted));
            if let Some(start) = pooled_as {
                proxy.pool.recycle(upstream, &start, tracker.into_settings()).await;
            }
            // Closing with unread bytes of the client would make the system drop bytes that the
            // client has not read.
            hang_up(client).await;
        })
        .await;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use aws_lc_rs::digest;
    use pgentra_connect::pgentra_identity::{Cloud, Credential};
    use pgentra_connect::{Connector, Layers, Target};
    use pgentra_emulator::certificates::Authority;
    use pgentra_system::{Env, Files, System};
    use pgentra_wire::startup::{ProtocolVersion, encode_ssl_request};
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use postgres_protocol::message::{backend, frontend};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{ClientConfig, RootCertStore};
    use secrecy::ExposeSecret as _;
    use tokio::io::{AsyncRead, AsyncReadExt, duplex};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::Options;
    use crate::auth::Users;
    use pgentra_session::Limits;
    use pgentra_session::starting::Starting;

    /// A proxy whose server is never dialled.
    fn proxy(client_auth: ClientAuth) -> Arc<AuthProxy> {
        let env = Env::from_map([("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")]);
        let credential = Credential::builder(System::builder().env(env.clone()).build()).build().unwrap();
        let layers = Layers::gather(Some("host=db.example"), &[], &env, &Files::in_memory()).unwrap();
        let target = Target::resolve_server(&layers).unwrap();
        let connector = Connector::new(target, credential, Cloud::Public.postgres_resource()).unwrap();
        Arc::new(AuthProxy::new(connector, Options { client_auth, ..Options::default() }))
    }

    fn client_auth() -> ClientAuth {
        let issued = Authority::generate().unwrap().issue(&["localhost"]).unwrap().pem();
        let pem = issued.expose_secret().as_bytes();
        let tls = Some(Tls::from_pem(pem, pem, None).unwrap());
        ClientAuth { tls, users: Some(Users::parse("").unwrap()), ..ClientAuth::default() }
    }

    fn start() -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        StartupMessage::new(ProtocolVersion::V3_0, "app").unwrap().encode(&mut out);
        out.to_vec()
    }

    /// The SQLSTATE for a client with this address that hangs up at once; `None`: it was not refused.
    async fn refused(proxy: &Arc<AuthProxy>, address: &str) -> Option<String> {
        let (near, _) = duplex(1024);
        let mut client = Client::new(near, address.parse::<SocketAddr>().unwrap());
        let mut record = ConnectionRecord::begin(&Arc::default(), true, "a client");
        let seat = Starting::within(&proxy.limits).enter(client.origin());
        match log_in(&Arc::clone(proxy).into(), &mut client, &mut record, &seat).await {
            Err(LoginError::Rejected(fields)) => Some(fields.sqlstate().into_owned()),
            Ok(_) => panic!("a client that says nothing has no session"),
            Err(_) => None,
        }
    }

    #[tokio::test]
    async fn other_machines_are_refused_without_a_proof() {
        let refusal = Some("28000".to_owned());
        let open = proxy(ClientAuth::default());
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(refused(&open, local).await, None, "{local}");
        }
        let danger = proxy(ClientAuth { danger_admit_unauthenticated: true, ..ClientAuth::default() });
        let closed = proxy(client_auth());
        for remote in ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"] {
            assert_eq!(refused(&open, remote).await, refusal, "{remote}");
            assert_eq!(refused(&danger, remote).await, None, "{remote}");
            assert_eq!(refused(&closed, remote).await, None, "{remote}");
        }
        closed.set_client_auth(ClientAuth::default());
        assert_eq!(refused(&closed, "192.0.2.1:1").await, refusal);
    }

    /// The next message, which asks for a step of SCRAM.
    async fn asked(stream: &mut (impl AsyncRead + Unpin), unread: &mut bytes::BytesMut) -> backend::Message {
        loop {
            if let Some(message) = backend::Message::parse(unread).unwrap() {
                return message;
            }
            assert_ne!(stream.read_buf(unread).await.unwrap(), 0, "the proxy has closed the connection");
        }
    }

    #[tokio::test]
    async fn a_certificate_may_be_replaced_between_the_handshake_and_the_password() {
        let line = Users::line("app", &"secret".into()).unwrap();
        let with_password = || {
            let authority = Authority::generate().unwrap();
            let issued = authority.issue(&["localhost"]).unwrap();
            let pem = issued.pem();
            let tls = Tls::from_pem(pem.expose_secret().as_bytes(), pem.expose_secret().as_bytes(), None);
            let users = Some(Users::parse(&line).unwrap());
            (issued, authority, ClientAuth { tls: Some(tls.unwrap()), users, ..ClientAuth::default() })
        };
        let (issued, authority, first) = with_password();
        let (_, _, second) = with_password();
        let proxy = proxy(first);
        let proxies: RoutedProxies = Arc::clone(&proxy).into();
        let (near, mut far) = duplex(65_536);
        let mut client = Client::new(near, SocketAddr::from(([192, 0, 2, 1], 4711)));
        let serving = async {
            let mut record = ConnectionRecord::begin(&Arc::default(), true, "a client");
            authenticate(&proxies, &mut client, &mut record, Instant::now() + Duration::from_secs(60)).await
        };
        let connecting = async {
            let mut out = bytes::BytesMut::new();
            encode_ssl_request(&mut out);
            far.write_all(&out).await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), b'S');
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let connector = TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect("localhost".try_into().unwrap(), far).await.unwrap();

            proxy.set_client_auth(second);
            stream.write_all(&start()).await.unwrap();
            let mut unread = bytes::BytesMut::new();
            assert!(matches!(asked(&mut stream, &mut unread).await, backend::Message::AuthenticationSasl(_)));
            let digest = digest::digest(&digest::SHA256, &issued.chain[0]);
            let binding = ChannelBinding::tls_server_end_point(digest.as_ref().to_vec());
            let mut scram = ScramSha256::new(b"secret", binding);
            let mut out = bytes::BytesMut::new();
            frontend::sasl_initial_response("SCRAM-SHA-256-PLUS", scram.message(), &mut out).unwrap();
            stream.write_all(&out).await.unwrap();
            let backend::Message::AuthenticationSaslContinue(body) = asked(&mut stream, &mut unread).await
            else {
                panic!("not asked for the proof");
            };
            scram.update(body.data()).unwrap();
            let mut out = bytes::BytesMut::new();
            frontend::sasl_response(scram.message(), &mut out).unwrap();
            stream.write_all(&out).await.unwrap();
            stream
        };
        let (authenticated, _stream) = tokio::join!(serving, connecting);
        assert!(authenticated.is_ok(), "{:?}", authenticated.err());
    }

    /// How long the proxy waits for a client that sends `at_once` at once and `slowly` a byte a
    /// minute; and the error that the client gets.
    async fn waits(client_auth: ClientAuth, at_once: Vec<u8>, slowly: Vec<u8>) -> (Duration, String) {
        let proxy = proxy(client_auth);
        let (near, mut far) = duplex(65_536);
        let mut client = Client::new(near, SocketAddr::from(([192, 0, 2, 1], 4711)));
        let sending = tokio::spawn(async move {
            far.write_all(&at_once).await.unwrap();
            for byte in slowly {
                tokio::time::sleep(Duration::from_secs(59)).await;
                if far.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
            // The client stays connected and sends nothing more.
            let mut answer = Vec::new();
            let _ = far.read_to_end(&mut answer).await;
            answer
        });
        let began = Instant::now();
        let mut record = ConnectionRecord::begin(&Arc::default(), true, "a client");
        let first = began + proxy.limits.first_packet;
        let end = authenticate(&proxy.into(), &mut client, &mut record, first).await.err().unwrap();
        let waited = began.elapsed();
        let LoginError::Rejected(fields) = end else { panic!("{end:?}") };
        let sqlstate = fields.sqlstate().into_owned();
        let began = Instant::now();
        client.tell(fields).await;
        assert!(
            began.elapsed() <= Duration::from_secs(2),
            "the proxy waited for the client to read its error"
        );
        drop(sending.await);
        (waited, sqlstate)
    }

    /// A slow client has ten seconds for its first packet, and a minute for TLS, start-up and
    /// password together.
    #[tokio::test(start_paused = true)]
    async fn a_byte_a_minute_is_too_slow() {
        let Limits { start_up: minute, first_packet, .. } = Limits::default();
        assert_eq!((minute.as_secs(), first_packet.as_secs()), (60, 10));
        let mut request = bytes::BytesMut::new();
        encode_ssl_request(&mut request);
        let open = || ClientAuth { tls: None, ..client_auth() };
        let slow = start();
        let (most, rest) = slow.split_at(slow.len() - 1);
        for (about, client_auth, at_once, slowly, limit) in [
            ("nothing at all", ClientAuth::default(), vec![], vec![], first_packet),
            ("the start-up packet", ClientAuth::default(), vec![], start(), first_packet),
            ("its last byte", ClientAuth::default(), most.to_vec(), rest.to_vec(), first_packet),
            ("half a request for TLS", client_auth(), request[..4].to_vec(), vec![], first_packet),
            ("the handshake", client_auth(), request.to_vec(), vec![0x16; 200], minute),
            ("the password", open(), start(), vec![b'p'; 200], minute),
        ] {
            let (waited, sqlstate) = waits(client_auth, at_once, slowly).await;
            assert_eq!((waited, &*sqlstate), (limit, "57014"), "{about}");
        }
    }

    /// The size of a session's task, without running it.
    fn size<F>(_: impl Fn(Arc<RoutedProxies>, Client<TcpStream>, Seat, Shutdown) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle session costs little more than its task: the parts before and after the session are
    /// boxed.
    #[test]
    fn an_idle_session_pays_for_nothing_else() {
        let task = size(run::<TcpStream>);
        assert!(task <= 2048, "{task} bytes");
    }
}
