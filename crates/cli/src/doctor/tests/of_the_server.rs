//! Faults of the network, of TLS, of the sign-in, of the role and of the database.

use std::time::Duration;

use pgentra_local::Flavour;

use super::before_the_server::token;
use super::fake::{CLEARTEXT, Fake, MD5, READY, SCRAM, Script, Trust, error, outdated};
use super::stage::{Expected, Stage, Try};
use pgentra_local::Host;

/// A port of loopback on which no process listens.
const CLOSED_PORT: u16 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_network_tls_and_sign_in() {
    let mut stage = Stage::new(Flavour::Flexible).await;
    network(&mut stage).await;
    certificates(&mut stage).await;
    sign_in(&mut stage).await;
    stage.end().await;
}

async fn network(stage: &mut Stage) {
    let black_hole = Fake::black_hole().await;
    let soon = ["connect_timeout=1"];
    for (what, one, expected) in [
        (
            "a name that does not resolve",
            stage.on(Host::Vm).set("PGHOST", "no-such-host.invalid"),
            "dns: name-unresolved",
        ),
        ("no listener", stage.on(Host::Vm).port(CLOSED_PORT), "tcp: tcp-refused"),
        ("packets are dropped", stage.on(Host::Vm).port(black_hole.port).with(&soon), "tcp: tcp-timeout"),
    ] {
        stage.check(what, one, expected).await;
    }
    for (what, answer, stays, expected) in [
        ("no TLS", &b"N"[..], false, "tls: tls-declined"),
        ("an error in the clear", b"E\0\0\0\x0cMforged\0\0", false, "tls: tls-error-in-the-clear"),
        ("a web server", b"HTTP/1.1 400 Bad Request\r\n\r\n", false, "tls: tls-not-spoken"),
        ("noise for a handshake", b"S\xff\xff\xff\xff\xff\xff\xff\xff", false, "tls: tls-not-spoken"),
        ("a handshake that is hung up on", b"S", false, "tls: tls-handshake"),
        ("hangs up", b"", false, "tls: tls-hung-up"),
        ("says nothing", b"", true, "tls: tls-timeout"),
    ] {
        let fake = Fake::in_the_clear(answer, stays).await;
        let one = stage.on(Host::Vm).port(fake.port).set("PGHOSTADDR", "127.0.0.1").with(&soon);
        stage.check(what, one, expected).await;
    }
}

async fn certificates(stage: &mut Stage) {
    let trust = Trust::new(stage.folder.path());
    let (outdated_root, outdated) = outdated(stage.folder.path());
    let ours = trust.file.display().to_string();
    let untrusted = Fake::behind_tls(trust.for_names(&["localhost"]), Script::says(READY)).await;
    let other = Fake::behind_tls(trust.for_names(&["db.example"]), Script::says(READY)).await;
    let outdated = Fake::behind_tls(outdated, Script::says(READY)).await;
    for (what, one, expected, says) in [
        (
            "an unknown authority",
            stage.on(Host::Vm).port(untrusted.port),
            "tls: tls-unknown-issuer",
            "Test Root",
        ),
        (
            "another name",
            stage.on(Host::Vm).port(other.port).set("PGSSLROOTCERT", &ours),
            "tls: tls-name",
            "db.example",
        ),
        (
            "an address in the place of the name",
            stage.on(Host::Vm).port(other.port).set("PGSSLROOTCERT", &ours).set("PGHOST", "127.0.0.1"),
            "tls: tls-name",
            "hostaddr=ADDRESS beside host=NAME",
        ),
        (
            "another name, which may be any",
            stage.on(Host::Vm).port(other.port).set("PGSSLROOTCERT", &ours).set("PGSSLMODE", "verify-ca"),
            "query: connection-lost",
            "for whatever name",
        ),
        (
            "an alias of the server",
            stage.on(Host::Vm).set("PGHOST", "alias.example").set("PGHOSTADDR", "127.0.0.1"),
            "tls: tls-name",
            "localhost",
        ),
        (
            "a certificate of another time",
            stage.on(Host::Vm).port(outdated.port).set("PGSSLROOTCERT", outdated_root.display()),
            "tls: tls-validity",
            "not valid at this time",
        ),
    ] {
        let report = stage.check(what, one, expected).await;
        let told =
            super::super::render::text(&report, super::super::render::Marks::Ascii, true).render(false);
        assert!(told.contains(says), "{what} does not say {says:?}\n{told}");
    }
}

