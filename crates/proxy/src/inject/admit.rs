//! Who may come in: everything before a server is dialled.

use tokio::time::Instant;

use super::door::Door;
use super::{Injector, refusal};
use crate::observe::Visit;
use crate::session::client::{Client, Opening, Socket};
use crate::session::end::End;

impl Injector {
    /// Goes from the first byte to a client that may have the role it names. Its first packet has to be there by `first`.
    ///
    /// Not cancel-safe; dropped, the client can still be told why.
    pub(crate) async fn admit<S: Socket>(
        &self,
        client: &mut Client<S>,
        door: &Door,
        visit: &mut Visit,
        first: Instant,
    ) -> Result<Opening, End> {
        let admitted = tokio::time::timeout(self.limits.start_up, self.ask(client, door, visit, first)).await;
        admitted.unwrap_or_else(|_| Err(refusal::slow().into()))
    }

    async fn ask<S: Socket>(
        &self,
        client: &mut Client<S>,
        door: &Door,
        visit: &mut Visit,
        first: Instant,
    ) -> Result<Opening, End> {
        let opening = client.open(door.tls_over::<S>().map(super::Tls::acceptor), first).await?;
        // A cancel request is good for its key alone.
        if let Opening::Startup(start) = &opening {
            if start.user().is_empty() {
                return Err(refusal::no_user().into());
            }
            visit.asks(start);
            door.check_channel(client, start.user())?;
            client.negotiate(start).await?;
            door.check_password(client, start.user(), &self.shared.attempts).await?;
        }
        Ok(opening)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use pgentra_connect::pgentra_identity::{Cloud, Credential, Env, Files, World};
    use pgentra_connect::{Connector, Layers, Target};
    use pgentra_emulator::certificates::Authority;
    use pgentra_wire::startup::{ProtocolVersion, StartupMessage, encode_ssl_request};
    use secrecy::ExposeSecret as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::door::{Tls, Users};
    use super::super::{Injector, Options};
    use super::*;
    use crate::session::Limits;
    use crate::session::client::Origin;

    /// A network whose time is the test's.
    impl Socket for DuplexStream {
        type Address = SocketAddr;
        const IS_NETWORK: bool = true;

        fn origin(address: &SocketAddr) -> Origin {
            Origin::network(address.ip())
        }

        fn prepare(&self) {}

        async fn speaks(&self) -> io::Result<()> {
            Ok(())
        }

        async fn begins_with_tls(&self) -> io::Result<bool> {
            Ok(false)
        }
    }

    /// One whose server is never dialled.
    fn injector(door: Door) -> Injector {
        let env = Env::from_map([("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")]);
        let credential = Credential::builder(World::builder().env(env.clone()).build()).build().unwrap();
        let layers = Layers::gather(Some("host=db.example"), &[], &env, &Files::in_memory()).unwrap();
        let target = Target::resolve_server(&layers).unwrap();
        let connector = Connector::new(target, credential, Cloud::Public.postgres_resource()).unwrap();
        Injector::new(connector, Options { door, ..Options::default() })
    }

    fn door() -> Door {
        let issued = Authority::generate().unwrap().issue(&["localhost"]).unwrap().pem();
        let pem = issued.expose_secret().as_bytes();
        let tls = Some(Tls::from_pem(pem, pem, None).unwrap());
        Door { tls, users: Some(Users::parse("").unwrap()), ..Door::default() }
    }

    fn start() -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        StartupMessage::new(ProtocolVersion::V3_0, "app").unwrap().encode(&mut out);
        out.to_vec()
    }

    /// How long a client is waited for that sends this at once, and this a byte a minute; what it is told in the end.
    async fn waits(door: Door, at_once: Vec<u8>, slowly: Vec<u8>) -> (Duration, String) {
        let injector = injector(door);
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
            // Stays, and says nothing more.
            let mut answer = Vec::new();
            let _ = far.read_to_end(&mut answer).await;
            answer
        });
        let began = Instant::now();
        let mut visit = Visit::begin(&Arc::default(), "a client");
        let first = began + injector.limits.first_packet;
        let end = injector.admit(&mut client, &injector.door(), &mut visit, first).await.err().unwrap();
        let waited = began.elapsed();
        let End::Told(fields) = end else { panic!("{end:?}") };
        let sqlstate = fields.sqlstate().into_owned();
        let began = Instant::now();
        client.tell(fields).await;
        assert!(began.elapsed() <= Duration::from_secs(2), "nor is its last message waited for");
        drop(sending.await);
        (waited, sqlstate)
    }

    /// Whatever a client does slowly, ten seconds is all it has for its first packet, and a minute for TLS, start-up and password
    /// together.
    #[tokio::test(start_paused = true)]
    async fn a_byte_a_minute_is_too_slow() {
        let Limits { start_up: minute, first_packet, .. } = Limits::default();
        assert_eq!((minute.as_secs(), first_packet.as_secs()), (60, 10));
        let mut request = bytes::BytesMut::new();
        encode_ssl_request(&mut request);
        let open = || Door { tls: None, ..door() };
        let slow = start();
        let (most, rest) = slow.split_at(slow.len() - 1);
        for (about, door, at_once, slowly, limit) in [
            ("nothing at all", Door::default(), vec![], vec![], first_packet),
            ("the start-up packet", Door::default(), vec![], start(), first_packet),
            ("its last byte", Door::default(), most.to_vec(), rest.to_vec(), first_packet),
            ("half a request for TLS", door(), request[..4].to_vec(), vec![], first_packet),
            ("the handshake", door(), request.to_vec(), vec![0x16; 200], minute),
            ("the password", open(), start(), vec![b'p'; 200], minute),
        ] {
            let (waited, sqlstate) = waits(door, at_once, slowly).await;
            assert_eq!((waited, &*sqlstate), (limit, "57014"), "{about}");
        }
    }
}
