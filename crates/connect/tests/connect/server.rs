//! Scripted servers that record every byte they receive.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::BytesMut;
use eventually::{DEADLINE, eventually};
use pgentra_connect::{ConnectError, Connector, Layers, Roots, Target};
use pgentra_emulator::certificates::Authority;
use pgentra_emulator::{Clock as CloudClock, LocalAzure, Options};
use pgentra_identity::{Cloud, Credential, Resource};
use pgentra_system::{Clock, Env, Files, System, SystemClock};
use pgentra_wire::backend::{
    Authentication, BackendKeyData, BackendMessage, Mechanisms, ParameterStatus, TransactionStatus,
};
use pgentra_wire::fields::{FieldCode, Fields, Severity};
use pgentra_wire::frontend::AuthenticationAnswer;
use pgentra_wire::oauthbearer::{self, ClientMessage};
use pgentra_wire::startup::{CancelKey, CancelRequest, FirstPacket, StartupMessage};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How a server treats the wish for TLS.
#[derive(Clone)]
pub(crate) enum Tls {
    /// `S` and a handshake with this certificate.
    Speaks(Arc<ServerConfig>),
    /// The handshake at once.
    Direct(Arc<ServerConfig>),
    /// These bytes instead, then it listens on.
    Says(&'static [u8]),
    /// Hangs up.
    HangsUp,
}

/// The authentication request of a server after the start-up packet.
#[derive(Clone)]
pub(crate) enum Wants {
    /// This message.
    Message(BackendMessage),
    /// These bytes, whatever they mean.
    Bytes(&'static [u8]),
}

/// What a server does with a password.
#[derive(Clone)]
pub(crate) enum Verdict {
    Accept,
    /// Accepts, and says these settings of itself.
    AcceptAs(&'static [(&'static str, &'static str)]),
    /// Accepts, says nothing of its state, and tells it in an answer of this row: as PostgreSQL before 14.
    AcceptOld(&'static [u8]),
    Refuse {
        sqlstate: &'static str,
        message: &'static str,
    },
    /// Refuses in a message that repeats the password.
    Echo,
    /// Accepts, and repeats the password in a setting and in each text of a notice.
    Repeat,
    /// Accepts, and then refuses in a message that repeats the password.
    AcceptAndEcho,
    /// Accepts, and then never gets ready.
    Chatter,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    log: Arc<Mutex<Log>>,
}

/// Everything a server was sent.
#[derive(Default)]
pub(crate) struct Log {
    /// As it came over the wire.
    pub(crate) wire: Vec<u8>,
    /// As it came out of TLS.
    pub(crate) plain: Vec<u8>,
    pub(crate) connections: usize,
    pub(crate) startups: Vec<StartupMessage>,
    pub(crate) passwords: Vec<String>,
    /// Tokens that came by OAUTHBEARER.
    pub(crate) bearers: Vec<String>,
    pub(crate) cancels: Vec<CancelRequest>,
    pub(crate) queries: Vec<String>,
}

struct Behaviour {
    tls: Tls,
    wants: Wants,
    verdicts: Mutex<VecDeque<Verdict>>,
    /// The row that tells its state.
    state: Mutex<Option<&'static [u8]>>,
}

pub(crate) const OLD_PRIMARY: &[u8] = b"D\0\0\0\x16\0\x02\0\0\0\x05false\0\0\0\x03off";
pub(crate) const OLD_STANDBY: &[u8] = b"D\0\0\0\x14\0\x02\0\0\0\x04true\0\0\0\x02on";

pub(crate) fn cleartext() -> Wants {
    Wants::Message(BackendMessage::Authentication(Authentication::CleartextPassword))
}

/// An offer of OAUTHBEARER, with other mechanisms beside it.
pub(crate) fn bearer() -> Wants {
    let mechanisms = Mechanisms::new(["SCRAM-SHA-256", oauthbearer::MECHANISM]).unwrap();
    Wants::Message(BackendMessage::Authentication(Authentication::Sasl(mechanisms)))
}

pub(crate) const PROCESS_ID: u32 = 4711;

impl Server {
    /// `verdicts` are used up one by one; the last one stays.
    pub(crate) async fn start(tls: Tls, wants: Wants, verdicts: &[Verdict]) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Log::default()));
        let verdicts = Mutex::new(verdicts.iter().cloned().collect());
        let behaviour = Arc::new(Behaviour { tls, wants, verdicts, state: Mutex::default() });
        let server = Server { port, log: Arc::clone(&log) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                log.lock().unwrap().connections += 1;
                let (behaviour, log) = (Arc::clone(&behaviour), Arc::clone(&log));
                // Errors are ignored: in many tests the client closes the connection early.
                tokio::spawn(async move { behaviour.serve(stream, log).await.ok() });
            }
        });
        server
    }

    pub(crate) fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Waits for something that the server does after the client has gone on.
    pub(crate) async fn until(&self, what: &str, happened: impl Fn(&Log) -> bool) {
        eventually(DEADLINE, what, async || happened(&self.log())).await;
    }
}

