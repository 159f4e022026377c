//! Sign-ins by every method, and the way that the page describes.

use std::fs;
use std::path::Path;

use e2e::{Lab, have};

use crate::stage::{Server, Stage, debian, methods, servers};

#[test]
fn every_version_signs_in_by_every_method() {
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (vm, other) = (stage.token("vm"), stage.another_token());
    let admin = stage.token("admin");
    let vm_id = stage.object_id("vm");
    for bin in servers() {
        let server = Server::start(&lab, &bin, &stage.certificate);
        let major = server.major();
        server.sql("CREATE ROLE plain LOGIN PASSWORD 'its own'");
        // Debian's server is asked everything; the other versions for a sign-in alone.
        let is_whole = bin.starts_with("/usr");
        let methods = methods(&stage, &server).into_iter().take(if is_whole { usize::MAX } else { 1 });
        for (method, init, settings) in methods {
            let about = format!("PostgreSQL {major}, {method}");
            let dba = format!("dba={}", stage.object_id("admin"));
            let mut words: Vec<_> = init.iter().map(String::as_str).collect();
            words.extend(["--tenant", &stage.tenant, "--admin", &dba]);
            server.init(&words);
            if method == "cert" {
                let authority = words[words.iter().position(|word| *word == "--authority").unwrap() + 1];
                let certificate = fs::read_to_string(format!("{authority}.crt")).unwrap();
                server.write("gateway.crt", &certificate, 0o600);
                server.sql("ALTER SYSTEM SET ssl_ca_file = 'gateway.crt'");
                server.sql("SELECT pg_reload_conf()");
            }
            let gateway = stage.gateway(&settings);
            let create = format!(
                "SELECT pgaadauth_create_principal_with_oid('app_{method}', '{vm_id}', 'service', false, false)"
            );
            let done = stage.sign_in(&gateway, "dba", &admin, &create);
            assert_eq!(done.ok().trim(), format!("Created role for \"app_{method}\""), "{about}");
            if method == "peer" && major < 16 {
                // One line for each role.
                server.init(&words);
            }
            let role = format!("app_{method}");
            let who = "SELECT current_user, session_user";
            let done = stage.sign_in(&gateway, &role, &vm, who);
            assert_eq!(done.ok().trim(), format!("{role}|{role}"), "{about}");
            if !is_whole {
                let done = stage.sign_in(&gateway, &role, &other, "SELECT 1");
                assert!(done.stderr.contains("Service principal oid mismatch"), "{about}: {}", done.stderr);
                continue;
            }
            for (role, token, says) in [
                (role.as_str(), other.as_str(), "Service principal oid mismatch for role"),
                (role.as_str(), admin.as_str(), "Service principals cannot generate"),
                (role.as_str(), "hello", "The access token has invalid format"),
                ("dba", vm.as_str(), "is neither an AAD_AUTH_TOKENTYPE_APP_USER"),
                ("plain", vm.as_str(), "role \"plain\" is not mapped to a Microsoft Entra principal"),
                ("postgres", vm.as_str(), "role \"postgres\" is not mapped"),
                ("pgentra_gateway", vm.as_str(), "is not mapped"),
                ("nobody_there", vm.as_str(), "is not mapped"),
            ] {
                let done = stage.sign_in(&gateway, role, token, "SELECT 1");
                assert!(done.stderr.contains(says), "{about}: {role}: {}", done.stderr);
                assert_ne!(done.status.code(), Some(0), "{about}: {role}");
            }
            // Without TLS nothing is asked for.
            let port = gateway.port();
            let plain = format!("host=127.0.0.1 port={port} user={role} dbname=postgres sslmode=disable");
            let done = lab.program(&["psql", &plain, "-c", "SELECT 1"]).env("PGPASSWORD", &vm).done();
            assert!(done.stderr.contains("no encryption"), "{about}: {}", done.stderr);
            // The server itself takes no password of a mapped role, whatever it is.
            let direct =
                format!("host={} port={} user={role} dbname=postgres", server.folder.display(), server.port);
            let done = lab.program(&["psql", &direct, "-c", "SELECT 1"]).env("PGPASSWORD", &vm).done();
            if method != "peer" {
                assert_ne!(done.status.code(), Some(0), "{about}");
            }
        }
    }
}