/// Every known refusal, in the words of Azure and PostgreSQL.
const REFUSALS: [(&str, &str, Expected); 18] = [
    (
        "28000",
        "The access token has expired. Please acquire a new token and retry.",
        "authentication: refused-expired",
    ),
    (
        "28000",
        "The access token has expired. Acquire a new token and try again.",
        "authentication: refused-expired",
    ),
    (
        "28000",
        "The access token does not have a valid audience claim. Please acquire a new token for the resource \"https://ossrdbms-aad.database.windows.net\".",
        "authentication: refused-audience",
    ),
    (
        "28000",
        "The access token has invalid format. Please ensure the token is passed exactly as returned by the authentication endpoint and retry.",
        "authentication: refused-format",
    ),
    (
        "28000",
        "An error occurred while validating the access token. Please acquire a new token and retry",
        "authentication: refused-validation",
    ),
    (
        "28000",
        "The access token doesn't have a valid oid claim. Acquire a new token and try again",
        "authentication: refused-no-object-id",
    ),
    ("28000", "Service Principal oid mismatch for role[myVm].", "role: role-of-another-identity"),
    (
        "28000",
        "Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[myVm]",
        "role: role-for-service",
    ),
    (
        "28000",
        "Azure AD user token for role[myVm] is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.",
        "role: role-for-user",
    ),
    (
        "28000",
        "Azure AD access token not valid for role myVm (does not contain group ID dddddddd-0000-4000-8000-000000000004)",
        "role: role-group",
    ),
    ("28P01", "password authentication failed for user \"myVm\"", "authentication: role-not-mapped"),
    ("28000", "role \"myVm\" is not permitted to log in", "role: role-no-login"),
    (
        "28000",
        "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", SSL encryption",
        "authentication: refused-firewall",
    ),
    ("3D000", "database \"postgres\" does not exist", "database: database-missing"),
    ("42501", "permission denied for database \"postgres\"", "database: database-forbidden"),
    ("53300", "sorry, too many clients already", "authentication: too-many-connections"),
    ("08P01", "client sent partial pkt in startup phase", "authentication: pooler-limit"),
    ("XX000", "internal error", "authentication: refused-other"),
];

async fn sign_in(stage: &mut Stage) {
    let trust = Trust::new(stage.folder.path());
    let refusals = REFUSALS
        .iter()
        .map(|(sqlstate, message, expected)| (*message, Script::refuses(sqlstate, message), *expected));
    let hba = error(
        "28000",
        "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", no encryption",
    );
    let says = Script::says;
    let silent = |bytes: &[u8]| Script { says: vec![bytes.to_vec()], stays: true };
    let others = [
        ("asks for SCRAM", says(SCRAM), "authentication: role-not-mapped"),
        ("asks for MD5", says(MD5), "authentication: role-not-mapped"),
        ("sees no TLS", says(&hba), "authentication: refused-no-tls"),
        (
            "is starting",
            says(&error("57P03", "the database system is starting up")),
            "authentication: server-not-ready",
        ),
        ("hangs up on the token", says(CLEARTEXT), "authentication: protocol"),
        ("says something else", says(b"HTTP/1.1 400\r\n"), "authentication: protocol"),
        ("says nothing", silent(b""), "authentication: sign-in-timeout"),
        ("says nothing about the token", silent(CLEARTEXT), "authentication: sign-in-timeout"),
        (
            "hangs up on a query",
            Script { says: vec![CLEARTEXT.to_vec(), READY.to_vec()], stays: false },
            "query: connection-lost",
        ),
        (
            "refuses a query",
            Script {
                says: vec![
                    CLEARTEXT.to_vec(),
                    READY.to_vec(),
                    [error("42501", "permission denied"), b"Z\0\0\0\x05I".to_vec()].concat(),
                ],
                stays: false,
            },
            "query: statement-refused",
        ),
    ];
    for (what, script, expected) in refusals.chain(others) {
        let fake = Fake::behind_tls(trust.for_names(&["localhost"]), script).await;
        let one = stage.on(Host::Vm).port(fake.port).set("PGSSLROOTCERT", trust.file.display());
        stage.check(what, one.set("PGHOSTADDR", "127.0.0.1").with(&["connect_timeout=2"]), expected).await;
    }
}

