//! Runs every command in a hint or in `docs/errors.md`, with the example names replaced.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use e2e::{Cloud, Done, Flavour, Lab, have};

/// The page of failures: one section each, commands after `$ `.
const PAGE: &str = include_str!("../../docs/errors.md");

/// The result of a proposed command.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// It ends with this code and prints this text, for which the page proposes it.
    Shows(i32, &'static str),
    /// Only its arguments are checked; the reason.
    Is(&'static str),
}

/// The commands that do something else than to succeed: their beginning, and what they do.
const OTHERWISE: [(&str, Does); 16] = [
    ("az ", Does::Is("takes Azure; its options are compared with the table")),
    ("sudo ", Does::Is("changes the machine")),
    ("timedatectl", Does::Is("takes systemd as process 1")),
    ("pgentra local up", Does::Is("a test of its own runs it")),
    ("pgentra proxy -h", Does::Is("does not end; a test of its own starts it")),
    ("pgentra role drop", Does::Is("the role is the one that signs in; names_are_data.rs runs it")),
    ("pgentra role create myVm --object-id OBJECT_ID", Does::Is("as the drop before it")),
    ("pgentra role create admin@", Does::Is("as the drop before it")),
    // There is no az on this machine, and that is what it says.
    ("pgentra token --source azure-cli", Does::Shows(2, "az is not installed")),
    ("pgentra doctor --token-command 'az ", Does::Shows(6, "exit code 127")),
    ("pgentra doctor --gateway", Does::Shows(6, "gateway-settings")),
    // The wrong cloud for this server: the audience is the difference to find.
    ("pgentra doctor --cloud usgov", Does::Shows(6, "refused-audience")),
    ("pgentra doctor --resource https://token.postgres.cosmos", Does::Shows(6, "AADSTS500011")),
    // It shows the error that the server sent in the clear.
    ("psql 'host=localhost sslmode=disable'", Does::Shows(2, "TLS")),
    // The example's role belongs to the other identity, which doctor reports.
    ("pgentra doctor --client-id", Does::Shows(6, "role-of-another-identity")),
    // Without an authority for the local server's certificate.
    ("env -u PGSSLROOTCERT pgentra doctor", Does::Shows(6, "tls-unknown-issuer")),
];

/// Commands of Azure's command line, with the options that each takes beside those of all.
const AZ: [(&str, &[&str]); 24] = [
    ("account get-access-token", &["--resource-type", "--scope", "--tenant"]),
    ("account list", &[]),
    ("account show", &[]),
    ("ad app credential list", &["--id"]),
    ("ad group member check", &["--group", "--member-id"]),
    ("ad sp show", &["--id"]),
    ("identity federated-credential list", &["--resource-group", "--identity-name"]),
    ("identity show", &["--resource-group", "--name"]),
    ("login", &[]),
    ("monitor activity-log list", &["--resource-group", "--offset"]),
    ("network nsg rule list", &["--resource-group", "--nsg-name"]),
    ("network private-dns link vnet list", &["--resource-group", "--zone-name"]),
    (
        "postgres flexible-server firewall-rule create",
        &["--resource-group", "--name", "--rule-name", "--start-ip-address", "--end-ip-address"],
    ),
    ("postgres flexible-server firewall-rule list", &["--resource-group", "--name"]),
    ("postgres flexible-server parameter show", &["--resource-group", "--server-name", "--name"]),
    ("postgres flexible-server server-logs list", &["--resource-group", "--server-name"]),
    ("postgres flexible-server show", &["--resource-group", "--name"]),
    ("postgres flexible-server start", &["--resource-group", "--name"]),
    ("postgres flexible-server update", &["--resource-group", "--name", "--microsoft-entra-auth"]),
    ("role assignment create", &["--assignee", "--role", "--scope"]),
    ("role assignment list", &["--all", "--assignee"]),
    ("vm identity assign", &["--resource-group", "--name", "--identities"]),
    ("vm identity show", &["--resource-group", "--name"]),
    ("webapp identity show", &["--resource-group", "--name"]),
];

/// Options of every command of Azure's command line, and short forms.
const AZ_ALWAYS: [&str; 3] = ["--query", "--output", "-o"];

/// What is wrong with the words of an `az` command, by the table.
fn az_fault(words: &[String]) -> Option<String> {
    let group: Vec<_> = words.iter().skip(1).take_while(|word| !word.starts_with('-')).cloned().collect();
    let group = group.join(" ");
    let Some((_, options)) = AZ.iter().find(|(known, _)| *known == group) else {
        return Some(format!("`az {group}` is not in the table"));
    };
    let long = |word: &str| match word {
        "-g" => "--resource-group".to_owned(),
        "-n" => "--name".to_owned(),
        word => word.to_owned(),
    };
    let given = words.iter().filter(|word| word.starts_with('-')).map(|word| long(word));
    let unknown = |word: &String| !options.contains(&word.as_str()) && !AZ_ALWAYS.contains(&word.as_str());
    given.clone().find(unknown).map(|word| format!("`az {group}` takes no {word}"))
}

/// The words of a command, as a shell reads them.
fn words(lab: &Lab, command: &str) -> Vec<String> {
    let done = lab.shell(&format!("printf '%s\\n' {command}")).done();
    done.ok().lines().map(str::to_owned).collect()
}

/// Section and command, in the order of the page.
fn proposed() -> Vec<(&'static str, &'static str)> {
    let mut section = "";
    let mut commands = Vec::new();
    for line in PAGE.lines() {
        if let Some(name) = line.strip_prefix("### ") {
            section = name;
        } else if let Some(command) = line.strip_prefix("$ ") {
            commands.push((section, command));
        }
    }
    commands
}

/// The command with this cloud's names instead of the example's.
fn here(cloud: &Cloud<'_>, command: &str) -> String {
    let (port, ca) = (cloud.text("/server/port"), cloud.text("/server/sslrootcert"));
    let (vm, other) = (cloud.identity("system-assigned"), cloud.identity("user-assigned"));
    let metadata = cloud.text("/metadata_url");
    // In SQL the example's role is the one that the page's first command makes.
    let (outside, sql) = match command.split_once(" -c ") {
        Some((outside, sql)) => (outside.to_owned(), format!(" -c {sql}")),
        None => (command.to_owned(), String::new()),
    };
    let mut outside = outside;
    for (example, real) in [
        ("https://login.microsoftonline.com", format!("{} --cacert {ca}", cloud.text("/authority_host"))),
        ("http://169.254.169.254", metadata.trim_end_matches('/').to_owned()),
        ("my.postgres.database.azure.com", "localhost".to_owned()),
        ("my.postgres.database.usgovcloudapi.net", "localhost".to_owned()),
        ("HOST:5432", format!("localhost:{port}")),
        ("port=5432", format!("port={port}")),
        ("-p 5432", format!("-p {port}")),
        ("HOST", "localhost".to_owned()),
        ("user=ROLE", "user=myVm".to_owned()),
        ("hostaddr=10.0.0.4", "hostaddr=127.0.0.1".to_owned()),
        ("get 169.254.169.254", "get 127.0.0.1".to_owned()),
        ("ADDRESS", "127.0.0.1".to_owned()),
        ("/etc/ssl/our-authority.pem", ca.clone()),
        ("admin@contoso.com", cloud.identity("user")["role"].as_str().unwrap().to_owned()),
        ("me@contoso.com", cloud.identity("user")["role"].as_str().unwrap().to_owned()),
        ("dba@example.com", cloud.identity("user")["role"].as_str().unwrap().to_owned()),
        ("my-app", "myVm".to_owned()),
        ("my-identity", "myIdentity".to_owned()),
        ("my-group", "myResourceGroup".to_owned()),
        ("my-server", "mydemoserver".to_owned()),
        ("my-vm", "myVm".to_owned()),
        ("00000000-1111-2222-3333-444444444444", other["client_id"].as_str().unwrap().to_owned()),
    ] {
        outside = outside.replace(example, &real);
    }
    outside + &sql.replace("OBJECT_ID", vm["object_id"].as_str().unwrap())
}

/// The host for a command: commands with user names or identities are for the administrator.
fn host(command: &str) -> &'static str {
    let is_managing =
        ["contoso.com", "example.com", "pgentra identity"].iter().any(|part| command.contains(part));
    if is_managing { "admin" } else { "vm" }
}

