//! The real Azure CLI against the local cloud, and pgentra through it.
//!
//! It runs if the CLI is installed: `bash e2e/setup.sh azure-cli` installs it, which takes 730 MB
//! and a minute and a half. The test registers the local cloud with the CLI, which reads its
//! endpoints from the local Resource Manager.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use e2e::{Cloud, Flavour, Lab, client, have};
use eventually::{DEADLINE, eventually_blocking, holds};
use serde_json::Value;

/// A shell on a host of a local cloud, with `az`.
struct Shell<'a> {
    lab: &'a Lab,
    variables: BTreeMap<String, String>,
}

impl Shell<'_> {
    fn run(&self, script: &str) -> e2e::Done<'_> {
        self.lab.shell(script).envs(self.variables.clone()).done()
    }

    /// The claims of the token that this command prints in JSON.
    fn read(&self, command: &str) -> Value {
        let python = client("venv/bin/python");
        self.run(&format!("{command} | {} {}", python.display(), own("read_token.py").display())).json()
    }
}

/// The settings with which `az` accepts the local cloud.
struct Setting<'a> {
    lab: &'a Lab,
    cloud: &'a Cloud<'a>,
    /// The folder for the state of `az`, which contains tokens; so it is outside of the lab.
    folder: &'a Path,
    az: &'a Path,
}

impl<'a> Setting<'a> {
    /// Registers the local cloud with the CLI by its Resource Manager.
    fn register(&self, shell: &Shell<'_>) {
        let address = self.cloud.text("/management_url");
        shell
            .run(&format!(
                "az cloud register --name Local --endpoint-resource-manager {address} && az cloud set --name Local"
            ))
            .ok();
    }

    /// A shell in which the application is signed in that owns the subscription, and what the sign-in printed.
    fn subscription_owner(&self) -> (Shell<'a>, Value) {
        let shell = self.shell("client-secret");
        self.register(&shell);
        let login = "az login --service-principal -u $AZURE_CLIENT_ID -p $AZURE_CLIENT_SECRET --tenant $AZURE_TENANT_ID";
        let printed = shell.run(login).json();
        (shell, printed)
    }

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
            ("REQUESTS_CA_BUNDLE", self.cloud.text("/server/sslrootcert")),
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
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let setting = Setting { lab: &lab, cloud: &cloud, folder: folder.path(), az: &az };