impl Behaviour {
    async fn serve(&self, stream: TcpStream, log: Arc<Mutex<Log>>) -> io::Result<()> {
        let mut wire = Recorded { inner: stream, keep: keeper(&log, |log| &mut log.wire) };
        let config = match &self.tls {
            Tls::Direct(config) => config,
            Tls::Speaks(config) => {
                wire.read_exact(&mut [0; 8]).await?;
                wire.write_all(b"S").await?;
                config
            }
            Tls::Says(bytes) => {
                wire.read_exact(&mut [0; 8]).await?;
                wire.write_all(bytes).await?;
                wire.read_to_end(&mut Vec::new()).await?;
                return Ok(());
            }
            Tls::HangsUp => return Ok(()),
        };
        let tls = TlsAcceptor::from(Arc::clone(config)).accept(wire).await?;
        let plain = Recorded { inner: tls, keep: keeper(&log, |log| &mut log.plain) };
        self.talk(plain, &log).await
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        log: &Mutex<Log>,
    ) -> io::Result<()> {
        let mut received = BytesMut::new();
        match receive(&mut stream, &mut received, FirstPacket::decode).await? {
            FirstPacket::Startup(startup) => log.lock().unwrap().startups.push(startup),
            FirstPacket::Cancel(cancel) => {
                log.lock().unwrap().cancels.push(cancel);
                return stream.shutdown().await;
            }
            _ => return Ok(()),
        }
        match &self.wants {
            Wants::Message(message) => send(&mut stream, std::slice::from_ref(message)).await?,
            Wants::Bytes(bytes) => stream.write_all(bytes).await?,
        }
        if !matches!(self.wants, Wants::Message(BackendMessage::Authentication(Authentication::Ok))) {
            let answer = receive(&mut stream, &mut received, AuthenticationAnswer::decode).await?;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let accepted = if let Ok(initial) = answer.sasl_initial() {
                let message = ClientMessage::decode(initial.data.unwrap()).unwrap();
                let ClientMessage::Token(token) = message else { panic!("{message:?} instead of a token") };
                log.lock().unwrap().bearers.push(token.to_owned());
                let accepts = matches!(self.verdicts.lock().unwrap()[0], Verdict::Accept);
                if !accepts {
                    self.refuse_bearer(&mut stream, &mut received).await?;
                }
                self.judge(&mut stream, token).await?
            } else {
                let password = text(answer.password().unwrap());
                log.lock().unwrap().passwords.push(password.clone());
                self.judge(&mut stream, &password).await?
            };
            if !accepted {
                return stream.shutdown().await;
            }
        }
        send(&mut stream, &ready()).await?;
        let state = *self.state.lock().unwrap();
        answer_queries(&mut stream, &mut received, log, state).await
    }