#[test]
fn every_command_of_the_page_of_failures_runs() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let admin = lab.pgentra(&["query", "-c", "CREATE DATABASE app"]).envs(cloud.env("admin")).done();
    admin.ok();
    let hosts: BTreeMap<_, _> = ["vm", "admin"].map(|host| (host, cloud.env(host))).into();
    let mut faults = Vec::new();
    let mut unused: BTreeSet<_> = OTHERWISE.iter().map(|(beginning, _)| *beginning).collect();
    let mut seen = BTreeSet::new();
    for (section, command) in proposed().into_iter().filter(|(_, command)| seen.insert(*command)) {
        let real = here(&cloud, command);
        let known = OTHERWISE.iter().find(|(beginning, _)| real.starts_with(beginning));
        known.inspect(|(beginning, _)| unused.retain(|one| one != beginning));
        let does = known.map(|(_, does)| *does);
        if command.starts_with("az ") {
            faults.extend(az_fault(&words(&lab, command)).map(|fault| format!("{section}: {fault}")));
            continue;
        }
        if let Some(Does::Is(_)) = does {
            lab.shell(&format!("words=({real})")).done().ok();
            continue;
        }
        // The output may be a token.
        let script = format!("{{ {real}\n}} </dev/null >out");
        let done = lab.shell(&script).envs(hosts[host(command)].clone()).done();
        let printed = fs::read_to_string(lab.path().join("home/out")).unwrap_or_default();
        let fault = match does {
            Some(Does::Shows(code, words)) => {
                let said = done.stderr.contains(words) || printed.contains(words);
                (done.status.code() != Some(code) || !said).then_some("does not show what it is for")
            }
            _ => (!done.status.success()).then_some("fails"),
        };
        let printed = if command.starts_with("pgentra token") { "" } else { &*printed };
        faults.extend(fault.map(|fault| format!("{section}: `{real}` {fault}:\n{done:?}\n{printed}")));
        let _ = fs::remove_file(lab.path().join("home/out"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(unused.is_empty(), "no command begins so any more: {unused:?}");
}

#[test]
fn the_commands_of_the_page_that_stay_start() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &["--name", "one"]);
    let proposes = |command: &str| assert!(proposed().iter().any(|(_, one)| *one == command), "{command}");
    proposes("pgentra proxy -h my.postgres.database.azure.com");
    let proxy = lab.proxy(cloud.env("vm"), &["-h", "localhost", "--listen", "127.0.0.1:0"], 1);
    drop(proxy);
    proposes("pgentra local up --detach");
    lab.shell("pgentra local up --detach").done().ok();
    lab.shell("pgentra local down").done().ok();
}