    let vm = setting.shell("vm");
    let without_login = vm.run("pgentra token --source azure-cli");
    assert!(without_login.fails(3).contains("az login"), "{without_login:?}");
    setting.register(&vm);

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
        // the platform or `az` caches the token and returns the same one again
        assert_eq!(through["digest"], theirs["digest"], "{host}");
        assert_eq!(ours["digest"] == theirs["digest"], is_cached, "{host}");
        // `az` computes the expiry from each answer, and may lose a second; pgentra takes the
        // earlier of that and the token's own
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

/// The management half of the article by the CLI, at the local Resource Manager and Graph.
#[test]
fn it_manages_identities_and_administrators() {
    let Some(az) = az() else { return };
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let setting = Setting { lab: &lab, cloud: &cloud, folder: folder.path(), az: &az };
    let (shell, login) = setting.subscription_owner();
    assert_eq!(login[0]["id"], cloud.text("/subscription_id"));

    let (vm, own) = (cloud.identity("system-assigned"), cloud.identity("user-assigned"));
    let shown = shell.run("az vm identity show -g myResourceGroup -n myVm").json();
    assert_eq!(shown["principalId"], vm["object_id"]);
    let another = shell.run("az identity create -g myResourceGroup -n another").json();
    let id = another["id"].as_str().unwrap();
    let assigned =
        shell.run(&format!("az vm identity assign -g myResourceGroup -n myVm --identities {id}")).json();
    assert_eq!(assigned["systemAssignedIdentity"], vm["object_id"]);
    let ids = assigned["userAssignedIdentities"].as_object().unwrap();
    assert!(ids.contains_key(id) && ids.contains_key(own["resource_id"].as_str().unwrap()), "{ids:?}");
    let client_id = another["clientId"].as_str().unwrap();
    let token = format!("pgentra whoami -o json --client-id {client_id}");
    assert_eq!(setting.shell("vm").run(&token).json()["claims"]["object_id"], another["principalId"]);

    // pgentra sees the CLI's changes, and the CLI pgentra's
    let admin = setting.shell("admin");
    let seen = admin.run("pgentra identity show --vm myVm -o json").json();
    let mut seen: Vec<_> = seen["user_assigned"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    seen.sort_by_key(|id| id.as_str().map(str::to_owned));
    assert_eq!(seen, [id, own["resource_id"].as_str().unwrap()]);
    shell.run(&format!("az vm identity remove -g myResourceGroup -n myVm --identities [system] {id}")).ok();
    let ours = admin.run("pgentra identity assign --vm myVm -o json").json();
    let theirs = shell.run("az vm identity show -g myResourceGroup -n myVm").json();
    assert_eq!(theirs["principalId"], ours["system_assigned"]["object_id"]);
    assert_ne!(
        theirs["principalId"], vm["object_id"],
        "it is another principal than the one that was removed"
    );
    admin.run("pgentra identity assign --vm myVm --identity another").ok();
    let theirs = shell.run("az vm identity show -g myResourceGroup -n myVm").json();
    let ids = theirs["userAssignedIdentities"].as_object().unwrap();
    assert!(ids.contains_key(id) && ids.contains_key(own["resource_id"].as_str().unwrap()), "{ids:?}");
    assert_eq!(theirs["principalId"], ours["system_assigned"]["object_id"]);

    let article = "az ad sp list --display-name myVm --query '[*].appId' --out tsv";
    let found = admin.run("pgentra identity find myVm -o json").json();
    assert_eq!(shell.run(article).ok().trim(), found[0]["client_id"]);
    let shown = shell.run(&format!("az ad sp show --id {client_id}")).json();
    assert_eq!(shown["id"], another["principalId"]);

    let command = "az postgres flexible-server microsoft-entra-admin";
    let server = "-g myResourceGroup -s mydemoserver";
    let object_id = another["principalId"].as_str().unwrap();
    let administrators = "pgentra identity server-admin list --server mydemoserver -o json";
    shell.run(&format!("{command} create {server} -u another -i {object_id} -t ServicePrincipal")).ok();
    let listed = shell.run(&format!("{command} list {server}")).json();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(admin.run(administrators).json()[1]["object_id"], object_id);
    // the database has the administrators of Resource Manager
    let query = "pgentra query -U another -o json -c \"SELECT pg_has_role('azure_pg_admin', 'member')\"";
    let rows = setting.shell("vm").run(&format!("{query} --client-id {client_id}")).json();
    assert_eq!(rows[0]["rows"][0][0], "t");
    shell.run(&format!("{command} delete --yes {server} -i {object_id}")).ok();
    assert_eq!(shell.run(&format!("{command} list {server}")).json().as_array().unwrap().len(), 1);
    setting.shell("vm").run(&format!("{query} --client-id {client_id}")).fails(5);
}

/// Group sync, switched on as the article of Microsoft's does.
#[test]
fn groups_are_synchronised_by_the_clock() {
    let Some(az) = az() else { return };
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let setting = Setting { lab: &lab, cloud: &cloud, folder: folder.path(), az: &az };
    let shell = setting.subscription_owner().0;
    let parameter = |words: &str| {
        let server = "-g myResourceGroup -s mydemoserver --name pgaadauth.enable_group_sync";
        shell.run(&format!("az postgres flexible-server parameter {words} {server}")).json()["value"].clone()
    };
    assert_eq!(parameter("show"), "off");
    let admin = setting.shell("admin");
    let query = |sql: &str| admin.run(&format!("pgentra query -o json -c \"{sql}\""));
    admin.run("pgentra local group add staff && pgentra local identity add my-job").ok();
    admin.run("pgentra local group add-member staff my-job").ok();
    eventually_blocking(DEADLINE, "PostgreSQL knows the group", || {
        let done = query("SELECT pgaadauth_create_principal('staff', false, false)");
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });
    let count = "SELECT count(*) FROM pg_roles WHERE rolname = 'my-job'";
    let roles = || query(count).json()[0]["rows"][0][0].clone();
    assert_eq!(parameter("set --value ON"), "on");
    assert_eq!(parameter("show"), "on");
    assert_eq!(roles(), "0", "not before half an hour has passed");
    admin.run("pgentra local clock --advance 31m").ok();
    eventually_blocking(DEADLINE, "the member has a role", || holds(roles(), |count| count == "1"));
    let client = admin.run("pgentra local identity list -o json").json()[1]["client_id"].clone();
    let me =
        format!("pgentra query --client-id {} -U my-job -c 'SELECT current_user'", client.as_str().unwrap());
    assert!(setting.shell("vm").run(&me).ok().contains("my-job"));
}

/// The article of Microsoft's, as a person: sign in by device code, make a role, connect.
#[test]
fn a_person_signs_in_by_device_code() {
    let Some(az) = az() else { return };
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let setting = Setting { lab: &lab, cloud: &cloud, folder: folder.path(), az: &az };
    let shell = setting.shell("admin");
    setting.register(&shell);
    // The person opens the address in another window.
    let login = "az login --use-device-code --tenant $AZURE_TENANT_ID >$HOME/login.json 2>$HOME/said & LOGIN=$!; \
                 until grep -q user_code $HOME/said; do kill -0 $LOGIN; done; \
                 curl -s --cacert $SSL_CERT_FILE $(grep -o 'https://[^ ]*user_code=[A-Z0-9]*' $HOME/said); \
                 wait $LOGIN || { cat $HOME/said >&2; exit 1; }";
    let said = shell.run(&login.replace("$AZURE_TENANT_ID", &cloud.text("/tenant_id"))).ok().to_owned();
    let administrator = cloud.env("admin")["PGUSER"].clone();
    assert!(said.contains(&administrator), "{said}");
    assert_eq!(shell.run("az account show").json()["user"]["name"], administrator);
    let me = shell.run("az ad signed-in-user show").json();
    assert_eq!(me["userPrincipalName"], administrator);
    assert_eq!(shell.run("az vm list -g myResourceGroup --query '[0].name'").json(), "myVm");
    let token = "az account get-access-token --resource-type oss-rdbms --query accessToken -o tsv";
    let psql = format!("PGPASSWORD=$({token}) psql -Atc 'SELECT current_user'");
    assert_eq!(shell.run(&psql).ok().trim(), administrator);
}

/// `examples/article.sh`, under the names of Azure: no command in it knows of a local cloud.
#[test]
fn the_article_from_the_sign_in_to_the_query() {
    let Some(az) = az() else { return };
    if !have(&["psql", "curl", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/article.sh");
    // The person opens the address in a browser of the machine, outside of the namespaces.
    let play = "pgentra local run --name $1 -- bash $2 >$HOME/printed 2>$HOME/said & ARTICLE=$!; \
                until grep -q user_code $HOME/said; do kill -0 $ARTICLE || { cat $HOME/said >&2; exit 1; }; done; \
                curl -sS --cacert $3 $(grep -o 'https://[^ ]*user_code=[A-Z0-9]*' $HOME/said) >&2; \
                wait $ARTICLE || { cat $HOME/said >&2; exit 1; }; cat $HOME/printed";
    let (name, trust) = (cloud.text("/name"), cloud.text("/server/sslrootcert"));
    let words = ["bash", "-euc", play, "play", &name, script.to_str().unwrap(), &trust];
    let programs = format!(
        "{}:{}:/usr/local/bin:/usr/bin:/bin",
        lab.path().join("bin").display(),
        az.parent().unwrap().display()
    );
    let done = lab.program(&words).env("PATH", programs).within(300).done();
    let rows: Vec<&str> = done.ok().lines().map(str::trim).collect();
    assert!(rows.contains(&"Created role for \"my-app\"") && rows.contains(&"my-app"), "{done:?}");
    let roles = "SELECT principaltype FROM pgaadauth_list_principals(false) WHERE rolname = 'my-app'";
    let listed = lab.pgentra(&["query", "-o", "json", "-c", roles]).envs(cloud.env("admin")).done();
    assert_eq!(listed.json()[0]["rows"][0][0], "service");
}

/// Users, groups and applications by the CLI: what `pgentra local` lists, tokens say, and roles are made for.
#[test]
fn it_manages_users_groups_and_applications() {
    let Some(az) = az() else { return };
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let setting = Setting { lab: &lab, cloud: &cloud, folder: folder.path(), az: &az };
    let shell = setting.subscription_owner().0;
    let admin = setting.shell("admin");
    let az = |words: &str| shell.run(&format!("az ad {words}"));
    let id = |object: &Value| object["id"].as_str().unwrap().to_owned();

    let group = az("group create --display-name developers --mail-nickname developers").json();
    let again = az("group create --display-name developers --mail-nickname developers").json();
    assert_eq!(id(&group), id(&again), "the CLI finds the group that there is");
    let listed = az("group list --display-name dev --query [].displayName").json();
    assert_eq!(listed, serde_json::json!(["developers"]));
    assert_eq!(id(&az("group show -g developers").json()), id(&group));

    let domain = cloud.env("admin")["PGUSER"].split_once('@').unwrap().1.to_owned();
    let ada = format!("ada@{domain}");
    let user = format!("user create --display-name 'Ada Lovelace' --user-principal-name {ada} --password");
    let ada_id = id(&az(&format!("{user} 'A b1-{domain}'")).json());
    let said = az(&format!("{user} 'A b1-{domain}'"));
    assert!(said.stderr.contains("userPrincipalName already exists") && !said.status.success(), "{said:?}");
    assert_eq!(id(&az(&format!("user show --id {ada}")).json()), ada_id);
    assert_eq!(az(&format!("user list --upn {ada} --query [].id")).json()[0], *ada_id);

    // An application whose secret is the CLI's, and a managed identity.
    let app = az("app create --display-name nightly").json();
    let client = app["appId"].as_str().unwrap();
    let principal = az(&format!("sp create --id {client}")).json();
    assert_eq!(principal["servicePrincipalType"], "Application");
    let identity = shell.run("az identity create -g myResourceGroup -n worker").json();
    let members = [ada_id.clone(), id(&principal), identity["principalId"].as_str().unwrap().to_owned()];
    for member in &members {
        az(&format!("group member add -g developers --member-id {member}")).ok();
        let check = az(&format!("group member check -g developers --member-id {member} --query value"));
        assert_eq!(check.json(), true);
    }
    let twice = az(&format!("group member add -g developers --member-id {ada_id}"));
    assert!(
        !twice.status.success() && twice.stderr.contains("One or more added object references already exist"),
        "{twice:?}"
    );
    let shown = az("group member list -g developers --query [].id").json();
    assert!(
        members.iter().all(|one| shown.as_array().unwrap().contains(&Value::from(one.as_str()))),
        "{shown}"
    );

    // One store: `pgentra local` shows what the CLI made, and the CLI what `pgentra local` changes.
    let local = |words: &str| admin.run(&format!("pgentra local {words} -o json")).json();
    let names = |listed: Value| -> Vec<String> {
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(local("group members developers")), ["nightly", "worker", &ada]);
    local("group remove-member developers worker");
    let shown = az("group member list -g developers --query 'length(@)'").json();
    assert_eq!(shown, 2);
    az(&format!("group member remove -g developers --member-id {ada_id}")).ok();
    assert_eq!(names(local("group members developers")), ["nightly"]);

    // The application signs in, with a secret that the CLI made.
    eventually_blocking(DEADLINE, "PostgreSQL knows the application", || {
        let sql = "SELECT pgaadauth_create_principal('nightly', false, false)";
        let done = admin.run(&format!("pgentra query -o json -c \"{sql}\""));
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });
    let reset = "az ad app credential reset --display-name test --query password -o tsv --id";
    let signed_in = shell.run(&format!(
        "AZURE_CLIENT_SECRET=$({reset} {client} 2>/dev/null) AZURE_CLIENT_ID={client} \
         pgentra query -U nightly -o json -c 'SELECT current_user'"
    ));
    assert_eq!(signed_in.json()[0]["rows"][0][0], "nightly");
    let secrets = az(&format!("app credential list --id {client}")).json();
    assert_eq!((&secrets[0]["displayName"], &secrets[0]["secretText"]), (&Value::from("test"), &Value::Null));
    let federated = "{\"name\":\"main\",\"issuer\":\"https://issuer.example\",\"subject\":\"s\",\"audiences\":[\"api://AzureADTokenExchange\"]}";
    az(&format!("app federated-credential create --id {client} --parameters '{federated}'")).ok();
    assert_eq!(az(&format!("app federated-credential list --id {client}")).json()[0]["subject"], "s");

    let scope = format!("/subscriptions/{}/resourceGroups/myResourceGroup", cloud.text("/subscription_id"));
    let made =
        az(&format!("sp create-for-rbac --name rbac --role Reader --scopes {scope} --query 'keys(@)'"));
    assert_eq!(made.json(), serde_json::json!(["appId", "password", "displayName", "tenant"]));
    let assigned = shell.run("az role assignment list --all --query '[].[roleDefinitionName, scope]'").json();
    assert_eq!(assigned, serde_json::json!([["Reader", scope]]));

    az(&format!("sp delete --id {}", id(&principal))).ok();
    az(&format!("app delete --id {client}")).ok();
    az(&format!("user delete --id {ada}")).ok();
    az("group delete -g developers").ok();
    assert!(
        !names(local("user list")).contains(&ada)
            && !names(local("group list")).contains(&"developers".to_owned())
    );
    let gone = az("group show -g developers");
    assert!(!gone.status.success(), "{gone:?}");
}

/// Identities of other hosts by the CLI, and what `pgentra grant` gave read back by the CLI.
#[test]
fn it_assigns_identities_to_every_host() {
    let Some(az) = az() else { return };
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let setting = Setting { lab: &lab, cloud: &cloud, folder: folder.path(), az: &az };
    let shell = setting.subscription_owner().0;
    let admin = setting.shell("admin");
    let granted = |host: &str| admin.run(&format!("pgentra grant {host} --yes -o json")).json();
    let named = cloud.identity("user-assigned");
    let id = named["resource_id"].as_str().unwrap();

    // What the CLI assigns, pgentra sees; what pgentra grants, the CLI shows.
    for (words, host) in [
        ("webapp", "myWebApp"),
        ("functionapp", "myFunctionApp"),
        ("vmss", "myScaleSet"),
        ("containerapp", "myContainerApp"),
    ] {
        let named_one = if words == "containerapp" { "--user-assigned" } else { "--identities" };
        let assigned = shell.run(&format!(
            "az {words} identity assign -g myResourceGroup -n {host} {named_one} {id} >/dev/null && az {words} identity show -g myResourceGroup -n {host}"
        ));
        let ids = assigned.json()["userAssignedIdentities"].clone();
        assert!(ids.as_object().unwrap().contains_key(id), "{words}: {ids}");
        let seen = admin.run(&format!("pgentra identity show {words}/{host} -o json")).json();
        assert_eq!(seen["user_assigned"][0]["object_id"], named["object_id"], "{words}");

        let granted = granted(&format!("{words}/{host} --role {words}"));
        assert_eq!(granted["assigned"], true, "{words}: its own beside the other");
        let theirs = shell.run(&format!("az {words} identity show -g myResourceGroup -n {host}")).json();
        assert_eq!(theirs["principalId"], granted["object_id"], "{words}");
        assert_eq!(theirs["type"].as_str().unwrap().replace(' ', ""), "SystemAssigned,UserAssigned");
        admin.run(&format!("pgentra revoke {words}/{host} --role {words} --unassign --yes")).ok();
        let theirs = shell.run(&format!("az {words} identity show -g myResourceGroup -n {host}")).json();
        assert_eq!(theirs["type"], "UserAssigned", "{words}");
    }

    // The federated credential of a service account.
    shell.run("az identity create -g myResourceGroup -n another").ok();
    let command = "az identity federated-credential";
    let place = "--identity-name another -g myResourceGroup";
    let issuer = "$(az aks show -g myResourceGroup -n myCluster --query oidcIssuerProfile.issuerUrl -o tsv)";
    let made = shell.run(&format!(
        "{command} create --name by-hand {place} --issuer {issuer} --subject system:serviceaccount:default:my-service-account --audiences api://AzureADTokenExchange"
    ));
    assert_eq!(made.json()["subject"], "system:serviceaccount:default:my-service-account");
    let aks = "aks/myCluster/default/my-service-account --identity another --role another";
    let first = granted(aks);
    assert_eq!((&first["assigned"], &first["created"]), (&Value::Bool(false), &Value::Bool(true)));
    let mut pod = setting.shell("aks");
    pod.variables.insert("AZURE_CLIENT_ID".to_owned(), first["client_id"].as_str().unwrap().to_owned());
    let query = "pgentra query -U another -o json -c 'SELECT current_user'";
    assert_eq!(pod.run(query).json()[0]["rows"][0][0], "another");
    shell.run(&format!("{command} delete --yes --name by-hand {place}")).ok();
    assert_eq!(granted(aks)["assigned"], true);
    let listed = shell.run(&format!("{command} list {place}")).json();
    assert_eq!(listed[0]["name"], "pgentra-aks-myCluster-default-my-service-account");
    admin.run(&format!("pgentra revoke {aks} --yes")).ok();
    assert_eq!(shell.run(&format!("{command} list {place}")).json(), Value::Array(Vec::new()));
    let servers = shell.run("az resource show -g myResourceGroup -n branchServer --resource-type Microsoft.HybridCompute/machines --api-version 2024-07-10");
    let server = granted("arc/branchServer --role server");
    assert_eq!(servers.json()["identity"]["principalId"], server["object_id"]);
}
