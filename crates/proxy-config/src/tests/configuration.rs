use std::time::Duration;

use pgentra_identity::{Cloud, Selector};
use pgentra_settings::ListenAddr;
use pgentra_system::{Env, Files, System};

use super::*;

const FILE: &str = "/etc/pgentra.toml";
const ONE: &str = "00000000-1111-2222-3333-444444444444";
const TWO: &str = "99999999-1111-2222-3333-444444444444";

/// The flags of a command line as plain values. A switch takes its value behind `=`.
fn sources(words: &[&str]) -> Sources {
    let commands = Some(Commands { program: "pgentra proxy", names: &["wait", "hash-password"] });
    let mut sources = Sources { commands, ..Sources::default() };
    let mut words = words.iter().map(|word| (*word).to_owned());
    while let Some(word) = words.next() {
        let keyword = match word.as_str() {
            "-h" => "host",
            "-d" => "dbname",
            _ => "",
        };
        if !keyword.is_empty() {
            sources.connection.push((keyword, words.next().unwrap()));
            continue;
        }
        let Some(flag) = word.strip_prefix("--") else {
            sources.targets.push(word);
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let key = Key::find(&name.replace('-', "_")).unwrap();
        let value = value.or_else(|| (key.form == Form::Switch).then(|| "true".to_owned()));
        let value = value.unwrap_or_else(|| words.next().unwrap());
        match sources.flags.iter_mut().find(|(given, _)| given.name == key.name) {
            Some((_, values)) => values.push(value),
            None => sources.flags.push((key, vec![value])),
        }
    }
    sources
}

/// The layers: a file, variables and the command line.
#[derive(Default)]
struct Setting<'a> {
    file: &'a str,
    variables: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
}

impl Setting<'_> {
    fn gather(&self) -> Result<Configuration, String> {
        let files = Files::in_memory();
        files.put(FILE, self.file);
        let system =
            System::builder().env(Env::from_map(self.variables.iter().copied())).files(files).build();
        let file = (!self.file.is_empty()).then(|| FILE.into());
        let sources = Sources { file, ..sources(self.flags) };
        let gathered = Configuration::gather(&system, &sources, &mut ReloadState::default());
        gathered.map_err(|problems| problems.to_string())
    }

    fn target(&self) -> TargetSettings {
        let mut targets = self.gather().unwrap().targets;
        assert_eq!(targets.len(), 1);
        targets.remove(0).settings
    }
}

fn problems(said: Setting<'_>) -> String {
    said.gather().map(|_| ()).unwrap_err()
}

#[test]
fn each_voice_is_stronger_than_the_one_before() {
    let host = ["-h", "db.example"];
    assert_eq!(Setting { flags: &host, ..Setting::default() }.target().max_connections, 100);
    let file = "max_connections = 1\n";
    let said = Setting { file, flags: &host, ..Setting::default() };
    assert_eq!(said.target().max_connections, 1);
    let said = Setting { variables: &[("PGENTRA_MAX_CONNECTIONS", "2")], ..said };
    assert_eq!(said.target().max_connections, 2);
    let flags = ["-h", "db.example", "--max-connections", "3"];
    let said = Setting { flags: &flags, ..said };
    assert_eq!(said.target().max_connections, 3);
    let table = "max_connections = 1\n[[target]]\nserver = 'host=db.example'\nmax_connections = 4\n";
    let said = Setting { file: table, ..said };
    assert_eq!(said.target().max_connections, 4);
    let table = "[[target]]\nserver = 'postgresql://db.example?max_connections=5'\nmax_connections = 4\n";
    let said = Setting { file: table, ..said };
    assert_eq!(said.target().max_connections, 5);
}

#[test]
fn a_variable_names_the_file_and_a_flag_another() {
    let file = "[[target]]\nserver = 'host=db.example'\npin = true\n";
    let files = Files::in_memory();
    files.put("/a", file);
    files.put("/b", file.replace("true", "false"));
    let system = System::builder().env(Env::from_map([("PGENTRA_CONFIG", "/a")])).files(files).build();
    for (config, pin) in [(None, true), (Some("/b".into()), false)] {
        let sources = Sources { file: config, ..Sources::default() };
        let gathered = Configuration::gather(&system, &sources, &mut ReloadState::default()).unwrap();
        assert_eq!(gathered.targets[0].settings.pin, pin);
    }
}

