//! `pgentra local run`: programs that know nothing of a local cloud find themselves on Azure.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Child;

use e2e::{Cloud, Done, Flavour, Lab, User, client, example, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Pid, Signal, kill_process};

/// The hosts of the article's program, and the role that it signs in as on each.
const HOSTS: [(&str, &str); 7] = [
    ("vm", "myVm"),
    ("user-assigned", "myIdentity"),
    ("app-service", "myVm"),
    ("aks", "myIdentity"),
    ("service-fabric", "myVm"),
    ("client-secret", "myApp"),
    ("client-certificate", "myApp"),
];
const SERVER: &str = "host=mydemoserver.postgres.database.azure.com dbname=postgres";

/// Runs a program on a host, with no variable of the local cloud.
fn run<'lab>(lab: &'lab Lab, cloud: &Cloud<'_>, options: &[&str], program: &[&str]) -> Done<'lab> {
    lab.pgentra(&words(&cloud.text("/name"), options, program)).within(180).done()
}

fn words<'a>(name: &'a str, options: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
    [&["local", "run", "--name", name], options, &["--"], program].concat()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn own(name: &str) -> String {
    text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/on_azure").join(name))
}

/// The article's program, on each of its hosts.
fn signs_in(program: &[&str], hosts: &[(&str, &str)]) {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    for (host, role) in hosts {
        let done = run(&lab, &cloud, &["--host", host], &[program, &[role]].concat());
        assert_eq!(done.ok(), format!("{role}\n"), "{host}");
    }
}

#[test]
fn the_program_in_python_signs_in() {
    if have(&["python"]) {
        signs_in(&[&text(&client("venv/bin/python")), &own("program.py")], &HOSTS);
    }
}

#[test]
fn the_program_in_javascript_signs_in() {
    if have(&["node"]) {
        let packages = format!("NODE_PATH={}", text(&client("node_modules")));
        signs_in(&["env", &packages, &text(&client("venv/bin/node")), &own("program.cjs")], &HOSTS);
    }
}

#[test]
fn the_program_in_go_signs_in() {
    if have(&["go-program"]) {
        signs_in(&[&text(&client("bin/on_azure"))], &HOSTS);
    }
}