/// A server that checks tokens, as Flexible Server does.
#[tokio::test(flavor = "multi_thread")]
async fn flexible_server() {
    let mut stage = Stage::new(Flavour::Flexible).await;
    let group = stage.cloud.azure().group().object_id();
    let vm = stage.cloud.azure().vm().object_id();
    stage
        .administer(&format!(
            "SELECT pgaadauth_create_principal_with_oid('readers', '{group}', 'group', false, false)"
        ))
        .await;
    for role in ["no_login", "limited"] {
        stage
            .administer(&format!(
                "SELECT pgaadauth_create_principal_with_oid('{role}', '{vm}', 'service', false, false)"
            ))
            .await;
    }
    stage.administer("ALTER ROLE no_login NOLOGIN").await;
    stage.administer("ALTER ROLE limited CONNECTION LIMIT 0").await;
    stage.administer("CREATE DATABASE closed").await;
    stage.administer("REVOKE CONNECT ON DATABASE closed FROM PUBLIC").await;
    let other_tenant = Stage::new(Flavour::Flexible).await;
    let of_another_tenant = token(&other_tenant).await;
    other_tenant.end().await;
    let admin = stage.cloud.azure().administrator().user_principal_name().to_owned();
    let user = |stage: &Stage, role: &str| stage.on(Host::Vm).set("PGUSER", role);
    let cases: [(&str, Try, Expected); 14] = [
        ("nothing", stage.on(Host::Vm), ""),
        ("nothing, as the administrator", stage.on(Host::Admin), ""),
        ("a role that is not there", user(&stage, "nobody_here"), "authentication: role-not-mapped"),
        ("a role in another case", user(&stage, "MYVM"), "authentication: role-not-mapped"),
        (
            "a role with the server's name",
            user(&stage, "myVm@mydemoserver"),
            "authentication: role-not-mapped",
        ),
        ("a role of another identity", user(&stage, "myIdentity"), "role: role-of-another-identity"),
        ("a role for a person", user(&stage, &admin), "role: role-for-user"),
        ("a role for an application", stage.on(Host::Admin).set("PGUSER", "myVm"), "role: role-for-service"),
        ("a role of a group", user(&stage, "readers"), "role: role-group"),
        ("a role that may not log in", user(&stage, "no_login"), "role: role-no-login"),
        ("a role with too many connections", user(&stage, "limited"), "authentication: too-many-connections"),
        (
            "a database that is not there",
            stage.on(Host::Vm).set("PGDATABASE", "nowhere"),
            "database: database-missing",
        ),
        (
            "a database that is closed",
            stage.on(Host::Vm).set("PGDATABASE", "closed"),
            "database: database-forbidden",
        ),
        (
            "a token for another API",
            stage.on(Host::Vm).with(&["--resource", "https://management.azure.com"]),
            "authentication: refused-audience",
        ),
    ];
    for (what, one, expected) in cases {
        stage.check(what, one, expected).await;
    }
    let one = stage.on(Host::Vm).token(&of_another_tenant);
    stage.check("a token of another tenant", one, "authentication: refused-validation").await;
    let kept = token(&stage).await;
    stage.cloud.azure().clock().advance(Duration::from_secs(25 * 3600));
    let one = stage.on(Host::Vm).token(&kept);
    stage.check("a token that has ended for the server", one, "authentication: refused-expired").await;
    stage.end().await;
}

/// A server that checks tokens, as Single Server did.
#[tokio::test(flavor = "multi_thread")]
async fn single_server() {
    let mut stage = Stage::new(Flavour::Single).await;
    for (what, one, expected) in [
        ("nothing", stage.on(Host::Vm), ""),
        ("nothing, with the server's name", stage.on(Host::Vm).set("PGUSER", "myVm@mydemoserver"), ""),
        (
            "another server's name",
            stage.on(Host::Vm).set("PGUSER", "myVm@other"),
            "authentication: role-not-mapped",
        ),
        (
            "a role that is not there",
            stage.on(Host::Vm).set("PGUSER", "unknown"),
            "authentication: role-not-mapped",
        ),
        (
            "a role of another identity",
            stage.on(Host::Vm).set("PGUSER", "myIdentity"),
            "role: role-of-another-identity",
        ),
    ] {
        stage.check(what, one, expected).await;
    }
    stage.end().await;
}
