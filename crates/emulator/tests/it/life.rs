use std::net::{IpAddr, Ipv4Addr};

use eventually::{DEADLINE, eventually, within};
use pgentra_emulator::certificates::Authority;
use pgentra_emulator::{Clock, Endpoint, Fault, LocalAzure, Options, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Ask, POSTGRESQL, imds, options, start};

/// Invariant 3: a local cloud listens on loopback only, unless an option that names the danger says more.
#[tokio::test]
async fn only_loopback_is_listened_on() {
    for address in ["0.0.0.0", "::", "192.0.2.1", "169.254.169.254"] {
        let mut options = options();
        options.address = address.parse().unwrap();
        let refused = LocalAzure::start(options).await.unwrap_err();
        assert!(matches!(refused, StartError::NotLoopback(_)), "{address}");
    }
    let mut options = options();
    options.address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let azure = LocalAzure::start(options).await.unwrap();
    assert!(azure.metadata_url().starts_with("http://127.0.0.9:"));
    assert!(azure.authority_host().starts_with("https://127.0.0.9:"));
    assert_eq!(Ask::get(azure.keys_url()).trusting(azure.ca_pem()).send().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options();
    options.ports.authority = taken.local_addr().unwrap().port();
    let error = LocalAzure::start(options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", taken.local_addr().unwrap()));
}

#[tokio::test]
async fn nobody_else_answers_for_localhost() {
    // Without IPv6 no other process can listen on ::1.
    let Ok(other_server) = TcpListener::bind("[::1]:0").await else { return };
    let mut options = options();
    options.ports.metadata = other_server.local_addr().unwrap().port();
    let error = LocalAzure::start(options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", other_server.local_addr().unwrap()));
}

#[tokio::test]
async fn after_a_stop_nothing_listens_and_fixed_ports_are_free_again() {
    let azure = start().await;
    azure.faults().push(None, Fault::Hang);
    let hanging = tokio::spawn(imds(&azure, "").send());
    let requested = async || !azure.journal().entries().is_empty();
    eventually(DEADLINE, "the request is in the journal", requested).await;
    let address = azure.metadata_url().trim_start_matches("http://").to_owned();
    azure.stop().await;
    assert!(hanging.await.unwrap().is_err());
    assert!(TcpStream::connect(&address).await.is_err());

    let mut options = Options::new(Clock::fixed(crate::client::start_time()));
    options.ports.metadata = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let again = LocalAzure::start(options).await.unwrap();
    assert_eq!(again.metadata_url(), format!("http://{address}"));
}

#[tokio::test]
async fn a_dropped_cloud_stops_too() {
    let azure = start().await;
    azure.faults().push(None, Fault::Hang);
    let hanging = tokio::spawn(imds(&azure, "").send());
    let requested = async || !azure.journal().entries().is_empty();
    eventually(DEADLINE, "the request is in the journal", requested).await;
    let addresses =
        [azure.metadata_url(), azure.authority_host()].map(|url| url.split('/').nth(2).unwrap().to_owned());
    for address in &addresses {
        TcpStream::connect(address).await.unwrap();
    }
    drop(azure);
    for address in &addresses {
        let refused = async || TcpStream::connect(address).await.is_err();
        eventually(DEADLINE, &format!("no listener at {address}"), refused).await;
    }
    assert!(within(DEADLINE, "the end of the request", hanging).await.unwrap().is_err());
}

#[tokio::test]
async fn clients_that_do_not_know_the_authority_refuse_it() {
    let azure = start().await;
    let other_authority = Authority::generate().unwrap();
    assert!(Ask::get(azure.keys_url()).trusting(other_authority.pem()).send().await.is_err());
    // Every name under which a client may reach the endpoint is in the certificate.
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        let url = azure.keys_url().replace("localhost", name);
        match Ask::get(url).trusting(azure.ca_pem()).send().await {
            Ok(reply) => assert_eq!(reply.status, 200, "{name}"),
            Err(error) => assert!(error.is::<std::io::Error>() && name == "[::1]", "{name}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_giant_request_is_refused() {
    let azure = start().await;
    let body = "POST /oauth2/token HTTP/1.1\r\nhost: localhost\r\ncontent-length: 300000\r\n\r\n".to_owned();
    let head = format!("GET /{:x<65531}", "");
    for (request, status) in [(body, "HTTP/1.1 413"), (head, "HTTP/1.1 431")] {
        let mut stream =
            TcpStream::connect(azure.metadata_url().trim_start_matches("http://")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answered = [0; 12];
        stream.read_exact(&mut answered).await.unwrap();
        assert_eq!(str::from_utf8(&answered).unwrap(), status);
    }
    assert_eq!(azure.journal().entries(), []);
}

#[tokio::test]
async fn tokens_that_were_given_out_are_known_by_their_claims() {
    let azure = start().await;
    assert_eq!((azure.tokens_given(), azure.last_tokens(9)), (0, vec![]));
    azure.faults().push(Endpoint::ImdsToken, Fault::HugeToken { bytes: 100_000 });
    azure.faults().push(Endpoint::ImdsToken, Fault::SameToken);
    let tokens =
        [imds(&azure, "").send().await.unwrap().token(), imds(&azure, "").send().await.unwrap().token()];
    imds(&azure, "&client_id=unknown").send().await.unwrap();
    assert_eq!(azure.tokens_given(), 2);
    let last = azure.last_tokens(9);
    let [newest, first] = &last[..] else { panic!("{last:?}") };
    assert_eq!((newest.is_repeated, first.is_repeated), (true, false));
    assert_eq!(newest.claims, first.claims);
    assert_eq!((first.object_id, &*first.resource), (azure.vm().object_id(), POSTGRESQL));
    assert_eq!(
        (first.endpoint, first.claims["oid"].as_str()),
        (Endpoint::ImdsToken, Some(&*azure.vm().object_id().to_string()))
    );
    let written = format!("{last:?}");
    for token in tokens {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!written.contains(signature) && written.len() < 10_000, "{}", written.len());
    }
}