/// The page's way from nothing to a first sign-in, as it is written, with the names of this machine.
#[test]
fn the_page_leads_to_a_first_sign_in() {
    const PAGE: &str = include_str!("../../../docs/gateway.md");
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let server = Server::start(&lab, &debian(), &stage.certificate);
    let blocks: Vec<&str> = PAGE.split("```").skip(1).step_by(2).collect();
    let [init, lines, toml, start] = blocks[..4] else { panic!("the page begins with four blocks") };
    let user = lab.program(&["id", "-un"]).done().ok().trim().to_owned();
    let typed = |text: &str| {
        text.trim_start_matches("toml")
            .replace("sudo -u postgres ", "")
            .replace("host=/var/run/postgresql user=postgres", &server.conninfo())
            .replace("\"/var/run/postgresql\"", &format!("\"{}:{}\"", server.folder.display(), server.port))
            .replace("--user pgentra ", &format!("--user {user} "))
            .replace("11111111-2222-3333-4444-555555555555", &stage.tenant)
            .replace("00000000-1111-2222-3333-444444444444", &stage.object_id("admin"))
            .replace("0.0.0.0:6432", "127.0.0.1:0")
            .replace("/etc/pgentra", lab.path().to_str().unwrap())
    };
    let done = lab.shell(&typed(init)).done();
    let said = done.ok();
    let (hba, ident) = lines.split_once("pg_ident.conf:\n").unwrap();
    let (said_hba, said_ident) = said.split_once("\n\n").unwrap().1.split_once("pg_ident.conf:\n").unwrap();
    assert_eq!(said_hba.trim(), hba.trim(), "the page shows other lines");
    if server.major() >= 16 {
        assert_eq!(said_ident.trim(), ident.trim().replace("pgentra\"", &format!("{user}\"")));
    }
    server.hba(said_hba.split_once('\n').unwrap().1);
    server.write("pg_ident.conf", said_ident, 0o600);
    server.sql("SELECT pg_reload_conf()");

    // The tenant of the test is not Entra's own.
    let shared: Vec<_> = stage
        .settings
        .lines()
        .filter(|line| line.starts_with("issuer") || line.starts_with("keys_"))
        .collect();
    stage.write("gateway.toml", &(typed(toml) + &shared.join("\n")));
    let [check, serve, sign_in] = start.trim().lines().collect::<Vec<_>>()[..] else { panic!("{start}") };
    let done = lab.shell(&typed(check)).done();
    assert!(done.ok().contains("signing keys"), "{}", done.stdout);
    let typed_serve = typed(serve);
    let words: Vec<_> = typed_serve.strip_prefix("pgentra gateway ").unwrap().split(' ').collect();
    let gateway = lab.gateway(&words, 1);
    let sign_in = typed(sign_in)
        .replace(
            "host=db.example.com",
            &format!("host=localhost sslrootcert={}", lab.path().join("ca.crt").display()),
        )
        .replace("port=6432", &format!("port={}", gateway.port()));
    let variables = stage.cloud.env("admin").into_iter().filter(|(name, _)| !name.starts_with("PG"));
    let done = lab.shell(&format!("{sign_in} -Atc 'SELECT current_user'")).envs(variables).done();
    assert_eq!(done.ok().trim(), "dba");

    // Every configuration of the page is read.
    for block in blocks.iter().filter_map(|block| block.strip_prefix("toml\n")) {
        let is_mapping = block.contains("[[role]]");
        let text = match is_mapping {
            true => continue,
            false => typed(block),
        };
        let at_least = |key: &str, value: String| match text.contains(&format!("{key} =")) {
            true => String::new(),
            false => format!("{key} = '{value}'\n"),
        };
        let path = |name: &str| lab.path().join(name).display().to_string();
        let mapping = blocks.iter().find(|block| block.contains("[[role]]")).unwrap();
        stage.write("mapping.toml", mapping.strip_prefix("toml").unwrap());
        stage.write("reports-ca.crt", &stage.certificate.authority);
        let authority = path("authority.pem");
        if !Path::new(&authority).exists() {
            lab.pgentra(&[
                "gateway",
                "init",
                "--tenant",
                &stage.tenant,
                "--method",
                "cert",
                "--authority",
                &authority,
            ])
            .done()
            .ok();
        }
        let text = at_least("listen_tls_cert", path("tls.crt"))
            + &at_least("listen_tls_key", path("tls.key"))
            + &at_least("tenant", stage.tenant.clone())
            + &at_least("upstream", "/run".to_owned())
            + &text;
        let file = stage.write("page.toml", &text);
        lab.pgentra(&["gateway", "--check-config", "--config", &file]).done().ok();
    }
}
