//! From the first byte to the session.

use std::time::Duration;

use bytes::BytesMut;
use eventually::{DEADLINE, eventually};
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::startup::{ProtocolVersion, StartupMessage, encode_gssenc_request, encode_ssl_request};
use tokio::io::AsyncReadExt;

use crate::fixture::{Stage, run};
use crate::raw::{NO_FIRST_PACKET, Raw};

pub(crate) fn start(user: &str) -> StartupMessage {
    StartupMessage::new(ProtocolVersion::V3_0, user).unwrap().with("database", "postgres").unwrap()
}

#[test]
fn without_tls_nobody_gets_in() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        let mut raw = Raw::new(gateway.dial().await);
        raw.start(&start("someone")).await;
        let error = raw.error().await;
        assert_eq!((&*error.severity(), &*error.sqlstate()), ("FATAL", "28000"));
        assert_eq!(
            error.message(),
            "no pg_hba.conf entry for host \"127.0.0.1\", user \"someone\", database \"postgres\", no encryption"
        );
        assert!(error.hint().unwrap().contains("verify-full"));
    });
}

#[test]
fn gssapi_is_declined_and_tls_follows() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        let mut raw = Raw::new(gateway.dial().await);
        let mut request = BytesMut::new();
        encode_gssenc_request(&mut request);
        raw.send(&request).await;
        assert_eq!(raw.byte().await, b'N');
        let mut request = BytesMut::new();
        encode_ssl_request(&mut request);
        raw.send(&request).await;
        assert_eq!(raw.byte().await, b'S');
        let mut raw = Raw::new(gateway.handshake(raw.into_stream(), &[]).await.unwrap());
        raw.start(&start("nobody_at_all")).await;
        assert!(matches!(raw.read().await, Some(BackendMessage::Authentication(Authentication::Sasl(_)))));
    });
}

#[test]
fn nothing_sent_before_tls_counts_as_sent_inside() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        let mut raw = Raw::new(gateway.dial().await);
        let mut bytes = BytesMut::new();
        encode_ssl_request(&mut bytes);
        start("injected").encode(&mut bytes);
        raw.send(&bytes).await;
        assert_eq!(raw.byte().await, b'S');
        assert!(gateway.handshake(raw.into_stream(), &[]).await.is_err());
    });
}

#[test]
fn direct_tls_must_agree_on_the_protocol() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        let mut raw = Raw::new(gateway.dial_direct().await);
        raw.start(&start("nobody_at_all")).await;
        assert!(matches!(raw.read().await, Some(BackendMessage::Authentication(_))));

        assert!(gateway.handshake(gateway.dial().await, &[b"h2"]).await.is_err());
        let mut without = gateway.handshake(gateway.dial().await, &[]).await.unwrap();
        assert!(!matches!(without.read(&mut [0]).await, Ok(1)), "not a byte is answered");
    });
}

#[test]
fn a_second_request_for_encryption_is_refused() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        for encode in [encode_ssl_request, encode_gssenc_request] {
            let mut raw = Raw::new(gateway.dial_tls().await);
            let mut request = BytesMut::new();
            encode(&mut request);
            raw.send(&request).await;
            assert_eq!(raw.error().await.sqlstate(), "0A000");
        }
    });
}

/// Invariant 8: a client that was accepted always gets an answer, with a SQLSTATE.
#[test]
fn what_is_not_the_protocol_is_answered_as_such() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        for (packet, sqlstate) in [
            (&b"\0\0\0\x09\0\x03\0\0x"[..], "08P01"),
            (b"\0\0\0\x0d\0\x03\0\0user\0", "08P01"),
            (b"\0\0\0\x08\0\x02\0\0", "0A000"),
            (b"\0\0\0\x09\0\x03\0\0\0", "28000"),
        ] {
            let mut raw = Raw::new(gateway.dial().await);
            raw.send(packet).await;
            let error = raw.error().await;
            assert_eq!(error.sqlstate(), sqlstate, "{packet:?}");
        }
    });
}

/// As PostgreSQL does: a first packet of this length is invalid, or is a cancel request, which is
/// never answered.
#[test]
fn what_is_no_first_packet_is_closed_without_an_answer() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        for packet in NO_FIRST_PACKET {
            let mut raw = Raw::new(gateway.dial().await);
            raw.send(packet).await;
            assert_eq!(raw.read().await, None, "{packet:?}");
            let mut raw = Raw::new(gateway.dial_tls().await);
            raw.send(packet).await;
            assert_eq!(raw.read().await, None, "{packet:?} inside TLS");
        }
    });
}

#[test]
fn bytes_behind_a_request_for_tls_are_ignored_in_the_packet_alone() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        let mut raw = Raw::new(gateway.dial().await);
        raw.send(b"\0\0\0\x09\x04\xd2\x16\x2fx").await;
        assert_eq!(raw.byte().await, b'S');
    });
}

