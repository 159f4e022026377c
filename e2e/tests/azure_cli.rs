//! The real Azure CLI against the local cloud, and pgentra through it.
//!
//! It runs where the CLI is: `bash e2e/setup.sh azure-cli` installs it, which takes 730 MB and a minute and a half. The
//! CLI knows one cloud more then, whose authority is the local one. It asks the cloud's Resource Manager which
//! subscriptions there are; the one here has none.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{Cloud, Flavour, Lab, client, have};
use serde_json::Value;

/// A Resource Manager without subscriptions; ends when it is dropped.
struct ResourceManager {
    process: Child,
    port: String,
}

impl ResourceManager {
    fn new(certificate: &Path) -> ResourceManager {
        let mut process = Command::new(client("venv/bin/python"))
            .arg(own("resource_manager.py"))
            .arg(certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        ResourceManager { process, port: port.trim().to_owned() }
    }
}

impl Drop for ResourceManager {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A shell on a host of a local cloud, with `az`.
struct Shell<'a> {
    lab: &'a Lab,
    variables: BTreeMap<String, String>,
}

impl Shell<'_> {
    fn run(&self, script: &str) -> e2e::Done<'_> {
        self.lab.shell(script).envs(self.variables.clone()).done()
    }

    /// What the token says that this command prints in JSON.
    fn read(&self, command: &str) -> Value {
        let python = client("venv/bin/python");
        self.run(&format!("{command} | {} {}", python.display(), own("read_token.py").display())).json()
    }
}

/// All that `az` needs to take the local cloud for a cloud.
struct Setting<'a> {
    lab: &'a Lab,
    cloud: &'a Cloud<'a>,
    /// Where `az` keeps what it knows, tokens included; so it is no folder of the lab.
    folder: &'a Path,
    az: &'a Path,
}

impl<'a> Setting<'a> {
    fn shell(&self, host: &str) -> Shell<'a> {
        let mut variables = self.cloud.env(host);
        let path = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let programs = format!(
            "{}:{}:/usr/local/bin:/usr/bin:/bin",
            path(self.lab.path().join("bin")),
            path(self.az.parent().unwrap().to_owned())
        );
        for (name, value) in [
            ("PATH", programs),
            ("AZURE_CONFIG_DIR", path(self.folder.join("config"))),
            ("REQUESTS_CA_BUNDLE", path(self.folder.join("trusted.pem"))),
            // else MSAL asks login.microsoftonline.com whether there is such an authority
            ("AZURE_CORE_INSTANCE_DISCOVERY", "false".to_owned()),
            ("AZURE_CORE_COLLECT_TELEMETRY", "false".to_owned()),
            ("AZURE_CORE_OUTPUT", "json".to_owned()),
        ] {
            variables.insert(name.to_owned(), value);
        }
        Shell { lab: self.lab, variables }
    }
}

fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// The CLI, if it is here.
fn az() -> Option<PathBuf> {
    let found = [client("azure-cli/bin/az"), "/usr/local/bin/az".into(), "/usr/bin/az".into()];
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "e2e: SKIPPED the Azure CLI, which is not here: bash e2e/setup.sh azure-cli"
        );
    }
    found
}

#[test]
fn it_agrees() {
    let Some(az) = az() else { return };
    if !have(&["python"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let manager = ResourceManager::new(&folder.path().join("manager.pem"));
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let trusted = [folder.path().join("manager.pem"), cloud.text("/server/sslrootcert").into()];
    let trusted: String = trusted.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    fs::write(folder.path().join("trusted.pem"), trusted).unwrap();
    let setting = Setting { lab: &lab, cloud: &cloud, folder: folder.path(), az: &az };

    let vm = setting.shell("vm");
    let nobody = vm.run("pgentra token --source azure-cli");
    assert!(nobody.fails(3).contains("az login"), "{nobody:?}");
    let (authority, port) = (cloud.text("/authority_host"), &manager.port);
    vm.run(&format!(
        "az cloud register --name Local --skip-endpoint-discovery \
         --endpoint-active-directory {} --endpoint-resource-manager https://localhost:{port}/ \
         --endpoint-active-directory-resource-id https://management.core.windows.net/ \
         && az cloud set --name Local",
        authority.trim_end_matches('/')
    ))
    .ok();

    let named = cloud.identity("user-assigned");
    let client_id = named["client_id"].as_str().unwrap();
    let federated = "az login --service-principal --allow-no-subscriptions --username $AZURE_CLIENT_ID \
         --tenant $AZURE_TENANT_ID --federated-token \"$(cat $AZURE_FEDERATED_TOKEN_FILE)\"";
    for (host, login, identity, is_cached) in [
        ("vm", "az login --identity --allow-no-subscriptions", cloud.identity("system-assigned"), true),
        (
            "user-assigned",
            &format!("az login --identity --allow-no-subscriptions --client-id {client_id}"),
            named,
            true,
        ),
        ("aks", federated, named, false),
    ] {
        let shell = setting.shell(host);
        shell.run(login).ok();
        let theirs =
            shell.read("az account get-access-token --resource https://ossrdbms-aad.database.windows.net");
        let through = shell.read("pgentra token -o json --source azure-cli");
        let ours = shell.read("pgentra token -o json");
        for who in [&theirs, &through, &ours] {
            for field in ["object_id", "client_id"] {
                assert_eq!(who[field], identity[field], "{host}: {who}");
            }
            assert_eq!(who["tenant_id"], cloud.text("/tenant_id"), "{host}");
        }
        // whoever keeps it, the platform or `az`, gives out the same token again
        assert_eq!(through["digest"], theirs["digest"], "{host}");
        assert_eq!(ours["digest"] == theirs["digest"], is_cached, "{host}");
        // `az` counts anew from each answer, and may lose a second; pgentra takes the earlier of that and the token's own
        for who in [&theirs, &through] {
            let (said, end) = (who["expires_on"].as_i64().unwrap(), who["expires"].as_i64().unwrap());
            assert!((end - 5..=end + 5).contains(&said), "{host}: {who}");
            assert!(who == &theirs || said <= end, "{host}: {who}");
        }
        assert_eq!(ours["expires_on"], ours["expires"], "{host}");
        let query = "pgentra query --source azure-cli -o json -c 'SELECT current_user'";
        assert_eq!(shell.run(query).json()[0]["rows"][0][0], identity["role"], "{host}");
    }
}
