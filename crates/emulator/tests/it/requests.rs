//! The requests of the Azure SDKs, as they send them. `tests/requests.json` is the table of them: what
//! `e2e/capture/capture.py` recorded from the SDKs for Go, Java, JavaScript and Python, and for .NET what its entries say.
//!
//! Placeholders in braces stand for what differs between two local clouds: ids, secrets, addresses, thumbprints
//! (`{sha256:base64:padded}`: algorithm, alphabet, padding), times (`{number:600}`: how it is written, and seconds from now)
//! and federated assertions.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use pgentra_emulator::LocalAzure;
use pgentra_emulator::certificates::Issued;
use pgentra_emulator::options::AzureArcAgent;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::assertions::assertion;
use crate::client::{Ask, POSTGRESQL, Reply, START, encode, options};
use crate::federated::{codes, exchange_form};
use crate::jwt;

const TABLE: &str = include_str!("../requests.json");

#[derive(Debug, Deserialize)]
struct Case {
    sdk: String,
    version: String,
    host: String,
    credential: String,
    requests: Vec<Recorded>,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    door: String,
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    assertion: Option<Assertion>,
}

#[derive(Debug, Deserialize)]
struct Assertion {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

fn table() -> Vec<Case> {
    serde_json::from_str(TABLE).unwrap()
}

/// A local cloud that has everything that a request can be for.
struct Stage {
    azure: LocalAzure,
    certificate: Issued,
    names: BTreeMap<&'static str, String>,
    _keys: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let mut options = options();
        options.arc = Some(AzureArcAgent::new(keys.path()));
        let azure = LocalAzure::start(options).await.unwrap();
        let certificate = certificate(&azure).await;
        let names = names(&azure);
        Self { azure, certificate, names, _keys: keys }
    }

