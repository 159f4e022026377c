//! OAUTHBEARER beside cleartext, on one port.

use bytes::BytesMut;
use pgentra_emulator::Draft;
use pgentra_gateway::AskMethod;
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::frontend::{SaslInitialResponse, encode_oauthbearer, encode_sasl_response};
use pgentra_wire::oauthbearer::{BearerRefusal, ClientMessage, DISMISSAL};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fixture::{RESOURCE, Running, Stage, azure, run, token, vm_token};
use crate::raw::Raw;
use crate::start_up::start;

const ROLE: &str = "o_service";
const CHOOSES: &str = "-c work_mem=3MB -c pgentra.auth=oauth";

type Client = Raw<TlsStream<TcpStream>>;

async fn gateway(default: AskMethod) -> Running {
    static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let stage = Stage::flexible().await;
    let gateway = stage.gateway_with(|config| config.oauth.default = default).await;
    MADE.get_or_init(|| async {
        let oid = azure().await.vm().object_id();
        let sql =
            format!("SELECT pgaadauth_create_principal_with_oid('{ROLE}', '{oid}', 'service', false, false)");
        stage.administrator(&stage.gateway().await).await.batch_execute(&sql).await.unwrap();
    })
    .await;
    gateway
}

/// A client that chooses in its options, and the first question of the gateway.
async fn asked(gateway: &Running, options: &str) -> (Client, Authentication) {
    let mut raw = Raw::new(gateway.dial_tls().await);
    let start = start(ROLE);
    let start = if options.is_empty() { start } else { start.with("options", options).unwrap() };
    raw.start(&start).await;
    match raw.read().await {
        Some(BackendMessage::Authentication(question)) => (raw, question),
        other => panic!("{other:?} instead of a question"),
    }
}

/// A client that was offered OAUTHBEARER and nothing else.
async fn offered(gateway: &Running, options: &str) -> Client {
    let (raw, question) = asked(gateway, options).await;
    let Authentication::Sasl(mechanisms) = question else { panic!("{question:?} instead of an offer") };
    assert_eq!(mechanisms.iter().collect::<Vec<_>>(), [b"OAUTHBEARER"]);
    raw
}

async fn say(raw: &mut Client, message: &ClientMessage<'_>) {
    let mut out = BytesMut::new();
    encode_oauthbearer(message, &mut out).unwrap();
    raw.send(&out).await;
}

async fn respond(raw: &mut Client, data: &[u8]) {
    let mut out = BytesMut::new();
    encode_sasl_response(data, &mut out).unwrap();
    raw.send(&out).await;
}

/// The refusal of RFC 7628, and the error after its dismissal: SQLSTATE and message.
async fn refused(raw: &mut Client) -> (String, String) {
    let Some(BackendMessage::Authentication(Authentication::SaslContinue(json))) = raw.read().await else {
        panic!("no refusal");
    };
    let refusal = BearerRefusal::decode(&json).unwrap();
    let azure = azure().await;
    let expected =
        format!("{}{}/v2.0/.well-known/openid-configuration", azure.authority_host(), azure.tenant());
    assert_eq!(refusal.status, "invalid_token");
    assert_eq!(refusal.openid_configuration.as_deref(), Some(&*expected));
    assert_eq!(refusal.scope.as_deref(), Some("https://ossrdbms-aad.database.windows.net/.default"));
    respond(raw, DISMISSAL).await;
    let error = raw.error().await;
    assert!(!error.hint().unwrap().is_empty());
    (error.sqlstate().into_owned(), error.message().into_owned())
}

async fn signs_in(mut raw: Client) {
    assert_eq!(raw.read().await, Some(BackendMessage::Authentication(Authentication::Ok)));
    raw.until_ready().await;
}

#[test]
fn one_port_serves_clients_of_both_kinds() {
    run(async {
        let token = vm_token().await;
        for default in [AskMethod::Password, AskMethod::Oauth] {
            let gateway = gateway(default).await;
            let mut raw = offered(&gateway, CHOOSES).await;
            say(&mut raw, &ClientMessage::Token(&token)).await;
            signs_in(raw).await;
            let (mut raw, question) = asked(&gateway, "--pgentra.auth=password").await;
            assert_eq!(question, Authentication::CleartextPassword);
            raw.password(token.as_bytes()).await;
            signs_in(raw).await;
        }
        // A driver that says nothing gets the default.
        let gateway = gateway(AskMethod::Password).await;
        gateway.connect(ROLE, "postgres", &token).await.unwrap();
        let gateway = crate::oauth::gateway(AskMethod::Oauth).await;
        let mut raw = offered(&gateway, "").await;
        say(&mut raw, &ClientMessage::Token(&token)).await;
        signs_in(raw).await;
    });
}