    /// As PostgreSQL 18 refuses a token: what it wants, and after the client's dismissal its ErrorResponse.
    async fn refuse_bearer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        received: &mut BytesMut,
    ) -> io::Result<()> {
        let mut json = BytesMut::new();
        let refusal = oauthbearer::BearerRefusal {
            status: "invalid_token".into(),
            openid_configuration: Some("https://issuer.example/.well-known/openid-configuration".into()),
            scope: Some("openid \u{1b}[2J".into()),
        };
        refusal.encode(&mut json);
        send(stream, &[BackendMessage::Authentication(Authentication::SaslContinue(json.freeze()))]).await?;
        let answer = receive(stream, received, AuthenticationAnswer::decode).await?;
        assert_eq!(answer.sasl_response(), oauthbearer::DISMISSAL);
        Ok(())
    }

    async fn judge<S: AsyncWrite + Unpin>(&self, stream: &mut S, password: &str) -> io::Result<bool> {
        let verdict = {
            let mut verdicts = self.verdicts.lock().unwrap();
            if verdicts.len() > 1 { verdicts.pop_front().unwrap() } else { verdicts[0].clone() }
        };
        let refusal = match verdict {
            Verdict::AcceptOld(row) => {
                *self.state.lock().unwrap() = Some(row);
                send(stream, &[BackendMessage::Authentication(Authentication::Ok)]).await?;
                return Ok(true);
            }
            Verdict::Accept => {
                send(stream, &[BackendMessage::Authentication(Authentication::Ok)]).await?;
                return Ok(true);
            }
            Verdict::Repeat => {
                let payload = password.split('.').nth(1).unwrap();
                let setting = |name: &str, value: &str| {
                    let (name, value) = (name.to_owned().into(), value.to_owned().into());
                    BackendMessage::ParameterStatus(ParameterStatus { name, value })
                };
                let notice = Fields::new(Severity::Notice, "00000", &format!("{password}{password}"))
                    .with_detail(payload)
                    .with_hint(&format!("is it {password}?"))
                    .with(FieldCode::WHERE, password);
                let said = [
                    BackendMessage::Authentication(Authentication::Ok),
                    setting("application_name", password),
                    setting(password, "value"),
                    BackendMessage::NoticeResponse(notice),
                ];
                send(stream, &said).await?;
                return Ok(true);
            }
            Verdict::AcceptAndEcho => {
                send(stream, &[BackendMessage::Authentication(Authentication::Ok)]).await?;
                Fields::new(Severity::Fatal, "28000", "no").with_detail(password)
            }
            Verdict::AcceptAs(settings) => {
                let settings = settings.iter().map(|(name, value)| {
                    let (name, value) = ((*name).into(), (*value).into());
                    BackendMessage::ParameterStatus(ParameterStatus { name, value })
                });
                let accepted = [BackendMessage::Authentication(Authentication::Ok)];
                send(stream, &accepted.into_iter().chain(settings).collect::<Vec<_>>()).await?;
                return Ok(true);
            }
            Verdict::Chatter => {
                send(stream, &[BackendMessage::Authentication(Authentication::Ok)]).await?;
                loop {
                    send(stream, &ready()[..1]).await?;
                }
            }
            Verdict::Refuse { sqlstate, message } => Fields::new(Severity::Fatal, sqlstate, message),
            Verdict::Echo => Fields::new(Severity::Fatal, "28000", &format!("what is {password}?"))
                .with_detail(password)
                .with_hint(password.split('.').nth(1).unwrap()),
        };
        send(stream, &[BackendMessage::ErrorResponse(refusal)]).await?;
        Ok(false)
    }
}

fn ready() -> [BackendMessage; 4] {
    let key = CancelKey::new(&b"\x01\x02\x03\x04"[..]).unwrap();
    [
        BackendMessage::ParameterStatus(ParameterStatus {
            name: "server_version".into(),
            value: "17.5".into(),
        }),
        BackendMessage::NoticeResponse(Fields::new(Severity::Notice, "00000", "welcome")),
        BackendMessage::BackendKeyData(BackendKeyData { process_id: PROCESS_ID, key }),
        BackendMessage::ReadyForQuery(TransactionStatus::Idle),
    ]
}