    /// `text` with the values of this local cloud.
    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        while let Some(at) = text.find("{uuid}") {
            text.replace_range(at..at + 6, &Uuid::new_v4().to_string());
        }
        text
    }

    fn base(&self, door: &str) -> String {
        let origin = |url: &str| url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        match door {
            "metadata" => self.azure.metadata_url().to_owned(),
            "authority" => origin(self.azure.authority_host()),
            "service_fabric" => origin(&self.azure.service_fabric().endpoint),
            "federation" => origin(&self.azure.pipelines().request_uri),
            "arc" => self.azure.arc().unwrap().imds_endpoint,
            other => panic!("no door {other}"),
        }
    }

    fn signed(&self, recorded: &Assertion) -> String {
        let header = recorded.header.iter().map(|(name, value)| (name.clone(), self.value(value)));
        let claims = recorded.claims.iter().map(|(name, value)| (name.clone(), self.value(value)));
        assertion(&self.certificate, Value::Object(header.collect()), &Value::Object(claims.collect()))
    }

    /// A header's or claim's value with what it stands for.
    fn value(&self, value: &Value) -> Value {
        let Some(text) = value.as_str() else { return value.clone() };
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default();
        match inner.split(':').collect::<Vec<_>>()[..] {
            ["number", seconds] => json!(START + seconds.parse::<i64>().unwrap()),
            ["text", seconds] => json!((START + seconds.parse::<i64>().unwrap()).to_string()),
            ["fraction", seconds] => json!(seconds.parse::<f64>().unwrap() + 1_900_000_000.5),
            ["x5c"] => json!([STANDARD.encode(&self.certificate.chain[0])]),
            [algorithm @ ("sha1" | "sha256"), form, ..] => {
                json!(thumbprint(&self.certificate, algorithm, form, inner.ends_with(":padded")))
            }
            _ => json!(self.filled(text)),
        }
    }

    /// Whose token a case gets.
    fn owner(&self, case: &Case) -> Uuid {
        match (&*case.host, &*case.credential) {
            ("client-secret" | "client-certificate", _) => self.azure.application().object_id(),
            ("cloud-shell", _) => self.azure.administrator().object_id(),
            ("aks" | "azure-pipelines", _) => self.azure.user_assigned().object_id(),
            (_, "default" | "managed") => self.azure.vm().object_id(),
            _ => self.azure.user_assigned().object_id(),
        }
    }

    async fn sent(&mut self, recorded: &Recorded) -> Reply {
        let assertion = recorded.assertion.as_ref().map(|recorded| self.signed(recorded)).unwrap_or_default();
        let target = self.filled(&recorded.target);
        let mut ask =
            Ask::get(format!("{}{target}", self.base(&recorded.door))).trusting(self.azure.ca_pem());
        ask = ask.method(if recorded.method == "POST" { "POST" } else { "GET" });
        for (name, value) in &recorded.headers {
            ask = ask.header(name, self.filled(value));
        }
        let reply =
            ask.body(self.filled(&recorded.body.replace("{assertion}", &assertion))).send().await.unwrap();
        // What the next request has in it.
        if recorded.door == "federation" {
            self.names.insert("federated", reply.json()["oidcToken"].as_str().unwrap().to_owned());
        }
        if let Some(file) = challenge(&reply) {
            self.names.insert("arc_key", std::fs::read_to_string(file).unwrap());
        }
        reply
    }

    /// Sends the requests of a case and checks every answer.
    async fn replay(&mut self, case: &Case) {
        let about = format!("{} ({}), {}, {}", case.sdk, case.version, case.host, case.credential);
        let account = self.azure.federation().service_account_token().unwrap();
        self.names.insert("federated", account.expose_secret().to_owned());
        let mut token = None;
        for recorded in &case.requests {
            let reply = self.sent(recorded).await;
            let about = format!("{about}: {} {} answered {}", recorded.method, recorded.target, reply.text());
            let discovers = recorded.target.contains("/.well-known/openid-configuration");
            // Go asks so to learn whether a metadata service is there.
            let probes =
                recorded.door == "metadata" && !recorded.target.contains('?') && recorded.body.is_empty();
            let status = match recorded.door.as_str() {
                "metadata" if probes => 400,
                "arc" if !recorded.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")) => {
                    401
                }
                _ => 200,
            };
            assert_eq!(reply.status, status, "{about}");
            if discovers {
                assert_eq!(
                    reply.json()["token_endpoint"],
                    self.filled("{authority}/{tenant}/oauth2/v2.0/token")
                );
            } else if status == 200 && recorded.door != "federation" {
                token = reply.json()["access_token"].as_str().map(str::to_owned);
                assert!(token.is_some(), "{about}");
            }
        }
        let token = token.unwrap_or_else(|| panic!("{about}: no token"));
        let claims = jwt::claims(&self.azure, &token).await;
        assert_eq!(
            (&claims["aud"], &claims["oid"]),
            (&json!(POSTGRESQL), &json!(self.owner(case))),
            "{about}"
        );
    }
}

/// The file that a 401 of Azure Arc names.
fn challenge(reply: &Reply) -> Option<String> {
    let challenge = reply.headers.get("www-authenticate").filter(|_| reply.status == 401)?;
    challenge.to_str().unwrap().strip_prefix("Basic realm=").map(str::to_owned)
}

fn names(azure: &LocalAzure) -> BTreeMap<&'static str, String> {
    let (named, application) = (azure.user_assigned(), azure.application());
    let text = |secret: &secrecy::SecretString| encode(secret.expose_secret());
    let pipelines = azure.pipelines();
    let path = pipelines.request_uri.splitn(4, '/').nth(3).unwrap().to_owned();
    BTreeMap::from([
        ("tenant", azure.tenant().to_string()),
        ("client_id", named.client_id().to_string()),
        ("object_id", named.object_id().to_string()),
        ("resource_id", named.resource_id().to_owned()),
        ("resource_id:encoded", encode(named.resource_id())),
        ("application", application.client_id().to_string()),
        ("client_secret", text(application.secret())),
        ("app_service", azure.app_service().header.expose_secret().to_owned()),
        ("service_fabric", azure.service_fabric().header.expose_secret().to_owned()),
        ("machine_learning", azure.machine_learning().secret.expose_secret().to_owned()),
        ("pipelines", pipelines.access_token.expose_secret().to_owned()),
        ("pipelines_path", format!("/{path}")),
        ("service_connection", pipelines.service_connection.to_string()),
        ("authority", azure.authority_host().trim_end_matches('/').to_owned()),
    ])
}

