//! psql 18 with its OAuth module, from the offer to the session. It needs such a psql: in the PATH, below
//! `/usr/lib/postgresql`, or named by `PGENTRA_TEST_PSQL_18`.

use std::process::Stdio;

use pgentra_system::http::HttpClient;
use pgentra_system::{Env, Files};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::fixture::{Stage, run, token};

/// A psql of version 18 or later.
async fn psql() -> Option<String> {
    let named = Env::real().get("PGENTRA_TEST_PSQL_18");
    let candidates = named.into_iter().chain(["psql", "/usr/lib/postgresql/18/bin/psql"].map(str::to_owned));
    for candidate in candidates {
        let Ok(said) = Command::new(&candidate).arg("--version").output().await else { continue };
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let major = said.split(' ').nth(2).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major >= 18) {
            return Some(candidate);
        }
    }
    None
}

#[test]
fn psql_18_signs_in_with_a_device_code() {
    run(async {
        let Some(psql) = psql().await else {
            eprintln!("skipped: there is no psql 18; PGENTRA_TEST_PSQL_18 names one");
            return;
        };
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let azure = stage.azure();
        let folder = tempfile::tempdir().unwrap();
        let roots = folder.path().join("ca.pem");
        std::fs::write(&roots, azure.ca_pem()).unwrap();
        let user = azure.administrator().user_principal_name();
        let base = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname=postgres user='{user}' sslmode=verify-full sslrootcert='{}'",
            gateway.gateway.address.port(),
            roots.display()
        );
        let oauth = format!(
            "oauth_issuer='{}{}/v2.0' oauth_client_id=psql require_auth=oauth",
            azure.authority_host(),
            azure.tenant()
        );
        let command = |conninfo: &str| {
            let mut command = Command::new(&psql);
            command.args(["-X", "-A", "-t", "-w", "-c", "SELECT current_user", conninfo]);
            // libpq trusts an authority of a local cloud only so.
            command.env("PGOAUTHDEBUG", "UNSAFE").env("PGOAUTHCAFILE", &roots).env_remove("PGPASSWORD");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
            command
        };

        let chooses = format!("{base} {oauth} options='-c pgentra.auth=oauth'");
        let mut running = command(&chooses).spawn().unwrap();
        let mut said = BufReader::new(running.stderr.take().unwrap()).lines();
        let code = async {
            let mut seen = Vec::new();
            while let Some(line) = said.next_line().await.unwrap() {
                if let Some((_, code)) = line.split_once("enter the code: ") {
                    return Ok(code.trim().to_owned());
                }
                seen.push(line);
            }
            Err(seen.join("\n"))
        };
        let code = timeout(eventually::DEADLINE, code).await.expect("a code in time").unwrap();
        let http = HttpClient::new(&Env::from_map::<String, String>([]), &Files::in_memory())
            .with_extra_roots(azure.ca_pem().as_bytes())
            .unwrap();
        let address =
            format!("{}{}/oauth2/deviceauth?user_code={code}", azure.authority_host(), azure.tenant());
        assert!(http.get(&address).await.unwrap().is_success());
        let mut rows = String::new();
        let mut stdout = running.stdout.take().unwrap();
        let rest = async { while said.next_line().await.unwrap().is_some() {} };
        let (read, ()) = tokio::join!(stdout.read_to_string(&mut rows), rest);
        read.unwrap();
        assert!(running.wait().await.unwrap().success());
        assert_eq!(rows.trim(), user);

        // The same port, a client that says nothing: it is asked for a password, which `require_auth` refuses.
        let refused = command(&format!("{base} {oauth}")).output().await.unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("cleartext password"), "{said}");
        // And a client of the old way.
        let draft = pgentra_emulator::Draft::of_user(azure.administrator(), crate::fixture::RESOURCE);
        let old = command(&base).env("PGPASSWORD", token(&draft).await).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&old.stdout).trim(), user, "{old:?}");
    });
}