#[test]
fn a_client_that_wants_more_than_we_speak_is_told_how_much_we_speak() {
    run(async {
        let gateway = Stage::flexible().await.gateway().await;
        let future = ProtocolVersion { major: 3, minor: 9999 };
        for (version, option, negotiated) in [
            (ProtocolVersion::V3_0, false, None),
            (ProtocolVersion::V3_2, false, None),
            (ProtocolVersion::V3_0, true, Some(ProtocolVersion::V3_0)),
            (ProtocolVersion::V3_2, true, Some(ProtocolVersion::V3_2)),
            (future, true, Some(ProtocolVersion::V3_2)),
            (future, false, Some(ProtocolVersion::V3_2)),
        ] {
            let mut raw = Raw::new(gateway.dial_tls().await);
            let mut start = start("nobody_at_all").with_version(version);
            if option {
                start = start.with("_pq_.test_protocol_negotiation", "").unwrap();
            }
            raw.start(&start).await;
            let mut next = raw.read().await.unwrap();
            if let Some(negotiated) = negotiated {
                let BackendMessage::NegotiateProtocolVersion(answer) = &next else { panic!("{next:?}") };
                assert_eq!(answer.newest(), negotiated);
                assert_eq!(answer.options().count(), usize::from(option));
                next = raw.read().await.unwrap();
            }
            assert!(matches!(next, BackendMessage::Authentication(_)), "{version} {option}: {next:?}");
        }
    });
}

#[test]
fn a_password_message_is_bounded_and_must_be_one() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let administrator = crate::fixture::azure().await.administrator().user_principal_name();
        for message in [&b"p\0\x01\0\0"[..], b"Q\0\0\0\x05\0", b"p\0\0\0\x07a\0\0"] {
            let mut raw = Raw::new(gateway.dial_tls().await);
            raw.start(&start(administrator)).await;
            assert_eq!(
                raw.read().await,
                Some(BackendMessage::Authentication(Authentication::CleartextPassword))
            );
            raw.send(message).await;
            assert_eq!(raw.error().await.sqlstate(), "08P01");
        }
        // The longest packet that fits is read to its end and checked.
        let mut raw = Raw::new(gateway.dial_tls().await);
        raw.start(&start(administrator)).await;
        raw.read().await;
        raw.password(&vec![b'x'; pgentra_wire::limits::PASSWORD]).await;
        let error = raw.error().await;
        assert_eq!(error.sqlstate(), "28000");
        assert!(error.message().contains("invalid format"));
    });
}

/// Invariant 8: a client that was accepted always gets an answer, with a SQLSTATE.
#[test]
fn a_client_that_says_nothing_is_told_that_it_took_too_long() {
    run(async {
        let gateway = Stage::flexible()
            .await
            .gateway_with(|config| config.limits.start_up = Duration::from_millis(1))
            .await;
        let error = Raw::new(gateway.dial().await).error().await;
        assert_eq!(error.sqlstate(), "57014");
        assert_eq!(error.message(), "canceling authentication due to timeout");
    });
}

#[test]
fn a_client_that_is_asked_for_its_token_and_says_nothing_is_told_so_too() {
    run(async {
        let gateway = Stage::flexible()
            .await
            .gateway_with(|config| config.limits.start_up = Duration::from_millis(300))
            .await;
        let mut raw = Raw::new(gateway.dial_tls().await);
        raw.start(&start(crate::fixture::azure().await.administrator().user_principal_name())).await;
        // On a slow machine the time limit may end before the password request.
        let error = loop {
            match raw.read().await {
                Some(BackendMessage::Authentication(Authentication::CleartextPassword)) => {}
                Some(BackendMessage::ErrorResponse(error)) => break error,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error.sqlstate(), "57014");
    });
}

#[test]
fn places_are_for_those_with_a_token() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway_with(|config| config.limits.connections = 1).await;
        let administrator = crate::fixture::azure().await.administrator().user_principal_name();
        let mut silent = Raw::new(gateway.dial_tls().await);
        silent.start(&start(administrator)).await;
        silent.read().await.unwrap();
        // A client without a token does not wait and takes no permit.
        let _first = stage.administrator(&gateway).await;
        assert_eq!(gateway.refusal(administrator, "postgres", "no token").await.0, "28000");
    });
}

#[test]
fn one_client_too_many_is_told_so() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway_with(|config| config.limits.connections = 1).await;
        stage.superuser().await.batch_execute("CREATE ROLE first_come LOGIN PASSWORD 'x'").await.unwrap();
        let first = gateway.connect("first_come", "postgres", "x").await.unwrap();
        let (code, message, _) = gateway.refusal("first_come", "postgres", "x").await;
        assert_eq!((&*code, &*message), ("53300", "sorry, too many clients already"));
        drop(first);
        // Its place is free again once both its sides are closed.
        let connect = async || gateway.connect("first_come", "postgres", "x").await;
        eventually(DEADLINE, "a client takes the free place", connect).await;
    });
}

#[test]
fn a_client_that_is_still_starting_hears_of_the_shutdown() {
    run(async {
        // Before the TLS handshake, and after it.
        for handshake_first in [false, true] {
            let gateway = Stage::flexible().await.gateway().await;
            let mut raw = Raw::new(gateway.dial().await);
            let mut request = BytesMut::new();
            encode_ssl_request(&mut request);
            raw.send(&request).await;
            assert_eq!(raw.byte().await, b'S');
            if !handshake_first {
                gateway.gateway.shutdown.cancel();
            }
            let mut raw = Raw::new(gateway.handshake(raw.into_stream(), &[]).await.unwrap());
            gateway.gateway.shutdown.cancel();
            let error = raw.error().await;
            assert_eq!(
                (&*error.sqlstate(), &*error.message()),
                ("57P03", "the database system is shutting down")
            );
            gateway.gateway.served.await.unwrap();
        }
    });
}