/// A registered certificate in whose thumbprints the two alphabets of base64 differ.
async fn certificate(azure: &LocalAzure) -> Issued {
    for _ in 0..200 {
        let issued = azure.new_client_certificate().await.unwrap();
        let differs = |name| thumbprint(&issued, name, "base64", false).contains(['+', '/']);
        if differs("sha1") && differs("sha256") {
            return issued;
        }
    }
    panic!("200 certificates without a + or / in a thumbprint")
}

fn thumbprint(issued: &Issued, algorithm: &str, form: &str, padded: bool) -> String {
    let algorithm = if algorithm == "sha1" { &digest::SHA1_FOR_LEGACY_USE_ONLY } else { &digest::SHA256 };
    let digest = digest::digest(algorithm, &issued.chain[0]);
    let hex = || digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match (form, padded) {
        ("base64", true) => STANDARD.encode(digest),
        ("base64", false) => STANDARD_NO_PAD.encode(digest),
        ("base64url", true) => URL_SAFE.encode(digest),
        ("base64url", false) => URL_SAFE_NO_PAD.encode(digest),
        ("hex", _) => hex(),
        ("HEX", _) => hex().to_uppercase(),
        (other, _) => panic!("no form {other}"),
    }
}

async fn replay(sdk: &str, hosts: &[&str]) {
    let mut stage = Stage::start().await;
    let table = table();
    let cases: Vec<_> = table.iter().filter(|case| case.sdk == sdk).collect();
    let found: BTreeSet<_> = cases.iter().map(|case| &*case.host).collect();
    assert_eq!(found, hosts.iter().copied().collect(), "the hosts in the table");
    for case in cases {
        stage.replay(case).await;
    }
    stage.azure.stop().await;
}

/// The hosts that every SDK knows.
const HOSTS: [&str; 9] = [
    "imds",
    "app-service",
    "service-fabric",
    "cloud-shell",
    "azure-arc",
    "client-secret",
    "client-certificate",
    "aks",
    "azure-pipelines",
];

#[tokio::test]
async fn the_requests_of_dotnet_are_answered() {
    replay("dotnet", &["imds", "client-certificate"]).await;
}

#[tokio::test]
async fn the_requests_of_go_are_answered() {
    replay("go", &[&HOSTS[..], &["azure-ml"]].concat()).await;
}

#[tokio::test]
async fn the_requests_of_java_are_answered() {
    replay("java", &HOSTS).await;
}

#[tokio::test]
async fn the_requests_of_node_are_answered() {
    replay("node", &[&HOSTS[..], &["azure-ml"]].concat()).await;
}

#[tokio::test]
async fn the_requests_of_python_are_answered() {
    replay("python", &[&HOSTS[..], &["azure-ml"]].concat()).await;
}