#[test]
fn the_other_options_reach_the_server_and_the_choice_does_not() {
    run(async {
        let gateway = gateway(AskMethod::Password).await;
        let (client, connection) = tokio_postgres::Config::new()
            .user(ROLE)
            .dbname("postgres")
            .password(vm_token().await)
            .options("-c work_mem=3MB -c pgentra.auth=password")
            .connect_raw(gateway.dial_tls().await, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        assert_eq!(crate::fixture::one(&client, "SHOW work_mem").await, "3MB");
        let sql = "SELECT coalesce(current_setting('pgentra.auth', true), 'unset')";
        assert_eq!(crate::fixture::one(&client, sql).await, "unset");
    });
}

#[test]
fn a_client_without_a_token_learns_where_to_get_one() {
    run(async {
        let gateway = gateway(AskMethod::Password).await;
        let mut raw = offered(&gateway, CHOOSES).await;
        say(&mut raw, &ClientMessage::Discovery).await;
        let expected = format!("OAuth bearer authentication failed for user \"{ROLE}\"");
        assert_eq!(refused(&mut raw).await, ("28000".to_owned(), expected));
        // RFC 4422: a client that sends nothing first gets an empty challenge.
        let mut raw = offered(&gateway, CHOOSES).await;
        let mut out = BytesMut::new();
        SaslInitialResponse { mechanism: b"OAUTHBEARER", data: None }.encode(&mut out).unwrap();
        raw.send(&out).await;
        let challenge = Authentication::SaslContinue("".into());
        assert_eq!(raw.read().await, Some(BackendMessage::Authentication(challenge)));
        let message = format!("n,,\x01auth=Bearer {}\x01\x01", vm_token().await);
        respond(&mut raw, message.as_bytes()).await;
        signs_in(raw).await;
    });
}

#[test]
fn refusals_have_the_words_of_a_refused_password() {
    run(async {
        let gateway = gateway(AskMethod::Password).await;
        let of_management = Draft::of_identity(azure().await.vm(), "https://management.azure.com/");
        for bad in [token(&of_management).await, "no.token.atall".to_owned(), "word".to_owned()] {
            let (code, message, _) = gateway.refusal(ROLE, "postgres", &bad).await;
            let mut raw = offered(&gateway, CHOOSES).await;
            say(&mut raw, &ClientMessage::Token(&bad)).await;
            assert_eq!(refused(&mut raw).await, (code, message));
        }
        // A good token of another principal: the mapping says so, without a second message of the mechanism.
        let user = token(&Draft::of_user(azure().await.administrator(), RESOURCE)).await;
        let (code, message, _) = gateway.refusal(ROLE, "postgres", &user).await;
        let mut raw = offered(&gateway, CHOOSES).await;
        say(&mut raw, &ClientMessage::Token(&user)).await;
        let error = raw.error().await;
        assert_eq!((&*error.sqlstate(), &*error.message()), (&*code, &*message));
    });
}

/// Invariant 8: a client that was accepted always gets an answer.
#[test]
fn messages_that_are_not_of_the_mechanism() {
    run(async {
        let gateway = gateway(AskMethod::Password).await;
        let token = vm_token().await;
        for (mechanism, data, message) in [
            (
                "SCRAM-SHA-256",
                "n,,n=,r=abc".to_owned(),
                "client selected an invalid SASL authentication mechanism",
            ),
            ("OAUTHBEARER", "n,,".to_owned(), "malformed OAUTHBEARER message"),
            (
                "OAUTHBEARER",
                format!("p=tls-exporter,,\x01auth=Bearer {token}\x01\x01"),
                "OAUTHBEARER was asked for with channel binding",
            ),
            (
                "OAUTHBEARER",
                format!("n,a=other,\x01auth=Bearer {token}\x01\x01"),
                "OAUTHBEARER with an authorization identity is not supported",
            ),
            (
                "OAUTHBEARER",
                format!("n,,\x01auth=Bearer {token}\x01auth=Bearer {token}\x01\x01"),
                "OAUTHBEARER carries two tokens",
            ),
        ] {
            let mut raw = offered(&gateway, CHOOSES).await;
            let mut out = BytesMut::new();
            let (mechanism, data) = (mechanism.as_bytes(), Some(data.as_bytes()));
            SaslInitialResponse { mechanism, data }.encode(&mut out).unwrap();
            raw.send(&out).await;
            let error = raw.error().await;
            assert_eq!((&*error.sqlstate(), &*error.message()), ("08P01", message));
        }
        // A password where an offer was made.
        let mut raw = offered(&gateway, CHOOSES).await;
        raw.password(token.as_bytes()).await;
        assert_eq!(raw.error().await.sqlstate(), "08P01");
        // No dismissal.
        let mut raw = offered(&gateway, CHOOSES).await;
        say(&mut raw, &ClientMessage::Discovery).await;
        assert!(matches!(raw.read().await, Some(BackendMessage::Authentication(_))));
        respond(&mut raw, format!("n,,\x01auth=Bearer {token}\x01\x01").as_bytes()).await;
        assert_eq!(raw.error().await.sqlstate(), "08P01");
    });
}

#[test]
fn a_choice_that_does_not_exist_is_named() {
    run(async {
        let gateway = gateway(AskMethod::Password).await;
        let mut raw = Raw::new(gateway.dial_tls().await);
        raw.start(&start(ROLE).with("options", "-c pgentra.auth=kerberos").unwrap()).await;
        let error = raw.error().await;
        assert_eq!(error.sqlstate(), "22023");
        assert_eq!(error.message(), "invalid value for parameter \"pgentra.auth\": \"kerberos\"");
        assert_eq!(error.hint().unwrap(), "Available values: password, oauth.");
    });
}
