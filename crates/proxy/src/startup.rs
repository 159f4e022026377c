//! Client authentication: the steps of a sign-in before the server is dialled.

use tokio::time::Instant;

use super::auth::ClientAuth;
use super::{AuthProxy, refusal};
use crate::telemetry::ConnectionRecord;
use pgentra_session::client::{Client, Opening, Socket};
use pgentra_session::login_error::LoginError;

impl AuthProxy {
    /// Reads the start-up of a client and checks that it may use the role that it names. The first
    /// packet must arrive before `first`.
    ///
    /// Not cancel-safe; after a drop, the client can still get an error.
    pub(crate) async fn authenticate_client<S: Socket>(
        &self,
        client: &mut Client<S>,
        client_auth: &ClientAuth,
        record: &mut ConnectionRecord,
        first: Instant,
    ) -> Result<Opening, LoginError> {
        let admitted =
            tokio::time::timeout(self.limits.start_up, self.ask(client, client_auth, record, first)).await;
        admitted.unwrap_or_else(|_| Err(refusal::slow().into()))
    }

    async fn ask<S: Socket>(
        &self,
        client: &mut Client<S>,
        client_auth: &ClientAuth,
        record: &mut ConnectionRecord,
        first: Instant,
    ) -> Result<Opening, LoginError> {
        let opening = client.open(client_auth.tls_over::<S>().map(super::Tls::acceptor), first).await?;
        // A cancel request is checked by its key alone.
        if let Opening::Startup(start) = &opening {
            if start.user().is_empty() {
                return Err(refusal::no_user().into());
            }
            record.asks(start);
            client_auth.check_channel(client, start.user())?;
            client.negotiate(start).await?;
            client_auth.check_password(client, start.user(), &self.shared.attempts).await?;
        }
        Ok(opening)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use pgentra_connect::pgentra_identity::{Cloud, Credential};
    use pgentra_connect::{Connector, Layers, Target};
    use pgentra_emulator::certificates::Authority;
    use pgentra_system::{Env, Files, System};
    use pgentra_wire::startup::{ProtocolVersion, StartupMessage, encode_ssl_request};
    use secrecy::ExposeSecret as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::auth::{Tls, Users};
    use super::super::{AuthProxy, Options};
    use super::*;
    use pgentra_session::Limits;

    /// A proxy whose server is never dialled.
    fn proxy(client_auth: ClientAuth) -> AuthProxy {
        let env = Env::from_map([("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")]);
        let credential = Credential::builder(System::builder().env(env.clone()).build()).build().unwrap();
        let layers = Layers::gather(Some("host=db.example"), &[], &env, &Files::in_memory()).unwrap();
        let target = Target::resolve_server(&layers).unwrap();
        let connector = Connector::new(target, credential, Cloud::Public.postgres_resource()).unwrap();
        AuthProxy::new(connector, Options { client_auth, ..Options::default() })
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
        let mut record = ConnectionRecord::begin(&Arc::default(), "a client");
        let first = began + proxy.limits.first_packet;
        let end = proxy
            .authenticate_client(&mut client, &proxy.client_auth(), &mut record, first)
            .await
            .err()
            .unwrap();
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
}