/// What azurerm and azuread create, read, change and delete, with the libraries of these providers of Terraform.
#[test]
fn terraforms_calls_are_answered() {
    if !have(&["terraform-calls"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let administrator = cloud.env("admin")["PGUSER"].clone();
    let domain = administrator.split_once('@').unwrap().1;
    let program = text(&client("bin/terraform_calls"));
    let words = [&*program, &cloud.text("/subscription_id"), domain];
    let done = run(&lab, &cloud, &["--host", "client-secret"], &words);
    assert!(
        done.ok().lines().count() == 14 && done.stdout.lines().all(|line| line.ends_with(": ok")),
        "{done:?}"
    );
    let left = lab.pgentra(&["local", "group", "list", "--name", &cloud.text("/name"), "-o", "json"]);
    assert_eq!(left.done().json().as_array().unwrap().len(), 1, "all that it made is gone");
}

#[test]
fn the_program_in_java_signs_in() {
    if have(&["java-program"]) {
        let jars = format!("{}/*", text(&client("jars")));
        // Its SDK does not pin the thumbprint of Service Fabric, and trusts the certificate.
        signs_in(&["java", "-cp", &jars, &own("java/Program.java")], &HOSTS);
    }
}

#[test]
fn the_program_in_rust_signs_in() {
    signs_in(&[&text(&example("pgentra-connect", "on_azure"))], &HOSTS);
}

/// As an ordinary user: the commands of the article, with a certificate that is verified.
#[test]
fn an_ordinary_user_types_the_commands_of_the_article() {
    if !have(&["psql", "curl", "jq", "setpriv"]) {
        return;
    }
    let lab = Lab::of(User::Ordinary);
    let cloud = lab.cloud(Flavour::Single, &[]);
    let script = "export PGPASSWORD=$(curl -sS 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fossrdbms-aad.database.windows.net' -H Metadata:true | jq -r .access_token)
        psql \"$1 user=myVm@mydemoserver sslmode=verify-full sslrootcert=/etc/ssl/certs/ca-certificates.crt\" -Atc 'SELECT current_user'
        id -u";
    let done = run(&lab, &cloud, &[], &["bash", "-euc", script, "script", SERVER]);
    let user = if rustix::process::geteuid().is_root() { 65534 } else { rustix::process::geteuid().as_raw() };
    assert_eq!(done.ok(), format!("myVm\n{user}\n"), "{done:?}");
    // No privilege is left, and no way to the machine's network.
    let done =
        run(&lab, &cloud, &[], &["bash", "-c", "mount -t tmpfs none /mnt || curl -m 5 http://192.0.2.1/"]);
    assert!(!done.status.success(), "{done:?}");
    // The files of the namespace can be read by every user, whatever the mask of this one is.
    let name = cloud.text("/name");
    let script = format!("umask 077; pgentra local run --name {name} -- stat -c %a /etc/hosts");
    assert_eq!(lab.program(&["bash", "-euc", &script]).done().ok(), "644\n");
    // The same in pgentra's own words.
    let own = ["pgentra", "query", "-d", SERVER, "-U", "myApp@mydemoserver", "-c", "SELECT 1"];
    run(&lab, &cloud, &["--host", "client-secret"], &own).ok();
}

/// The names lead to the services that have them on Azure, and answers have those names.
#[test]
fn each_service_has_its_own_name() {
    if !have(&["curl", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let on = |host: &str, script: &str| run(&lab, &cloud, &["--host", host], &["bash", "-euc", script]);
    let discovery = on("aks", "curl -sS 'https://login.microsoftonline.com/common/discovery/instance?api-version=1.1&authorization_endpoint=https://login.microsoftonline.com/common/oauth2/v2.0/authorize'").json();
    assert_eq!(discovery["metadata"][0]["aliases"][3], "sts.windows.net", "{discovery}");
    let configuration =
        on("aks", "curl -sS https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration")
            .json();
    let tenant = cloud.text("/tenant_id");
    for (member, rest) in
        [("issuer", "v2.0"), ("token_endpoint", "oauth2/v2.0/token"), ("jwks_uri", "discovery/v2.0/keys")]
    {
        assert_eq!(configuration[member], format!("https://login.microsoftonline.com/{tenant}/{rest}"));
    }
    let keys =
        on("aks", &format!("curl -sS https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys")).json();
    assert_eq!(keys["keys"][0]["issuer"], configuration["issuer"]);
    // The administrator asks Graph and Resource Manager.
    let script = "token() { curl -sS \"$MSI_ENDPOINT\" -H Metadata:true -d \"resource=$1\" | jq -r .access_token; }
        curl -sS https://graph.microsoft.com/v1.0/users -H \"Authorization: Bearer $(token https://graph.microsoft.com)\"
        curl -sS \"https://management.azure.com/subscriptions/$1/resourceGroups/myResourceGroup/providers/Microsoft.DBforPostgreSQL/flexibleServers/mydemoserver?api-version=2025-08-01\" \\
            -H \"Authorization: Bearer $(token https://management.azure.com)\"";
    let subscription = cloud.text("/subscription_id");
    let done = run(&lab, &cloud, &["--host", "admin"], &["bash", "-euc", script, "script", &subscription]);
    let (users, server) = done.ok().split_at(done.stdout.find("}{").unwrap() + 1);
    let [users, server]: [serde_json::Value; 2] =
        [users, server].map(|text| serde_json::from_str(text).unwrap());
    assert_eq!(users["@odata.context"], "https://graph.microsoft.com/v1.0/$metadata#users");
    let host = &server["properties"]["fullyQualifiedDomainName"];
    assert_eq!(host, "mydemoserver.postgres.database.azure.com", "{server}");
    // An application with a secret is not on a machine of Azure.
    assert!(
        on("client-secret", "curl -sS -m 5 http://169.254.169.254/ 2>&1 || exit 9").status.code() == Some(9)
    );
}

/// Only the variables of the host, and those that name trusted certificates.
#[test]
fn the_variables_are_those_of_the_host() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let trust = ["JAVA_TOOL_OPTIONS", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"];
    for (host, own) in [
        ("vm", &[][..]),
        ("user-assigned", &["AZURE_CLIENT_ID"]),
        ("app-service", &["IDENTITY_ENDPOINT", "IDENTITY_HEADER"]),
        (
            "aks",
            &["AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID"],
        ),
        ("client-secret", &["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"]),
    ] {
        // Also from a shell that is set up for another host, and behind a proxy.
        let name = cloud.text("/name");
        let done = lab
            .pgentra(&words(&name, &["--host", host], &["env", "-0"]))
            .envs(cloud.env("github-actions"))
            .env("HTTPS_PROXY", "http://proxy.example:3128")
            .env("JAVA_TOOL_OPTIONS", format!("-Xmx64m {}", cloud.env("vm")["JAVA_TOOL_OPTIONS"]))
            .done();
        let names = |text: &str| -> Vec<String> {
            let names = text.split('\0').filter_map(|line| line.split_once('=')).map(|it| it.0.to_owned());
            let standing = ["PATH", "HOME", "TMPDIR", "LANG", "RUST_BACKTRACE"];
            let mut names: Vec<_> = names.filter(|name| !standing.contains(&name.as_str())).collect();
            names.sort();
            names
        };
        let mut expected = [own, &trust].concat();
        expected.sort_unstable();
        assert_eq!(names(done.ok()), expected, "{host}");
        assert!(done.stdout.contains("JAVA_TOOL_OPTIONS=-Xmx64m -D"), "{host}");
        assert_eq!(done.stdout.matches("trustStore=").count(), 1, "{host}");
    }
}

#[test]
fn exit_code_and_signals_are_those_of_the_program() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    assert_eq!(run(&lab, &cloud, &[], &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&lab, &cloud, &[], &["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    assert_eq!(
        run(&lab, &cloud, &[], &["no-such-program"]).fault(2, &["cannot run `no-such-program`"]),
        None
    );
    assert_eq!(
        lab.pgentra(&words("nowhere", &[], &["true"])).done().fault(2, &["no local cloud `nowhere` runs"]),
        None
    );
    let arc = run(&lab, &cloud, &["--host", "azure-arc"], &["true"]);
    assert_eq!(arc.fault(2, &["no host `azure-arc`"]), None);

    for (signal, number) in [(Signal::TERM, 15), (Signal::KILL, 9)] {
        let name = cloud.text("/name");
        let words = words(&name, &[], &["sh", "-c", "echo on; exec sleep 600"]);
        let words = [&["pgentra"], &words[..]].concat();
        let mut child = lab.spawn(&words, []);
        await_line(&mut child, "on\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(number));
        // The relay ends with the program.
        eventually_blocking(DEADLINE, "the relay has ended", || {
            let left = lab.processes("local-relay");
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
    let folder = std::fs::read_dir(cloud.text("/folder")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(folder.into_iter().all(|name| !name.to_str().unwrap().starts_with("run-")));
    assert_eq!(std::fs::read_dir(cloud.text("/azure_names/folder")).unwrap().count(), 0);
}

/// Reads the first line of the program.
fn await_line(child: &mut Child, line: &str) {
    let mut read = vec![0; line.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), line);
}

/// A port of the program leads out, and a service of the machine leads in.
#[test]
fn ports_lead_out_and_in() {
    if !have(&["curl", "python"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let name = cloud.text("/name");
    let serve = "import http.server, sys
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()";
    let python = text(&client("venv/bin/python"));
    let mut outside = lab.spawn(&[&python, "-c", serve, "0"], []);
    let port = first_line(&mut outside);
    let url = format!("http://localhost:{port}/");
    // The machine's ports are not reached unless asked for.
    let status = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", &url];
    assert!(!run(&lab, &cloud, &[], &status).status.success());
    let reach = format!("localhost:{port}");
    assert_eq!(run(&lab, &cloud, &["--reach", &reach], &status).ok(), "200");
    let named = format!("http://machine.example:{port}/");
    let done = run(
        &lab,
        &cloud,
        &["--reach", &format!("127.0.0.1:{port}"), "--reach", &format!("machine.example:{port}")],
        &["curl", "-sS", "-m", "5", &named],
    );
    // The name leads to the relay, and there is no such machine outside.
    assert!(!done.status.success() && !done.stderr.contains("resolve"), "{done:?}");

    // The port that the machine has is free inside.
    let published = free_port();
    let words =
        [&["pgentra"][..], &words(&name, &["--publish", &published], &[&python, "-c", serve, &published])]
            .concat();
    let mut inside = lab.spawn(&words, []);
    assert_eq!(first_line(&mut inside), published);
    let url = format!("http://127.0.0.1:{published}/");
    let done = lab.program(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", &url]).done();
    assert_eq!(done.ok(), "200");
    let taken = run(&lab, &cloud, &["--publish", &published], &["true"]);
    assert_eq!(taken.fault(2, &[&format!("cannot listen on 127.0.0.1:{published}")]), None);
    for child in [&mut inside, &mut outside] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    eventually_blocking(DEADLINE, "relay and connector have ended", || {
        let left = [lab.processes("local-relay"), lab.processes("local-connector")].concat();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

fn free_port() -> String {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string()
}

fn first_line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte != [b'\n'] {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Where the system does not allow namespaces, one sentence says so.
#[test]
fn a_system_without_namespaces_is_named() {
    if !have(&["netns"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let name = cloud.text("/name");
    // The limits of a user namespace of its own.
    let script = format!(
        "for kind in net user; do echo 0 > /proc/sys/user/max_${{kind}}_namespaces; done; exec pgentra local run --name {name} -- true"
    );
    let done = lab.program(&["unshare", "--user", "--map-root-user", "bash", "-c", &script]).done();
    assert_eq!(
        done.fault(1, &["this system does not let this user make network and mount namespaces", "as root"]),
        None
    );
    eventually_blocking(DEADLINE, "the relay has ended", || {
        let left = lab.processes("local-relay");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