/// The text after a label in a command's output.
fn after<'a>(done: &'a Done<'_>, label: &str) -> &'a str {
    let said = done.stderr.lines().chain(done.stdout.lines());
    said.into_iter()
        .find_map(|line| line.split_once(label))
        .unwrap_or_else(|| panic!("no {label:?} in {done:?}"))
        .1
}

/// Every variable that can be in the way: the hint is a command that unsets it.
#[test]
fn a_variable_that_is_in_the_way_is_unset_by_the_hint() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let query = "pgentra query -c 'SELECT 1'";
    for setting in [
        "PGCHANNELBINDING=require",
        "PGREQUIREAUTH=scram-sha-256",
        "PGLOADBALANCEHOSTS=on",
        "PGGSSENCMODE=require",
        "PGSSLCERTMODE=require",
        "PGSSLMINPROTOCOLVERSION=TLSv1.3",
        "PGSSLSNI=0",
        "PGSSLMODE=require",
        "PGSSLMODE=allow",
        "PGSSLMODE=verify_full",
        "PGSSLNEGOTIATION=sometimes",
        "PGCONNECT_TIMEOUT=soon",
        "PGHOSTADDR=here",
        "AZURE_POSTGRESQL_CONNECTIONSTRING=postgresql://%zz",
    ] {
        let (variable, _) = setting.split_once('=').unwrap();
        let failed = lab.shell(&format!("export {setting}; {query}")).envs(cloud.env("vm")).done();
        assert_eq!(failed.fault(2, &[]), None, "{setting}");
        let hint = after(&failed, "hint: ");
        let commands: Vec<_> = hint.split("; ").filter(|part| part.starts_with("unset ")).collect();
        let command = commands.first().unwrap_or_else(|| panic!("{setting}: {hint}"));
        let command = command.split(',').next().unwrap();
        assert_eq!(command, format!("unset {variable}"), "{setting}: {hint}");
        lab.shell(&format!("export {setting}; {command}; {query}")).envs(cloud.env("vm")).done().ok();
    }
}

