//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), as PostgreSQL has it (`src/backend/libpq/auth-scram.c`).

use std::io;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pgentra_wire::WireError;
use pgentra_wire::scram::{ChannelBinding, ClientFinal, ClientFirst};
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::users::{KEY, ScramVerifier};

/// Random bytes in the server's nonce: as many as PostgreSQL's.
const NONCE: usize = 18;
/// The only type of channel binding that PostgreSQL supports (RFC 5929 section 4).
const END_POINT: &str = "tls-server-end-point";

/// How the exchange is bound to the TLS channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Binding<'a> {
    /// The server did not offer it.
    NotOffered,
    /// The server offered it, and the client declined.
    Declined,
    /// Bound by this digest of the server's certificate.
    EndPoint(&'a [u8]),
}

/// A SCRAM exchange with one client.
pub(crate) struct Exchange<'a> {
    verifier: ScramVerifier,
    binding: Binding<'a>,
    own_nonce: String,
    begun: Option<Begun>,
}

/// The state after the client's first message.
struct Begun {
    nonce: String,
    /// What the client must repeat in base64: its header, and the data of the channel binding.
    bound: Vec<u8>,
    /// The messages so far, which both sides sign.
    said: String,
}

impl<'a> Exchange<'a> {
    /// Begins an exchange for the password of this verifier.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn new(verifier: ScramVerifier, binding: Binding<'a>) -> io::Result<Self> {
        let mut nonce = [0; NONCE];
        OsRng.try_fill_bytes(&mut nonce).map_err(io::Error::other)?;
        Ok(Self { verifier, binding, own_nonce: STANDARD.encode(nonce), begun: None })
    }

    /// Answers the client's first message.
    ///
    /// # Errors
    ///
    /// A message that PostgreSQL would refuse too. One of these says that the server offered no
    /// channel binding although it did: an attacker in between has removed the offer.
    pub(crate) fn first(&mut self, data: &[u8]) -> Result<Bytes, WireError> {
        let first = ClientFirst::decode(data)?;
        let mut bound = first.header.as_bytes().to_vec();
        match (first.channel_binding, self.binding) {
            (ChannelBinding::Unsupported, Binding::NotOffered | Binding::Declined)
            | (ChannelBinding::NotOffered, Binding::NotOffered) => {}
            (ChannelBinding::NotOffered, _) => {
                return Err(WireError::Malformed(
                    "the client supports SCRAM channel binding but thinks the server does not",
                ));
            }
            (ChannelBinding::Used(END_POINT), Binding::EndPoint(digest)) => bound.extend_from_slice(digest),
            (ChannelBinding::Used(_), Binding::EndPoint(_)) => {
                return Err(WireError::Malformed("unsupported SCRAM channel-binding type"));
            }
            (ChannelBinding::Used(_), _) | (ChannelBinding::Unsupported, Binding::EndPoint(_)) => {
                return Err(WireError::Malformed(
                    "the SCRAM mechanism and the message disagree about channel binding",
                ));
            }
        }
        let nonce = format!("{}{}", first.nonce, self.own_nonce);
        let salt = STANDARD.encode(&self.verifier.salt);
        let answer = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        let said = format!("{},{answer},", first.bare);
        self.begun = Some(Begun { nonce, bound, said });
        Ok(answer.into())
    }

    /// Answers the client's last message; `None`: the client does not know the password.
    ///
    /// # Errors
    /// A message that does not fit the first one.
    pub(crate) fn last(&self, data: &[u8]) -> Result<Option<Bytes>, WireError> {
        let last = ClientFinal::decode(data)?;
        let begun = self.begun.as_ref().ok_or(WireError::Malformed("SCRAM ends before it began"))?;
        if last.nonce != begun.nonce {
            return Err(WireError::Malformed("the SCRAM nonce does not match"));
        }
        if last.channel_binding != STANDARD.encode(&begun.bound) {
            return Err(WireError::Malformed("SCRAM channel binding check failed"));
        }
        let proof: [u8; KEY] = STANDARD
            .decode(last.proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(WireError::Malformed("malformed SCRAM proof"))?;
        let said = [&*begun.said, last.without_proof].concat();
        let sign = |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), said.as_bytes());
        let mut client_key = proof;
        for (byte, signed) in client_key.iter_mut().zip(sign(&self.verifier.stored_key).as_ref()) {
            *byte ^= signed;
        }
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        // Made in either case, so that both take the same time.
        let answer = format!("v={}", STANDARD.encode(sign(&self.verifier.server_key)));
        let is_right =
            constant_time::verify_slices_are_equal(stored_key.as_ref(), &self.verifier.stored_key).is_ok();
        Ok(is_right.then(|| answer.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use aws_lc_rs::pbkdf2;
    use postgres_protocol::authentication::sasl::{self, ScramSha256};
    use postgres_protocol::password::scram_sha_256;
    use proptest::prelude::*;

    use super::*;

    fn verifier(password: &str) -> ScramVerifier {
        ScramVerifier::parse(&scram_sha_256(password.as_bytes())).unwrap()
    }

    /// The example of RFC 7677 section 3.
    #[test]
    fn the_example_of_the_standard() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let mut salted = [0; KEY];
        let iterations = NonZeroU32::new(4096).unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, b"pencil", &mut salted);
        let key = |what: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), what);
        let stored = digest::digest(&digest::SHA256, key(b"Client Key").as_ref());
        let mut exchange = Exchange {
            verifier: ScramVerifier {
                iterations: 4096,
                salt,
                stored_key: stored.as_ref().try_into().unwrap(),
                server_key: key(b"Server Key").as_ref().try_into().unwrap(),
            },
            binding: Binding::NotOffered,
            own_nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
            begun: None,
        };
        let first = exchange.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(first, format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let last = exchange.last(format!("c=biws,r={nonce},p={proof}").as_bytes()).unwrap();
        assert_eq!(last.unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let wrong = proof.replace("dHz", "dHx");
        assert_eq!(exchange.last(format!("c=biws,r={nonce},p={wrong}").as_bytes()), Ok(None));
    }

    /// What a client does, step by step: whether the exchange goes through.
    fn exchange(
        password: &str,
        binding: Binding<'_>,
        client: sasl::ChannelBinding,
        said: &str,
    ) -> Result<bool, String> {
        let mut server = Exchange::new(verifier(password), binding).unwrap();
        let mut client = ScramSha256::new(said.as_bytes(), client);
        let first = server.first(client.message()).map_err(|error| error.to_string())?;
        client.update(&first).unwrap();
        match server.last(client.message()).map_err(|error| error.to_string())? {
            Some(last) => client.finish(&last).map(|()| true).map_err(|error| error.to_string()),
            None => Ok(false),
        }
    }

    #[test]
    fn channel_binding_is_what_both_sides_believe_it_is() {
        use sasl::ChannelBinding as Client;
        let bound = |digest: &[u8]| Client::tls_server_end_point(digest.to_vec());
        for (about, binding, client, outcome) in [
            ("neither", Binding::NotOffered, Client::unsupported(), Ok(true)),
            ("the client supports it", Binding::NotOffered, Client::unrequested(), Ok(true)),
            ("the client does not support it", Binding::Declined, Client::unsupported(), Ok(true)),
            (
                "the offer was removed on the way",
                Binding::Declined,
                Client::unrequested(),
                Err("thinks the server does not"),
            ),
            ("both", Binding::EndPoint(b"digest"), bound(b"digest"), Ok(true)),
            ("another certificate", Binding::EndPoint(b"digest"), bound(b"other"), Err("check failed")),
            ("not offered", Binding::NotOffered, bound(b"digest"), Err("disagree")),
            ("not chosen", Binding::Declined, bound(b"digest"), Err("disagree")),
            ("chosen but not used", Binding::EndPoint(b"digest"), Client::unsupported(), Err("disagree")),
        ] {
            match (exchange("secret", binding, client, "secret"), outcome) {
                (Ok(done), Ok(expected)) => assert_eq!(done, expected, "{about}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{about}: {error}"),
                (got, _) => panic!("{about}: {got:?}"),
            }
        }
        let mut server = Exchange::new(verifier("x"), Binding::EndPoint(b"digest")).unwrap();
        assert!(server.first(b"p=tls-unique,,n=,r=abc").unwrap_err().to_string().contains("unsupported"));
    }

    #[test]
    fn a_last_message_belongs_to_its_first() {
        let mut server = Exchange::new(verifier("x"), Binding::NotOffered).unwrap();
        let proof = STANDARD.encode([0; KEY]);
        assert!(server.last(format!("c=biws,r=abc,p={proof}").as_bytes()).is_err(), "before the first");
        server.first(b"n,,n=,r=abc").unwrap();
        let nonce = format!("abc{}", server.own_nonce);
        for (last, why) in [
            (format!("c=biws,r=abc,p={proof}"), "nonce"),
            (format!("c=biws,r={nonce}x,p={proof}"), "nonce"),
            (format!("c=eSws,r={nonce},p={proof}"), "binding"),
            (format!("c=biws,r={nonce},p=AAAA"), "proof"),
            (format!("c=biws,r={nonce},p=!"), "proof"),
        ] {
            assert!(server.last(last.as_bytes()).unwrap_err().to_string().contains(why), "{last}");
        }
        assert_eq!(server.last(format!("c=biws,r={nonce},p={proof}").as_bytes()), Ok(None));
    }

    #[test]
    fn nonces_differ() {
        let nonce = || Exchange::new(verifier("x"), Binding::NotOffered).unwrap().own_nonce;
        assert_ne!(nonce(), nonce());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Tests against the client of another implementation. The characters are those that
        /// SASLprep leaves unchanged.
        #[test]
        fn only_the_right_password_goes_through(password in "[!-~]{1,20}", other in "[!-~]{1,20}") {
            let unsupported = sasl::ChannelBinding::unsupported;
            prop_assert_eq!(exchange(&password, Binding::NotOffered, unsupported(), &password), Ok(true));
            let same = password == other;
            prop_assert_eq!(exchange(&password, Binding::NotOffered, unsupported(), &other), Ok(same));
        }
    }
}
