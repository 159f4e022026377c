//! The article's own commands against `pgentra local up`.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use e2e::{Cloud, Flavour, Lab, Namespace, RESOURCE, have};

/// The article's way to a token, at `address`.
fn curl(address: &str, client_id: &str) -> String {
    format!(
        "curl '{address}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={RESOURCE}&client_id={client_id}' -H Metadata:true | jq -r .access_token"
    )
}

/// The article's way to a role, in each product's words; the administrator types it into psql.
fn create_role(flavour: Flavour, cloud: &Cloud<'_>) -> String {
    let vm = cloud.identity("system-assigned");
    match flavour {
        Flavour::Flexible => format!(
            "select * from pgaadauth_create_principal_with_oid('myuser', '{}', 'service', false, false);\n",
            vm["object_id"].as_str().unwrap()
        ),
        Flavour::Single => format!(
            "SET aad_validate_oids_in_tenant = off;\nCREATE ROLE myuser WITH LOGIN PASSWORD '{}' IN ROLE azure_ad_user;\n",
            vm["client_id"].as_str().unwrap()
        ),
    }
}

/// Runs the article's commands in `lab`, where the metadata service has this address.
fn play(lab: &Lab, cloud: &Cloud<'_>, flavour: Flavour, address: &str) {
    let client_id = cloud.identity("system-assigned")["client_id"].as_str().unwrap().to_owned();
    let created = lab.pgentra(&["psql"]).envs(cloud.env("admin")).input(&create_role(flavour, cloud)).done();
    assert!(!created.ok().contains("ERROR") && !created.stderr.contains("ERROR"), "{created:?}");

    let token = lab.shell(&curl(address, &client_id)).token();
    let sign_in = |user: &str| {
        let mut libpq = cloud.env("vm");
        libpq.retain(|name, _| ["PGPORT", "PGSSLMODE", "PGSSLROOTCERT"].contains(&name.as_str()));
        assert_eq!(libpq["PGSSLMODE"], "verify-full");
        let script = format!(
            "export PGPASSWORD=$({})\npsql -h localhost --user {user} postgres -v ON_ERROR_STOP=1 -tA",
            curl(address, &client_id)
        );
        lab.shell(&script).envs(libpq).input("select current_user; select version();").done()
    };
    let users: &[&str] = match flavour {
        Flavour::Flexible => &["myuser"],
        Flavour::Single => &["myuser", "myuser@mydemoserver"],
    };
    for user in users {
        let signed_in = sign_in(user);
        let lines: Vec<&str> = signed_in.ok().lines().collect();
        assert_eq!(lines[0], "myuser", "{signed_in:?}");
        assert!(lines[1].starts_with("PostgreSQL "), "{signed_in:?}");
    }
    // this token is not valid for the role of another identity
    let refused = sign_in("myIdentity");
    assert!(!refused.status.success() && refused.stderr.contains("FATAL:"), "{refused:?}");
    // the server sees the role only: the token is not in the list of sessions
    lab.remember(&token);
}

fn at_the_emulators_address(flavour: Flavour) {
    if !have(&["curl", "jq", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(flavour, &[]);
    let address = cloud.text("/metadata_url");
    play(&lab, &cloud, flavour, &address);
}

#[test]
fn on_flexible_server() {
    at_the_emulators_address(Flavour::Flexible);
}

#[test]
fn on_single_server() {
    at_the_emulators_address(Flavour::Single);
}

/// With the article's own address, and no variable that names another.
fn at_the_true_address(flavour: Flavour) {
    if !have(&["curl", "jq", "psql", "ip", "netns"]) {
        return;
    }
    let namespace = Namespace::new(&flavour.to_string());
    // The metadata service's true address.
    namespace.ip(&["address", "add", "169.254.169.254/32", "dev", "lo"]);
    let lab = namespace.lab();
    let cloud = lab.cloud(flavour, &["--link-local"]);
    play(&lab, &cloud, flavour, "http://169.254.169.254");

    // SDKs use the true address unless a variable names another.
    let name = cloud.text("/name");
    for host in ["vm", "user-assigned"] {
        let set = lab.pgentra(&["local", "env", "--name", &name, "--host", host]).done();
        assert!(set.ok().lines().any(|line| line == "unset AZURE_POD_IDENTITY_AUTHORITY_HOST"), "{set:?}");
        assert!(
            set.stdout.contains("169.254.169.254") && !set.stdout.contains("export AZURE_POD"),
            "{set:?}"
        );
    }

    let mut nothing_of_azure = cloud.env("vm");
    nothing_of_azure.retain(|name, _| name.starts_with("PG"));
    lab.pgentra(&["token"]).token();
    let asked = lab
        .pgentra(&["query", "-c", "SELECT current_user", "-o", "json"])
        .envs(nothing_of_azure)
        .done()
        .json();
    assert_eq!(asked[0]["rows"][0][0], "myVm", "{asked}");
}

#[test]
fn on_flexible_server_at_the_true_address() {
    at_the_true_address(Flavour::Flexible);
}

#[test]
fn on_single_server_at_the_true_address() {
    at_the_true_address(Flavour::Single);
}