/// The same settings from other sources: the hint names the source.
#[test]
fn a_setting_that_is_in_the_way_is_named_where_it_is() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let file = lab.path().join("services");
    fs::write(&file, "[weak]\nsslmode=prefer\n[bound]\nchannel_binding=require\n[odd]\nport=x\n").unwrap();
    let file = file.to_str().unwrap();
    let mut vm = cloud.env("vm");
    for variable in ["PGSSLMODE", "PGPORT"] {
        vm.remove(variable);
    }
    for (words, hint) in [
        (&["sslmode=require"][..], "leave sslmode out of the connection string"),
        (
            &["postgresql:///postgres?channel_binding=require"],
            "leave channel_binding out of the connection string",
        ),
        (&["-d", "load_balance_hosts=on"], "leave load_balance_hosts out of the connection string"),
        (&["sslcert=x"], "leave sslcert out of the connection string"),
        (&["service=weak"], &format!("remove sslmode from [weak] in {file}")),
        (&["service=bound"], &format!("remove channel_binding from [bound] in {file}")),
        (&["service=odd"], &format!("remove port from [odd] in {file}")),
    ] {
        let words = [&["query", "-c", "SELECT 1"], words].concat();
        let failed = lab.pgentra(&words).envs(vm.clone()).env("PGSERVICEFILE", file).done();
        assert_eq!(failed.fault(2, &[hint]), None);
    }
}

#[test]
fn what_a_named_cloud_prints_is_for_that_cloud() {
    let lab = Lab::new();
    for name in ["one", "two_B-2"] {
        let up = lab.pgentra(&["local", "up", "--name", name, "--detach"]).done();
        assert!(up.status.success(), "{up:?}");
        let next = after(&up, "ready; next: ").to_owned();
        let down =
            up.stderr.lines().find_map(|line| line.strip_prefix('`')?.strip_suffix("` stops it")).unwrap();
        let used = lab.shell(&next).done();
        assert!(used.ok().contains("myVm"), "{used:?}");

        let twice = lab.pgentra(&["local", "up", "--name", name]).done();
        assert_eq!(twice.fault(2, &[]), None);
        let hint = after(&twice, "hint: use it: ");
        let (use_it, rest) = hint.split_once("; stop it: ").unwrap();
        assert!(lab.shell(use_it).done().ok().contains("myVm"));
        assert_eq!(rest.split(';').next().unwrap(), down);

        let arc = lab.pgentra(&["local", "env", "--name", name, "--host", "azure-arc"]).done();
        let again = after(&arc, "as root: ");
        assert_eq!(
            again,
            format!("pgentra local down --name {name} && pgentra local up --name {name} --arc --detach")
        );

        lab.shell(down).done().ok();
        let gone = lab.pgentra(&["local", "status", "--name", name]).done();
        assert_eq!(gone.fault(2, &[]), None);
        lab.shell(after(&gone, "hint: start one: ")).done();
        lab.shell(down).done().ok();
    }
    // The default one is not named.
    let gone = lab.pgentra(&["local", "status"]).done();
    assert_eq!(after(&gone, "hint: "), "start one: pgentra local up --detach");
    lab.await_processes();
}

/// The command that `grant` prints signs the machine in, in a shell without variables for server
/// and port.
#[test]
fn what_grant_prints_signs_in() {
    let lab = Lab::new();
    for (flavour, identity) in
        [(Flavour::Flexible, ""), (Flavour::Flexible, " --identity myIdentity"), (Flavour::Single, "")]
    {
        let cloud = lab.cloud(flavour, &[]);
        let grant = format!("pgentra grant myVm{identity} -g myResourceGroup --role \"it's mine\" --yes");
        let granted = lab.shell(&grant).envs(cloud.env("admin")).done();
        granted.ok();
        let command = after(&granted, "On the machine: ");
        let mut machine = cloud.env("vm");
        machine.retain(|name, _| !["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"].contains(&name.as_str()));
        let signed_in = lab.shell(command).envs(machine).done();
        assert!(signed_in.ok().contains("PostgreSQL"), "{flavour}: {signed_in:?}");
    }
}

#[test]
fn management_commands_work_in_the_shell_of_any_host() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    for host in ["vm", "app-service", "azure-ml"] {
        // This host may not read the directory; a trusted server says so.
        let mut variables = cloud.env(host);
        assert!(!variables.contains_key("SSL_CERT_FILE"), "{host}");
        let found = lab.pgentra(&["identity", "find", "myVm"]).envs(variables.clone()).done();
        assert_ne!(found.status.code(), Some(4), "{found:?}");
        // Without the variable the authority is not trusted, and the hint names it.
        let authority = variables.remove("PGENTRA_MANAGEMENT_CA").unwrap();
        let distrusted = lab.pgentra(&["identity", "find", "myVm"]).envs(variables.clone()).done();
        assert_eq!(distrusted.fault(4, &["PGENTRA_MANAGEMENT_CA"]), None);
        variables.insert("PGENTRA_MANAGEMENT_CA".to_owned(), format!("{authority}.gone"));
        let unusable = lab.pgentra(&["identity", "find", "myVm"]).envs(variables).done();
        assert!(after(&unusable, "hint: ").starts_with("unset PGENTRA_MANAGEMENT_CA"), "{unusable:?}");
    }
    let mut admin = cloud.env("admin");
    admin.remove("SSL_CERT_FILE");
    lab.pgentra(&["identity", "find", "myVm"]).envs(admin.clone()).done().ok();
    lab.pgentra(&["role", "list"]).envs(admin).done().ok();
}

