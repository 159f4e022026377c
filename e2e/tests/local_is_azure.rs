//! The local cloud accepts what Azure accepts, and refuses what Azure refuses.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use e2e::{Cloud, Done, Flavour, Lab, client, have};
use eventually::{DEADLINE, eventually_blocking};

/// A shell on a host of the cloud.
fn on<'a>(lab: &'a Lab, cloud: &Cloud<'_>, host: &str, script: &str) -> Done<'a> {
    lab.shell(script).envs(cloud.env(host)).done()
}

/// The only value that a statement returns, to the administrator.
fn value(lab: &Lab, cloud: &Cloud<'_>, sql: &str) -> String {
    let found = on(lab, cloud, "admin", &format!("pgentra query -o json -c \"{sql}\"")).json();
    found[0]["rows"][0][0].as_str().unwrap().to_owned()
}

fn id(cloud: &Cloud<'_>, kind: &str) -> String {
    cloud.identity(kind)["object_id"].as_str().unwrap().to_owned()
}

const TAKEN: &str =
    "Updating an existing principal isn't supported. Drop and recreate the Microsoft Entra principal.";

#[test]
fn a_principal_with_a_role_is_not_made_an_administrator() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let admin = |script: &str| on(&lab, &cloud, "admin", script);
    let server =
        |words: &str| admin(&format!("pgentra identity server-admin {words} --server mydemoserver -o json"));
    let before = server("list").json();
    assert_eq!(server("add myVm").fault(5, &[TAKEN, "pgentra role drop"]), None);
    assert_eq!(server("list").json(), before);
    assert_eq!(
        value(&lab, &cloud, "SELECT isadmin FROM pgaadauth_list_principals(false) WHERE rolname = 'myVm'"),
        "0"
    );

    // Its role has another name than its own.
    let other = id(&cloud, "user-assigned");
    admin(&format!("pgentra role drop myIdentity --yes && pgentra role create app-rw --object-id {other}"))
        .ok();
    assert_eq!(server("add myIdentity").fault(5, &[TAKEN]), None);
    let mapped = format!("SELECT count(*) FROM pgaadauth_list_principals(false) WHERE objectid = '{other}'");
    assert_eq!(value(&lab, &cloud, &mapped), "1");

    // An administrator that was not added cannot be removed.
    assert_eq!(server("remove myVm").fault(2, &["no administrator"]), None);
    on(&lab, &cloud, "vm", "pgentra query -c 'SELECT current_user'").ok();
    // Dropped and added again, as Azure says.
    admin("pgentra role drop app-rw --yes").ok();
    assert_eq!(server("add myIdentity").json()["kind"], "ServicePrincipal");
    let query = "pgentra query -c 'SELECT pgaadauth_list_principals(true)'";
    on(&lab, &cloud, "aks", query).ok();
    server("remove myIdentity").ok();
    on(&lab, &cloud, "aks", query).fails(5);
    assert_eq!(server("list").json(), before);
}

#[test]
fn a_removed_administrator_is_none_and_can_come_back() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let first = cloud.env("admin")["PGUSER"].clone();
    // The application owns the subscription, and has no part in the database's administration.
    let server = |words: &str| {
        let script = format!("pgentra identity server-admin {words} --server mydemoserver -o json");
        on(&lab, &cloud, "client-secret", &script)
    };
    let is_admin = "pgentra query -c 'SELECT pgaadauth_list_principals(true)'";
    on(&lab, &cloud, "admin", &format!("{is_admin} && pgentra role drop myIdentity --yes")).ok();
    server("add myIdentity").ok();
    server(&format!("remove {first}")).ok();
    let listed = server("list").json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &"myIdentity".into()));
    on(&lab, &cloud, "admin", is_admin).fails(5);
    on(&lab, &cloud, "aks", is_admin).ok();

    server(&format!("add {first}")).ok();
    on(&lab, &cloud, "admin", is_admin).ok();
    // A table keeps the role; it is no administrator any more and belongs to no principal.
    on(&lab, &cloud, "admin", "pgentra query -c 'CREATE TABLE kept (a int)'").ok();
    server(&format!("remove {first}")).ok();
    on(&lab, &cloud, "admin", is_admin).fails(5);
    let left = format!("SELECT rolcanlogin, rolcreaterole FROM pg_roles WHERE rolname = '{first}'");
    let left = on(&lab, &cloud, "aks", &format!("pgentra query -o json -c \"{left}\"")).json();
    assert_eq!(left[0]["rows"][0], serde_json::json!(["f", "f"]));
}

#[test]
fn every_host_goes_on_when_the_clock_has_moved() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let name = cloud.text("/name");
    let query = "pgentra query -c 'SELECT current_user'";
    let hosts = [
        "vm",
        "user-assigned",
        "app-service",
        "aks",
        "aks-binding",
        "service-fabric",
        "azure-ml",
        "github-actions",
        "azure-pipelines",
        "client-secret",
        "client-certificate",
        "admin",
    ];
    for by in ["25h", "1h", "300d"] {
        let moved = lab.pgentra(&["local", "clock", "--name", &name, "--advance", by]).done();
        moved.ok();
        for host in hosts {
            let done = on(&lab, &cloud, host, query);
            done.ok();
            assert!(!done.stderr.contains("clock"), "{host} after {by}: {done:?}");
        }
    }
}