#[tokio::test]
async fn a_person_without_the_header_is_no_probe() {
    let stage = Stage::start().await;
    let url = stage.azure.metadata_url();
    let resource = encode(POSTGRESQL);
    let ask = |path: &str| Ask::get(format!("{url}{path}?api-version=2018-02-01&resource={resource}"));
    let token = "/metadata/identity/oauth2/token";
    let dotnet = ("user-agent", "azsdk-net-Core/1.53.0 (.NET 10.0.12)");
    let id = ("x-ms-client-request-id", "b6bd6591-f914-4f89-bce2-999c9345b23f");
    for (path, headers, status) in [
        (token, &[dotnet, id][..], 200),
        (token, &[dotnet], 200),
        (token, &[id], 400),
        (token, &[("user-agent", "curl/7.88.1 azsdk-net-Core"), id], 400),
        (token, &[dotnet, id, ("metadata", "false")], 400),
        (token, &[("METADATA", "TRUE")], 200),
        ("//metadata/identity/oauth2/token", &[("Metadata", "true")], 200),
        ("///metadata//identity/oauth2/token/", &[("Metadata", "true")], 200),
        ("//MSI/token", &[("X-IDENTITY-HEADER", stage.names["app_service"].as_str())], 400),
        ("/metadata/identity/oauth2/tokens", &[("Metadata", "true")], 401),
    ] {
        let asked = headers.iter().fold(ask(path), |ask, (name, value)| ask.header(name, *value));
        let reply = asked.send().await.unwrap();
        assert_eq!(reply.status, status, "{path} {headers:?}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_cloud_shell_is_asked_with_post_or_get() {
    let stage = Stage::start().await;
    let url = stage.azure.cloud_shell();
    let asked = format!("{url}?resource={}", encode(POSTGRESQL));
    for (ask, status) in [
        (Ask::get(&asked).header("Metadata", "true"), 200),
        (Ask::get(&asked).header("Metadata", "True").body("resource=urn:no"), 200),
        (Ask::get(&asked), 400),
        (Ask::get(url).header("Metadata", "true"), 400),
        // The query of a POST says nothing.
        (Ask::post(&asked, &[]).header("Metadata", "true"), 400),
        (Ask::get(&asked).method("PUT").header("Metadata", "true"), 405),
        (Ask::get(&asked).method("DELETE").header("Metadata", "true"), 405),
    ] {
        let about = format!("{ask:?}");
        assert_eq!(ask.send().await.unwrap().status, status, "{about}");
    }
}

#[tokio::test]
async fn the_scopes_of_openid_stand_beside_one_resource_in_any_order() {
    let stage = Stage::start().await;
    let url = format!("{}{}/oauth2/v2.0/token", stage.azure.authority_host(), stage.azure.tenant());
    let client = stage.azure.application().client_id().to_string();
    let secret = stage.azure.application().secret().expose_secret();
    let ask = async |scope: &str| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &client),
            ("client_secret", secret),
            ("scope", scope),
        ];
        Ask::post(&url, &form).trusting(stage.azure.ca_pem()).send().await.unwrap()
    };
    let resource = format!("{POSTGRESQL}/.default");
    for scope in [
        format!("{resource} openid offline_access profile"),
        format!("{resource} openid profile offline_access"),
        format!("openid profile offline_access {resource}"),
        format!("openid {resource} email"),
        format!("  {resource}   openid "),
    ] {
        let claims = jwt::claims(&stage.azure, &ask(&scope).await.token()).await;
        assert_eq!(claims["aud"], POSTGRESQL, "{scope}");
    }
    for (scope, number) in [
        ("openid profile".to_owned(), 1_002_012),
        (format!("{resource} user_impersonation"), 1_002_012),
        (format!("{resource} OpenID"), 1_002_012),
        (format!("{resource} https://graph.microsoft.com/.default"), 28000),
        (format!("{resource} {resource}"), 28000),
        (" ".to_owned(), 1_002_012),
    ] {
        assert_eq!(codes(&ask(&scope).await), json!([number]), "{scope}");
    }
}