#[test]
fn a_failure_leads_to_its_own_section_or_to_none() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let run = |words: &[&str]| lab.pgentra(words).envs(vm.clone()).done();
    let nowhere = "nowhere.invalid";
    for (words, section) in [
        (&["proxy", "--check", "-h", nowhere, "-U", "x"][..], Some("name-unresolved")),
        (&["proxy", "--check", "-h", "localhost", "-p", "1", "-U", "x"], Some("tcp-refused")),
        (&["proxy", "--check", "-U", "nobody_here"], Some("role-not-mapped")),
        (&["query", "-h", nowhere, "-c", "SELECT 1"], Some("name-unresolved")),
        (&["proxy", "wait", "--admin", "127.0.0.1:1", "--timeout", "0"], None),
        (&["query", "-c", "COPY (SELECT 1) TO STDOUT"], None),
    ] {
        let failed = run(words);
        assert!(!failed.status.success(), "{failed:?}");
        let see: Vec<_> = failed.stderr.lines().filter_map(|line| line.strip_prefix("see: ")).collect();
        let expected: Vec<_> = section.iter().map(|id| format!("pgentra doctor --explain {id}")).collect();
        assert_eq!(see, expected, "{failed:?}");
        for command in see {
            lab.shell(command).done().ok();
        }
    }
    let wait = run(&["proxy", "wait", "--health", "127.0.0.1:1", "--timeout", "0"]);
    assert!(after(&wait, "hint: ").contains("--health-listen 127.0.0.1:1"), "{wait:?}");
}

#[test]
fn a_finding_that_is_misspelled_is_proposed() {
    let lab = Lab::new();
    for (typed, meant) in [
        ("role-not-maped", "role-not-mapped"),
        ("Role_Not_Mapped", "role-not-mapped"),
        ("tls-unkown-issuer", "tls-unknown-issuer"),
        ("name unresolved", "name-unresolved"),
        ("foo", ""),
    ] {
        let failed = lab.pgentra(&["doctor", "--explain", typed]).done();
        assert_eq!(failed.fault(2, &[]), None);
        let command = after(&failed, "hint: ").split_once(": ").unwrap().1;
        assert_eq!(command, format!("pgentra doctor --explain {meant}").trim_end());
        let explained = lab.shell(command).done();
        assert!(explained.ok().contains(meant), "{explained:?}");
    }
    let all = lab.pgentra(&["doctor", "--explain"]).done();
    let sections = PAGE.lines().filter(|line| line.starts_with("### ")).count();
    assert_eq!(all.ok().lines().count(), sections);
    assert!(all.stdout.lines().all(|line| line.len() > 30), "{all:?}");
}

#[test]
fn a_token_command_that_prints_something_else_is_told_why() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let token =
        |command: &str| lab.pgentra(&["token", "--token-command", command]).envs(cloud.env("vm")).done();
    for printed in [r#""eyJ.a.b""#, r#"{"eyJ.a.b"}"#, r#"[ "eyJ.a.b" ]"#, "'eyJ.a.b'"] {
        let failed = token(&format!("cat <<'E'\n{printed}\nE"));
        assert_eq!(failed.fault(3, &["in quotes", "-o tsv"]), None, "{printed}");
    }
    let failed = token("exit 3");
    assert!(failed.stderr.contains("exit code 3 and said nothing\n"), "{failed:?}");
    assert_eq!(failed.fault(3, &["by hand"]), None);
    // Its arguments may be secrets.
    let failed = token("false --password hunter2");
    assert!(!failed.stderr.contains("hunter2"), "{failed:?}");
}