#[test]
fn a_target_has_settings_in_either_form() {
    let uri = "postgresql://db.example/app?listen=6432,/run/pg&max_connections=20&connect_timeout=3&pin=true";
    let conninfo =
        "host=db.example dbname=app listen='6432, /run/pg' max_connections=20 connect_timeout=3 pin=true";
    for target in [uri, conninfo] {
        let configuration = Setting { flags: &[target], ..Setting::default() }.gather().unwrap();
        let TargetConfig { name, connector, settings, .. } = &configuration.targets[0];
        assert_eq!(name, "db.example:5432, database \"app\"");
        assert_eq!(connector.target().connect_timeout(), Duration::from_secs(3));
        assert_eq!((settings.max_connections, settings.pin), (20, true));
        assert_eq!(settings.listen, ["6432".parse().unwrap(), "/run/pg".parse().unwrap()]);
    }
}

#[test]
fn listeners_are_shared_out() {
    let listen = |flags: &[&str]| {
        let configuration = Setting { flags, ..Setting::default() }.gather()?;
        let places = configuration.targets.iter().map(|target| {
            let places: Vec<_> = target.settings.listen.iter().map(ToString::to_string).collect();
            places.join(" ")
        });
        Ok::<_, String>(places.collect::<Vec<_>>().join(" | "))
    };
    for (flags, expected) in [
        (&["host=a"][..], "127.0.0.1:5432"),
        (&["host=a", "host=b"], "127.0.0.1:5432 | 127.0.0.1:5433"),
        (&["host=a", "host=b", "--listen", "[::1]:1"], "[::1]:1 | [::1]:2"),
        (&["host=a", "--listen", "1", "--listen", "/run/pg"], "127.0.0.1:1 /run/pg:5432"),
        (&["host=a", "host=b", "--listen", "7", "--listen", "9"], "127.0.0.1:7 | 127.0.0.1:9"),
        (
            &["host=a", "host=b listen=1,2", "host=c", "--listen", "7"],
            "127.0.0.1:7 | 127.0.0.1:1 127.0.0.1:2 | 127.0.0.1:8",
        ),
        (&["host=a listen=1", "--listen", "7"], "127.0.0.1:1"),
        (&["host=a", "host=b", "--listen", "0"], "127.0.0.1:0 | 127.0.0.1:0"),
    ] {
        assert_eq!(listen(flags).as_deref(), Ok(expected), "{flags:?}");
    }
    for (flags, says) in [
        (
            &["host=a", "host=b", "host=c", "--listen", "7", "--listen", "8"][..],
            "is given 2 times for 3 targets",
        ),
        (&["host=a", "host=b", "--listen", "65535"], "not so many ports follow on 127.0.0.1:65535"),
        (
            &["host=a listen=7", "host=b listen=7"],
            "target 2 listen: cannot be 127.0.0.1:7: it is given twice",
        ),
        (&["host=a", "--listen", "0.0.0.0:1"], "would have the identity's rights"),
        (
            &["-h", "a", "--listen", "7", "--listen", "7"],
            "\n  listen: cannot be 127.0.0.1:7: it is given twice",
        ),
    ] {
        let error = listen(flags).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert!(listen(&["host=a", "--listen", "0.0.0.0:1", "--danger-listen-beyond-loopback"]).is_ok());
}

#[test]
fn sockets_of_systemd_are_shared_out_too() {
    let listen = |names: &[&str], targets: &[&str]| {
        let system = System::builder().build();
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        let sources = Sources { targets, ..Sources::default() };
        let mut held = ReloadState::new(InheritedSockets::of_names(names).unwrap());
        let gathered =
            Configuration::gather(&system, &sources, &mut held).map_err(|problems| problems.to_string())?;
        let places = gathered.targets.iter().map(|target| {
            let place = |place: &ListenAddr| match place {
                ListenAddr::Systemd { name, number } => format!("{name}{number}"),
                other => other.to_string(),
            };
            target.settings.listen.iter().map(place).collect::<Vec<_>>().join(" ")
        });
        Ok::<_, String>(places.collect::<Vec<_>>().join(" | "))
    };
    for (names, targets, expected) in [
        (&["pg.socket", "pg.socket"][..], &["host=a"][..], "pg.socket0 pg.socket1"),
        (&["x", "y"], &["host=a", "host=b"], "x0 | y0"),
        (&["x", "y", "x"], &["host=a listen=systemd:x", "host=b"], "x0 x1 | y0"),
        (&["x"], &["host=a listen=systemd:x,/run/pg"], "x0 /run/pg:5432"),
        (&["x"], &["host=a listen=systemd:x", "host=b"], "x0 | 127.0.0.1:5432"),
    ] {
        assert_eq!(listen(names, targets).as_deref(), Ok(expected), "{names:?} {targets:?}");
    }
    for (names, targets, says) in [
        (&["x"][..], &["host=a listen=systemd:y"][..], "target 1: there is no systemd:y"),
        (&["x"], &["host=a", "host=b"], "give one for each target"),
    ] {
        assert!(listen(names, targets).unwrap_err().contains(says), "{names:?} {targets:?}");
    }
}

#[test]
fn a_switch_can_be_switched_off_again() {
    let said = Setting { file: "pin = true", flags: &["host=a", "--pin=false"], ..Setting::default() };
    assert!(!said.target().pin);
    assert!(Setting { flags: &["host=a", "--pin"], ..Setting::default() }.target().pin);
    // The argument after the flag is a target.
    assert!(Setting { flags: &["--pin", "host=a"], ..Setting::default() }.target().pin);
}

#[test]
fn an_identity_is_replaced_as_a_whole() {
    let uri = format!("postgresql://a?object_id={TWO}&cloud=usgov");
    let said = Setting {
        flags: &[&uri, "--client-id", ONE, "--tenant", "t", "--source", "imds"],
        ..Setting::default()
    };
    let identity = said.target().identity;
    assert_eq!(identity.selector, Some(Selector::ObjectId(TWO.parse().unwrap())));
    assert_eq!((identity.cloud, identity.tenant.as_deref()), (Cloud::UsGov, Some("t")));
    let said =
        Setting { flags: &["host=a token_command='print it'", "--client-id", ONE], ..Setting::default() };
    let identity = said.target().identity;
    assert_eq!((identity.selector, identity.token_command.as_deref()), (None, Some("print it")));
}

#[test]
fn targets_of_one_identity_share_its_credential() {
    let target = |more: &str| format!("host=a listen=0 {more}");
    let targets = [
        target(""),
        target(&format!("client_id={ONE}")),
        target(&format!("client_id={ONE} resource=https://other.example")),
        target(&format!("client_id={TWO}")),
    ];
    let files = Files::in_memory();
    let system = System::builder().env(Env::from_map::<String, String>([])).files(files).build();
    let sources = Sources { targets: targets.to_vec(), ..Sources::default() };
    let mut held = ReloadState::default();
    let gathered = Configuration::gather(&system, &sources, &mut held).unwrap();
    assert_eq!((gathered.targets.len(), held.credentials.0.len()), (4, 3));
    let sources = Sources { targets: targets[..1].to_vec(), ..Sources::default() };
    Configuration::gather(&system, &sources, &mut held).unwrap();
    assert_eq!(held.credentials.0.len(), 1);
}

#[test]
fn all_problems_are_told_with_their_places() {
    let file = "\
max_conections = 5
drain_timeout = true
target = 3
[extra]
";
    let said = Setting {
        file,
        variables: &[
            ("PGENTRA_START_UP_TIMEOUT", "soon"),
            ("PGENTRA_PIN", "yes"),
            ("PGENTRA_MAX_CONECTIONS", "5"),
            // Variables that are not settings of the proxy.
            ("PGENTRA_PORT", "tcp://10.0.0.1:5432"),
            ("PGENTRA_SERVICE_HOST", "10.0.0.1"),
            ("PGENTRA_LOG", "info"),
        ],
        flags: &[
            "postgresql://db.example?max_connections=many&drain_timeout=1&lisen=1",
            "postgresql://db.example?sslmode=require",
            "postgresql://db.example?hunter2!=x",
            "--client-id",
            "me",
        ],
    };
    assert_eq!(
        problems(said),
        "\
there are 13 problems with the configuration
  /etc/pgentra.toml:1 max_conections: is no key; the nearest is max_connections
  /etc/pgentra.toml:2 drain_timeout: is a time, such as \"5m\", or a number of seconds, not a boolean
  /etc/pgentra.toml:3 target: is a list of tables: write [[target]]
  /etc/pgentra.toml:4 extra: is no key
  PGENTRA_MAX_CONECTIONS: is no key; the nearest is max_connections
  PGENTRA_PIN: is true or false, not `yes`
  PGENTRA_START_UP_TIMEOUT: takes a time from 1s to 1h, such as 90s, 5m or a bare number of seconds, not `soon`
  --client-id: takes a GUID, not `me`
  target 1 lisen: is no key; the nearest is listen
  target 1 drain_timeout: holds for the whole process: give it as a flag
  target 1 max_connections: takes a number from 1 to 1000000, not `many`
  target 3 a parameter: is no key
  target 2: sslmode=require would give the access token to an unverified server
    hint: leave sslmode out of the connection string; for a server with a private authority name its \
             certificate with sslrootcert=FILE"
    );
}

#[test]
fn problems_within_a_target_of_the_file() {
    let file = "\
[[target]]
server = 5
drain_timeout = 5
[[target]]
listen = [7, 'x']
lissen = 7

[[target]]
server = 'host=a'
listen = ['x']
client_id = '00000000-1111-2222-3333-444444444444'
token_command = 'x'
";
    let said = Setting { file, ..Setting::default() };
    assert_eq!(
        problems(said),
        "\
there are 7 problems with the configuration
  /etc/pgentra.toml:2 server: is a text: a connection URI or a conninfo string
  /etc/pgentra.toml:3 drain_timeout: holds for the whole process: write it above the first [[target]]
  /etc/pgentra.toml:5 listen: is a list of texts, not a array
  /etc/pgentra.toml:6 lissen: is no key; the nearest is listen
  /etc/pgentra.toml:4 [[target]]: names no server
  /etc/pgentra.toml:10 listen: cannot be `x`: write IP:PORT, PORT, /FOLDER[:PORT] or systemd:NAME
  /etc/pgentra.toml:12 token_command: cannot be set together with client_id"
    );
}

#[test]
fn times_and_counts_are_written_as_people_and_programs_write_them() {
    // Helm writes every number as a float.
    let file = "drain_timeout = 30.0\nwarm = 2.0\nmax_connections = 20\nwarm_max_age = '1h30m'\ntoken_timeout = 90\n";
    let said = Setting { file, flags: &["db.example", "--start-up-timeout", "2m"], ..Setting::default() };
    let configuration = said.gather().unwrap();
    assert_eq!(configuration.process.drain_timeout, Duration::from_secs(30));
    let target = &configuration.targets[0].settings;
    assert_eq!((target.warm, target.max_connections), (2, 20));
    assert_eq!(target.warm_max_age, Duration::from_secs(5400));
    assert_eq!(target.identity.token_timeout, Duration::from_secs(90));
    assert_eq!(target.start_up_timeout, Duration::from_secs(120));
    let variables = [("PGENTRA_DRAIN_TIMEOUT", "1m"), ("PGENTRA_WARM", "3.0"), ("PGENTRA_SOURCE", "IMDS")];
    let said = Setting {
        variables: &variables,
        flags: &["postgresql://db.example?warm_max_age=5m"],
        ..Setting::default()
    };
    let configuration = said.gather().unwrap();
    assert_eq!(configuration.process.drain_timeout, Duration::from_secs(60));
    assert_eq!(configuration.targets[0].settings.warm, 3);
    assert_eq!(configuration.targets[0].settings.warm_max_age, Duration::from_secs(300));
    for (file, says) in [
        ("warm = 2.5", "warm: takes a number from 0 to 1000, not `2.5`"),
        ("warm = '2'", "warm: is a number, not a string"),
        ("warm = -1", "warm: takes a number from 0 to 1000, not `-1`"),
        ("max_connections = 0", "max_connections: takes a number from 1 to 1000000, not `0`"),
        (
            "drain_timeout = true",
            "drain_timeout: is a time, such as \"5m\", or a number of seconds, not a boolean",
        ),
        ("token_timeout = '2h'", "token_timeout: takes a time from 1s to 1h"),
        ("tenant = 'a b'", "tenant: takes a GUID or a domain name"),
        ("source = 'IMSD'", "source: is one of imds, app-service"),
    ] {
        let said = problems_of_file(file);
        assert!(said.contains(says), "{file}: {said}");
    }
}

#[test]
fn a_word_is_a_server_or_refused() {
    let name = |flags: &[&str], variables: &[(&str, &str)]| {
        let configuration = Setting { flags, variables, ..Setting::default() }.gather()?;
        Ok::<_, String>(configuration.targets[0].name.clone())
    };
    let elsewhere = [("PGHOST", "wrong.example"), ("PGDATABASE", "x")];
    assert_eq!(name(&["db.example"], &elsewhere).unwrap(), "db.example:5432, database \"x\"");
    assert_eq!(name(&["localhost:6432", "-d", "app"], &[]).unwrap(), "localhost:6432, database \"app\"");
    for (flags, says, hint) in [
        (
            &["stats"][..],
            "\"stats\" is neither a command of \"pgentra proxy\" (wait, hash-password) nor a server",
            "a database is -d NAME",
        ),
        (&["wiat"], "\"wiat\" is neither", "did you mean: pgentra proxy wait"),
        (&["hash-pasword", "app"], "\"app\" is neither", "did you mean: pgentra proxy hash-password"),
        (&["-h", "db.example", "--reuse", "maybe"], "\"maybe\" is neither", "--reuse=false"),
        (&["-h", "db.example", "--pin", "false"], "\"false\" is neither", "--reuse=false"),
    ] {
        let error = name(flags, &elsewhere).unwrap_err();
        assert!(error.contains(says) && error.contains(hint), "{error}");
        assert!(!error.contains("no server is named"), "{error}");
    }
    let file = "[[target]]\nserver = 'app'\n[[target]]\nserver = 'db.example'\n";
    let error = problems(Setting { file, ..Setting::default() });
    assert!(error.contains("/etc/pgentra.toml:2: \"app\" is no server"), "{error}");
}

#[test]
fn what_is_no_toml_is_told_with_its_lines() {
    let error =
        problems(Setting { file: "listen = \n\npin = = 1\n", flags: &["host=a"], ..Setting::default() });
    assert!(error.contains("/etc/pgentra.toml:1: ") && error.contains("/etc/pgentra.toml:3: "), "{error}");
    let sources = Sources { targets: vec!["host=a".into()], ..Sources::file("/none") };
    let system = System::builder().build();
    let gathered = Configuration::gather(&system, &sources, &mut ReloadState::default());
    assert!(gathered.unwrap_err().to_string().contains("/none: cannot be read"));
}

#[test]
fn nothing_named_is_told_as_ever() {
    assert!(problems(Setting::default()).contains("the target: no server is named"));
}

#[test]
fn doors_are_set_in_every_form() {
    let file = r#"
        listen_auth_file = "/users"
        [[target]]
        server = "host=db.example listen_tls_client_name=dn"
        role_map = { app = "my-app", other = "my-other" }
        [target.listen_tls_client_map]
        "CN=one,O=Contoso" = ["app", "other"]
        "CN=two" = "app"
    "#;
    let files = Files::in_memory();
    files.put(FILE, file);
    let mut problems = Problems::default();
    let written = read::<Set>(&files, std::path::Path::new(FILE), &mut problems);
    let mut target = TargetSettings::default();
    let mut process = ProcessSettings::default();
    written.layer.apply(|set, given| store(set, Some(&mut process), &mut target, given), &mut problems);
    written.tables[0].layer.apply(|set, given| store(set, None, &mut target, given), &mut problems);
    assert!(problems.none_or(()).is_ok());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let both = [pair("app", "my-app"), pair("other", "my-other")];
    assert_eq!(target.client_auth.role_map, both);
    let dn = "CN=one,O=Contoso";
    assert_eq!(
        target.client_auth.tls_client_map,
        [pair(dn, "app"), pair(dn, "other"), pair("CN=two", "app")]
    );
    assert_eq!(target.client_auth.auth_file, Some("/users".into()));

    let flags = ["host=db.example", "--role-map", "app=my-app", "--role-map", "other=my-other"];
    assert_eq!(Setting { flags: &flags, ..Setting::default() }.target().client_auth.role_map, both);
    let variables = [("PGENTRA_ROLE_MAP", "app=my-app, other=my-other")];
    let said = Setting { variables: &variables, flags: &["-h", "db.example"], ..Setting::default() };
    assert_eq!(said.target().client_auth.role_map, both);
    let uri = ["postgresql://db.example?role_map=app%3Dmy-app,other%3Dmy-other"];
    assert_eq!(Setting { flags: &uri, ..Setting::default() }.target().client_auth.role_map, both);
    for (file, says) in [
        ("role_map = 'app'", "is a table of texts, not a string"),
        ("role_map = { app = 1 }", "texts"),
        ("role_map = { app = 'a=b' }", "no `=`"),
        ("role_map = { app = ['a', 'b'] }", "has `app` twice"),
        ("listen_tls_client_name = 'san'", "any, cn or dn"),
    ] {
        let said = problems_of_file(file);
        assert!(said.contains(says), "{file}: {said}");
    }
}

fn problems_of_file(file: &str) -> String {
    problems(Setting { file, flags: &["-h", "db.example"], ..Setting::default() })
}

#[test]
fn beyond_loopback_clients_prove_who_they_are() {
    let open = ["host=db.example", "--listen", "0.0.0.0:6432"];
    let said = problems(Setting { flags: &open, ..Setting::default() });
    assert!(said.contains("cannot be 0.0.0.0:6432") && said.contains("listen_tls_cert"), "{said}");
    // A password without TLS is not enough, nor TLS without client authentication.
    let more = ["--listen-auth-file", "/nowhere"];
    let said = problems(Setting { flags: &[&open[..], &more].concat(), ..Setting::default() });
    assert!(said.contains("cannot be 0.0.0.0:6432"), "{said}");
    let more =
        ["--listen-auth-file", "/nowhere", "--listen-tls-cert", "/nowhere", "--listen-tls-key", "/nowhere"];
    let said = problems(Setting { flags: &[&open[..], &more].concat(), ..Setting::default() });
    assert!(!said.contains("0.0.0.0") && said.contains("/nowhere cannot be read"), "{said}");
    let more = ["--danger-listen-beyond-loopback"];
    Setting { flags: &[&open[..], &more].concat(), ..Setting::default() }.gather().unwrap();
}

#[test]
fn settings_for_sockets_that_are_not_there_are_told() {
    for (flags, says) in [
        (&["host=a", "--listen-uids", "1"][..], "listen_uids: is for Unix sockets"),
        (
            &["host=a", "--listen", "/run/pg", "--listen-tls-cert", "/x", "--listen-tls-key", "/x"],
            "is for TCP",
        ),
    ] {
        let said = problems(Setting { flags, ..Setting::default() });
        assert!(said.contains(says), "{said}");
    }
    let flags = ["host=a", "--listen", "/run/pg", "--listen-uids", "4711"];
    assert_eq!(
        Setting { flags: &flags, ..Setting::default() }.gather().unwrap().targets[0].client_auth.uids,
        [4711]
    );
}

/// Two targets at one address, each with these settings.
fn neighbours(first: &str, second: &str) -> Result<Vec<String>, String> {
    let file = format!("[[target]]\nserver = 'host=a'\n{first}\n[[target]]\nserver = 'host=b'\n{second}\n");
    let configuration = Setting { file: &file, ..Setting::default() }.gather()?;
    let places = configuration.targets.iter().flat_map(|target| &target.settings.listen);
    Ok(places.map(ToString::to_string).collect())
}

#[test]
fn targets_share_an_address_if_their_clients_differ() {
    for (first, second) in [
        ("databases = 'x'", "databases = ['y', 'z']"),
        ("databases = 'x'", ""),
        ("", "roles = ['r']"),
        ("databases = 'x'\nroles = 'r'", "databases = 'x'\nroles = 's'"),
    ] {
        assert_eq!(neighbours(first, second).unwrap(), ["127.0.0.1:5432"; 2], "{first} | {second}");
        let listen = "\nlisten = '/run/pg'";
        let own = neighbours(&format!("{first}{listen}"), &format!("{second}{listen}"));
        assert_eq!(own.unwrap(), ["/run/pg:5432"; 2], "{first} | {second}");
    }
    for (first, second, says) in [
        (
            "databases = ['x', 'y']",
            "databases = 'y'",
            ":5 listen: cannot be 127.0.0.1:5432: a client may fit",
        ),
        ("databases = 'x'", "roles = 'r'", "a client may fit"),
        ("listen = '7'", "listen = '7'", "it is given twice"),
        ("host_names = 'h'", "", "host_names: needs listen_tls_cert"),
        ("listen_read = '7'", "", "listen_read: needs several hosts"),
        (
            "demoted_sessions = 'close'",
            "",
            "demoted_sessions: does nothing for a target that takes every server",
        ),
        (
            "demoted_sessions = 'close'\nserver_role_interval = 0",
            "",
            "demoted_sessions: needs server_role_interval",
        ),
        (
            "listen = '7'\ndatabases = 'x'\nfirst_packet_timeout = 5",
            "listen = '7'",
            "with another first_packet_timeout",
        ),
        ("listen = '7'\nlisten_direct = '7'", "", "it is given twice"),
        (
            "databases = 'x'\nlisten_uids = '1'\nlisten = '/run/pg'",
            "listen = '/run/pg'",
            "with another listen_uids",
        ),
    ] {
        let said = neighbours(first, second).unwrap_err();
        assert!(said.contains(says), "{first} | {second}: {said}");
    }
    let any = Setting { flags: &["host=a databases=x", "host=b", "--listen", "0"], ..Setting::default() };
    assert!(problems(any).contains("listen: cannot be 127.0.0.1:0 for targets that share it"));
}