#[tokio::test]
async fn thumbprints_and_times_are_read_as_entra_reads_them() {
    let stage = Stage::start().await;
    let client = stage.azure.application().client_id().to_string();
    let url = format!("{}{}/oauth2/v2.0/token", stage.azure.authority_host(), stage.azure.tenant());
    let ask = async |header: Value, (nbf, exp): (Value, Value)| {
        let claims = json!({"aud": url, "iss": client, "sub": client, "jti": "1", "nbf": nbf, "exp": exp});
        let signed = assertion(&stage.certificate, header, &claims);
        Ask::post(&url, &exchange_form(&client, &signed)).trusting(stage.azure.ca_pem()).send().await.unwrap()
    };
    let times = (json!(START), json!(START + 600));
    for form in ["base64", "base64url"] {
        for padded in [true, false] {
            for (name, algorithm) in [("x5t", "sha1"), ("x5t#S256", "sha256")] {
                let header =
                    json!({"alg": "PS256", name: thumbprint(&stage.certificate, algorithm, form, padded)});
                assert_eq!(ask(header.clone(), times.clone()).await.status, 200, "{header}");
            }
        }
    }
    let sha256 = thumbprint(&stage.certificate, "sha256", "base64", true);
    for wrong in
        [&sha256[1..], "", "====", "not base64!", &thumbprint(&stage.certificate, "sha1", "base64", true)]
    {
        let reply = ask(json!({"alg": "PS256", "x5t#S256": wrong}), times.clone()).await;
        assert_eq!(codes(&reply), json!([700_027]), "{wrong}");
    }
    let header = json!({"alg": "PS256", "x5t#S256": sha256});
    let text = |seconds: i64| json!((START + seconds).to_string());
    for (times, outcome) in [
        ((text(0), text(600)), Value::Null),
        ((text(0), json!(START + 600)), Value::Null),
        ((json!(START), json!("1900000600.25")), Value::Null),
        ((text(-7200), text(-3600)), json!([700_024])),
        ((text(3600), text(7200)), json!([700_024])),
        ((text(0), json!("soon")), json!([50027])),
        ((text(0), json!("")), json!([50027])),
        ((text(0), json!("NaN")), json!([50027])),
        ((text(0), json!("inf")), json!([50027])),
        ((text(0), json!(true)), json!([50027])),
        ((text(0), json!([1_900_000_600])), json!([50027])),
    ] {
        let reply = ask(header.clone(), times.clone()).await;
        assert_eq!(reply.json()["error_codes"], outcome, "{times:?}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_client_goes_on_with_its_own_clock_when_the_cloud_has_moved() {
    let mut stage = Stage::start().await;
    let table = table();
    let own: Vec<_> = table.iter().filter(|case| case.host == "client-certificate").collect();
    assert_eq!(own.len(), 5, "one for each SDK");
    stage.azure.clock().advance(std::time::Duration::from_secs(25 * 3600));
    for case in own {
        stage.replay(case).await;
    }
}

#[tokio::test]
async fn only_this_machine_is_answered_and_no_page_in_a_browser() {
    let mut options = options();
    options.host_names = vec!["relay.example".to_owned()];
    let azure = LocalAzure::start(options).await.unwrap();
    let metadata = azure.metadata_url().trim_start_matches("http://").to_owned();
    let entra = azure.authority_host().trim_start_matches("https://").trim_end_matches('/').to_owned();
    let port = metadata.rsplit_once(':').unwrap().1.to_owned();
    for (host, status) in [
        (metadata.clone(), 200),
        ("127.0.0.1".to_owned(), 200),
        (format!("localhost:{port}"), 200),
        (format!("LocalHost.:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        (format!("relay.example:{port}"), 200),
        ("evil.example".to_owned(), 421),
        (format!("evil.example:{port}"), 421),
        (format!("127.0.0.1.evil.example:{port}"), 421),
        (format!("localhost@evil.example:{port}"), 421),
        ("169.254.169.254".to_owned(), 421),
        ("0.0.0.0".to_owned(), 421),
        (String::new(), 421),
    ] {
        let url = format!("{}/metadata/identity/info?api-version=2018-02-01", azure.metadata_url());
        let ask = Ask::get(url).header("Metadata", "true");
        let stream = tokio::net::TcpStream::connect(&metadata).await.unwrap();
        assert_eq!(ask.over(stream, &host).await.unwrap().status, status, "{host}");
    }
    let token = Ask::post(azure.cloud_shell(), &[("resource", POSTGRESQL)]).header("Metadata", "true");
    let keys = Ask::get(azure.keys_url()).trusting(azure.ca_pem());
    let preflight = Ask::get(azure.cloud_shell()).method("OPTIONS");
    for (ask, header, status) in [
        (&token, ("Origin", "http://evil.example"), 403),
        (&token, ("origin", "null"), 403),
        (&preflight, ("Origin", "http://evil.example"), 403),
        (&keys, ("Origin", "https://localhost"), 403),
        (&keys, ("Sec-Fetch-Site", "cross-site"), 403),
        (&keys, ("Sec-Fetch-Site", "same-origin"), 403),
        (&keys, ("Sec-Fetch-Site", "none"), 200),
        (&token, ("X-Unrelated", "1"), 200),
    ] {
        let reply = ask.clone().header(header.0, header.1).send().await.unwrap();
        assert_eq!(reply.status, status, "{header:?}");
        assert!(status == 200 || !reply.headers.contains_key("access-control-allow-origin"));
    }
    // The doors that speak TLS check it too.
    let named = Ask::get(azure.keys_url()).trusting(azure.ca_pem());
    let stream = tokio::net::TcpStream::connect(&entra).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(crate::client::tls(azure.ca_pem()));
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    assert_eq!(named.over(stream, "evil.example").await.unwrap().status, 421);
}