#[test]
fn an_audience_with_a_slash_is_refused_in_both_flavours() {
    for flavour in Flavour::ALL {
        let lab = Lab::new();
        let cloud = lab.cloud(flavour, &[]);
        let resource = "--resource https://ossrdbms-aad.database.windows.net/";
        let query = on(&lab, &cloud, "vm", &format!("pgentra query {resource} -c 'SELECT 1'"));
        assert_eq!(query.fault(5, &["valid audience claim"]), None);
        let doctor = on(&lab, &cloud, "vm", &format!("pgentra doctor {resource}"));
        assert!(!doctor.status.success() && doctor.stdout.contains("with a slash at its end"), "{doctor:?}");
        on(&lab, &cloud, "vm", "pgentra query -c 'SELECT 1'").ok();
    }
}

#[test]
fn a_role_has_the_kind_that_the_directory_says() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let admin = |script: &str| on(&lab, &cloud, "admin", script);
    let (vm, person) = (id(&cloud, "system-assigned"), id(&cloud, "user"));
    for (words, said) in [
        (format!("my-app --object-id {vm} --kind user"), "--kind service"),
        (format!("my-app --object-id {vm} --kind group"), "--kind service"),
        (format!("ada --object-id {person}"), "--kind user"),
    ] {
        assert_eq!(admin(&format!("pgentra role create {words}")).fault(2, &["in the tenant", said]), None);
    }
    let sql = |kind: &str| {
        format!(
            "pgentra query -c \"SELECT pgaadauth_create_principal_with_oid('my-app', '{vm}', '{kind}', false, false)\""
        )
    };
    let text = "incorrect object type provided for principal, given object type: 'user', actual object type: 'service'";
    assert_eq!(admin(&sql("user")).fault(5, &[text, "XX000"]), None);
    admin(&sql("service")).ok();

    // An identity that is created later is in the directory too, by name.
    let path = format!(
        "/subscriptions/{}/resourceGroups/myResourceGroup/providers/Microsoft.ManagedIdentity/userAssignedIdentities/later",
        cloud.text("/subscription_id")
    );
    let script = format!(
        "curl -sSf -o /dev/null --cacert $SSL_CERT_FILE -X PUT -H 'Content-Type: application/json' \
         -H \"Authorization: Bearer $(pgentra token --resource https://management.azure.com)\" \
         -d '{{\"location\":\"westeurope\"}}' '{}{path}?api-version=2024-11-30'",
        cloud.text("/management_url")
    );
    admin(&script).ok();
    let made = "pgentra query -c \"SELECT pgaadauth_create_principal('later', false, false)\"";
    eventually_blocking(DEADLINE, "the database knows who is in the tenant", || admin(made).status.success());
}

#[test]
fn an_administrator_gives_replication_and_it_can_be_used() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let slot = "pgentra query -c \"SELECT pg_create_logical_replication_slot('mine', 'pgoutput')\"";
    let refused = on(&lab, &cloud, "vm", slot);
    assert!(!refused.status.success() && refused.stderr.contains("42501"), "{refused:?}");
    on(&lab, &cloud, "admin", "pgentra query -c 'ALTER ROLE \"myVm\" REPLICATION'").ok();
    on(&lab, &cloud, "vm", slot).ok();
    on(&lab, &cloud, "vm", "pgentra query -c \"SELECT pg_drop_replication_slot('mine')\"").ok();
}

#[test]
fn errors_show_no_function_that_azure_does_not_have() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let sql =
        "select * from pgaadauth_create_principal_with_oid('myuser', 'OBJECT_ID', 'service', false, false);";
    let done = on(&lab, &cloud, "admin", &format!("pgentra psql -- -c \"{sql}\""));
    assert!(done.stderr.contains("is not a GUID") && !done.stderr.contains("pgentra."), "{done:?}");
}

#[test]
fn a_proxy_is_kept_out_of_the_local_cloud() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let name = cloud.text("/name");
    let twice = format!(
        "for i in 1 2; do eval \"$(pgentra local env --name {name})\"; done; echo \"$NO_PROXY $no_proxy\""
    );
    let done = lab.shell(&twice).env("no_proxy", "a.example").env("NO_PROXY", ".b.example,localhost").done();
    let hosts = ".b.example,localhost,a.example,127.0.0.1";
    assert_eq!(done.ok().trim_end(), format!("{hosts} {hosts}"));

    if have(&["python"]) {
        // A proxy on a port without a listener.
        for host in ["vm", "aks"] {
            let python = client("venv/bin/python").to_str().unwrap().to_owned();
            let script = format!("{}/clients/login.py", env!("CARGO_MANIFEST_DIR"));
            let run = lab.program(&[&python, &script, "psycopg", "DefaultAzureCredential"]);
            let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
            let proxies = proxies.map(|name| (name.to_owned(), "http://127.0.0.1:9".to_owned()));
            let role = cloud.env(host)["PGUSER"].clone();
            assert_eq!(run.envs(cloud.env(host)).envs(proxies).done().ok().trim_end(), role, "{host}");
        }
    }
}

#[test]
fn no_page_in_a_browser_is_answered() {
    if !have(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let ask = "curl -s -o /dev/null -w '%{http_code}' -H Metadata:true \"$MSI_ENDPOINT\" \
               --data-urlencode resource=https://ossrdbms-aad.database.windows.net";
    for (header, status) in [
        ("", "200"),
        ("-H 'Host: localhost'", "200"),
        ("-H 'Host: evil.example'", "421"),
        ("-H 'Origin: http://evil.example'", "403"),
        ("-H 'Sec-Fetch-Site: same-site'", "403"),
    ] {
        let done = on(&lab, &cloud, "admin", &format!("{ask} {header}"));
        assert_eq!(done.ok(), status, "{header}");
    }
}