/// Answers every simple query with one row: the text `42`, or the server's state.
async fn answer_queries<S>(
    stream: &mut S,
    received: &mut BytesMut,
    log: &Mutex<Log>,
    state: Option<&[u8]>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const ROW: &[u8] = b"T\0\0\0\x1a\0\x01n\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0D\0\0\0\x0c\0\x01\0\0\0\x0242C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    loop {
        while received.len() < 5 {
            if stream.read_buf(received).await? == 0 {
                return Ok(());
            }
        }
        let length = u32::from_be_bytes(received[1..5].try_into().unwrap()) as usize;
        while received.len() < length + 1 {
            stream.read_buf(received).await?;
        }
        let message = received.split_to(length + 1);
        if message[0] == b'Q' {
            let text = String::from_utf8_lossy(&message[5..message.len() - 1]).into_owned();
            let asks_for_state = text.contains("pg_is_in_recovery");
            log.lock().unwrap().queries.push(text);
            match state.filter(|_| asks_for_state) {
                Some(row) => {
                    let done = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
                    stream.write_all(&[b"T\0\0\0\x06\0\x02", row, done].concat()).await?;
                }
                None => stream.write_all(ROW).await?,
            }
            stream.flush().await?;
        }
    }
}

async fn receive<S, T, E>(
    stream: &mut S,
    received: &mut BytesMut,
    decode: impl Fn(&mut BytesMut) -> Result<Option<T>, E>,
) -> io::Result<T>
where
    S: AsyncRead + Unpin,
    E: std::fmt::Debug,
{
    loop {
        if let Some(value) = decode(received).unwrap() {
            return Ok(value);
        }
        if stream.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, messages: &[BackendMessage]) -> io::Result<()> {
    let mut out = BytesMut::new();
    for message in messages {
        message.encode(&mut out).unwrap();
    }
    stream.write_all(&out).await?;
    stream.flush().await
}

type Keep = Box<dyn Fn(&[u8]) + Send + Sync>;

fn keeper(log: &Arc<Mutex<Log>>, part: fn(&mut Log) -> &mut Vec<u8>) -> Keep {
    let log = Arc::clone(log);
    Box::new(move |bytes| part(&mut log.lock().unwrap()).extend_from_slice(bytes))
}

/// A stream of which everything read is kept.
struct Recorded<S> {
    inner: S,
    keep: Keep,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        (self.keep)(&buf.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A virtual machine of a local cloud, whose identity signs in.
pub(crate) struct Machine {
    pub(crate) azure: LocalAzure,
    pub(crate) credential: Credential,
}

impl Machine {
    pub(crate) async fn start() -> Machine {
        let clock = CloudClock::following(|| SystemClock.now());
        let azure = LocalAzure::start(Options::new(clock)).await.unwrap();
        let env = Env::from_map([("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata_url())]);
        let credential = Credential::builder(System::builder().env(env).build()).build().unwrap();
        Machine { azure, credential }
    }

    pub(crate) async fn token(&self) -> String {
        self.credential.token(&resource()).await.unwrap().expose_secret().to_owned()
    }

    /// The same with the authorities that the conninfo names.
    pub(crate) fn connector_of(&self, conninfo: &str) -> Result<Connector, ConnectError> {
        let env = Env::from_map::<String, String>([]);
        let target = Target::resolve(&Layers::gather(Some(conninfo), &[], &env, &Files::real())?)?;
        Connector::new(target, self.credential.clone(), resource())
    }

    pub(crate) fn connector(&self, conninfo: &str, roots: &str) -> Result<Connector, ConnectError> {
        let target = target(conninfo)?.with_roots(Roots::from_pem(roots.as_bytes())?);
        Connector::new(target, self.credential.clone(), resource())
    }
}

pub(crate) fn resource() -> Resource {
    Cloud::Public.postgres_resource()
}

pub(crate) fn target(conninfo: &str) -> Result<Target, ConnectError> {
    let env = Env::from_map::<String, String>([]);
    Target::resolve(&Layers::gather(Some(conninfo), &[], &env, &Files::in_memory())?)
}

/// What PostgreSQL 17 and later presents for `localhost`.
pub(crate) fn certificate(authority: &Authority, names: &[&str]) -> Arc<ServerConfig> {
    authority.issue(names).unwrap().server_config(&[b"postgresql"]).unwrap()
}