/// A listener that cannot be opened: the hint leads to one that can.
#[test]
fn a_place_that_cannot_be_listened_on_has_a_way_out() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = || cloud.env("vm");
    let listen = |place: &str| lab.pgentra(&["proxy", "--listen", place]).envs(vm()).done();
    let folder = lab.path().join("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let place = folder.to_str().unwrap();
    let failed = listen(place);
    assert_eq!(failed.fault(1, &["--listen-uids"]), None);
    let command = after(&failed, "hint: ").split(',').next().unwrap();
    lab.shell(command).done().ok();
    drop(lab.proxy(vm(), &["--listen", place], 1));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let failed = listen(&taken.local_addr().unwrap().to_string());
    let free = after(&failed, "this one is free: --listen ");
    drop(lab.proxy(vm(), &["--listen", free], 1));

    for (place, words) in [
        ("./run", "named from the root"),
        ("~/run", "named from the root"),
        ("99999", "0 to 65535"),
        ("65536", "0 to 65535"),
        (&*format!("/{}", "x".repeat(120)), "hint: "),
    ] {
        let failed = listen(place);
        assert!(!failed.status.success() && failed.stderr.contains(words), "{failed:?}");
    }
}

/// Every page that a manual page names is written, and is printed by the command of that name.
#[test]
fn the_manual_names_pages_that_exist() {
    let lab = Lab::new();
    lab.shell("pgentra man --dir new/man1").done().ok();
    let folder = lab.path().join("home/new/man1");
    let mut named = BTreeSet::new();
    let mut there = BTreeSet::new();
    for file in fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        there.insert(file.file_name().into_string().unwrap());
        let text = fs::read_to_string(file.path()).unwrap();
        let pages = text.split_whitespace().filter_map(|word| word.strip_suffix("(1)"));
        named.extend(pages.map(|page| format!("{}.1", page.replace("\\-", "-"))));
    }
    assert!(named.len() > 15, "{named:?}");
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?}");
    if have(&["groff"]) {
        let check = "for page in new/man1/*; do groff -man -Kutf8 -Tutf8 -ww -z \"$page\"; done";
        let checked = lab.shell(check).done();
        assert_eq!((checked.ok(), &*checked.stderr), ("", ""));
    }
    let page = lab.shell("pgentra man local up").done();
    assert!(page.ok().contains("metadata") && page.stdout.starts_with(".ie"), "{page:?}");
    assert_eq!(lab.shell("pgentra man locl").done().fault(2, &["`locl`"]), None);
    // The examples work in an empty home folder.
    lab.shell("rm -rf new").done().ok();
    for words in [&["completions", "--help"][..], &["man", "--help"]] {
        let help = lab.pgentra(words).done();
        let (_, example) = help.ok().split_once("Example: ").unwrap();
        lab.shell(&example.replace("man -l -", "cat")).done().ok();
    }
}

/// A folder whose programs cannot be run is named, with the variable that sets it.
#[test]
fn a_folder_of_a_file_system_without_programs_is_named() {
    if !rustix::process::geteuid().is_root() || !have(&["unshare"]) {
        return;
    }
    let lab = Lab::new();
    let script = "mkdir -p noexec && mount -t tmpfs -o noexec,mode=1777 none noexec && TMPDIR=$PWD/noexec pgentra local up";
    let failed = lab.program(&["unshare", "--mount", "sh", "-c", script]).done();
    assert_eq!(
        failed.fault(1, &["Permission denied", "noexec: set TMPDIR to", "/noexec/pgentra-0-default"]),
        None
    );
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let admin = |words: &[&str]| lab.pgentra(words).envs(cloud.env("admin"));
    let failed = admin(&["identity", "server-admin", "list", "--server", "my-server"]).done();
    assert_eq!(failed.fault(2, &["no flexible server \"my-server\"", "there is: mydemoserver"]), None);
    let failed = admin(&["identity", "show", "--vm", "my-vm"]).done();
    assert_eq!(failed.fault(2, &["no virtual machine \"my-vm\"", "there is: myVm"]), None);
    let unread = "[[role]]\nname = 5\n";
    let failed = admin(&["role", "plan", "-f", "-"]).input(unread).done();
    assert_eq!(failed.fault(2, &["standard input: 2 things are wrong"]), None);
    // An error that only the server finds names the file too.
    let file = lab.path().join("roles.toml");
    let one = cloud.identity("system-assigned")["object_id"].as_str().unwrap();
    fs::write(&file, format!("[[role]]\nname = \"myApp\"\nobject_id = \"{one}\"\n")).unwrap();
    let failed = admin(&["role", "plan", "-f", file.to_str().unwrap()]).done();
    assert_eq!(failed.fault(2, &["roles.toml: "]), None);
}
