//! From five layers of settings to one target.

use pgentra_connect::{
    ConnectError, ConnectErrorKind, Layers, LoadBalanceHosts, Origin, SessionAttrs, SslMode, SslNegotiation,
    Target,
};
use pgentra_emulator::certificates::Authority;
use pgentra_system::{Env, Files};

/// A place where each layer can be filled.
#[derive(Default)]
struct Place<'a> {
    positional: Option<&'a str>,
    flags: &'a [(&'a str, &'a str)],
    variables: &'a [(&'a str, &'a str)],
    service_file: &'a str,
    files: &'a [(&'a str, &'a str)],
}

impl Place<'_> {
    fn resolve(&self) -> Result<Target, ConnectError> {
        let files = Files::in_memory();
        files.put("/home/ada/.pg_service.conf", self.service_file);
        for (path, content) in self.files {
            files.put(*path, *content);
        }
        let variables = self.variables.iter().copied().chain([("HOME", "/home/ada")]);
        let flags: Vec<(&str, String)> =
            self.flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Target::resolve(&Layers::gather(self.positional, &flags, &Env::from_map(variables), &files)?)
    }
}

fn shown(target: &Target) -> String {
    let endpoint = &target.endpoints()[0];
    format!("{}@{}:{}/{}", target.user(), endpoint.host, endpoint.port, target.database())
}

/// All five layers name everything; from row to row the topmost one is taken away.
#[test]
fn the_first_layer_that_names_a_keyword_decides_it() {
    let service_file = "[s]\nhost=service\nport=4\nuser=u4\ndbname=d4\n";
    let flags = [("host", "flag"), ("port", "2"), ("user", "u2"), ("dbname", "d2")];
    let variables = [
        ("PGSERVICE", "s"),
        ("AZURE_POSTGRESQL_HOST", "azure"),
        ("AZURE_POSTGRESQL_PORT", "5"),
        ("AZURE_POSTGRESQL_USER", "u5"),
        ("AZURE_POSTGRESQL_DATABASE", "d5"),
        ("PGHOST", "variable"),
        ("PGPORT", "3"),
        ("PGUSER", "u3"),
        ("PGDATABASE", "d3"),
    ];
    let uri = "postgresql://u1@uri:1/d1";
    let full =
        Place { positional: Some(uri), flags: &flags, variables: &variables, service_file, files: &[] };
    let without_uri = Place { positional: None, ..full };
    let without_flags = Place { flags: &[], ..without_uri };
    let without_service = Place { variables: &variables[1..], ..without_flags };
    let only_azure = Place { variables: &variables[1..5], ..without_service };
    let service = Origin::ServiceFile { path: "/home/ada/.pg_service.conf".into(), service: "s".to_owned() };
    for (place, expected, origin) in [
        (&full, "u1@uri:1/d1", Origin::Positional),
        (&without_uri, "u2@flag:2/d2", Origin::Flag),
        (&without_flags, "u4@service:4/d4", service),
        (&without_service, "u3@variable:3/d3", Origin::Variable("PGHOST".to_owned())),
        (&only_azure, "u5@azure:5/d5", Origin::ServiceConnector("AZURE_POSTGRESQL_HOST")),
    ] {
        let target = place.resolve().unwrap();
        assert_eq!(shown(&target), expected);
        let host = target.decided().iter().find(|decided| decided.keyword == "host").unwrap();
        assert_eq!(host.origin, origin);
    }
}

#[test]
fn keywords_are_decided_one_by_one() {
    let place = Place {
        positional: Some("mydb"),
        flags: &[("user", "myuser")],
        variables: &[("PGHOST", "h"), ("PGUSER", "other"), ("PGDATABASE", "other"), ("PGSERVICE", "s")],
        service_file: "[s]\nport=6432\nuser=none\nconnect_timeout=3\n",
        ..Place::default()
    };
    let target = place.resolve().unwrap();
    assert_eq!(shown(&target), "myuser@h:6432/mydb");
    assert_eq!(target.connect_timeout().as_secs(), 3);
    let decided: Vec<String> =
        target.decided().iter().map(|d| format!("{}={} by {}", d.keyword, d.value, d.origin)).collect();
    assert_eq!(
        decided,
        [
            "host=h by PGHOST",
            "port=6432 by [s] in /home/ada/.pg_service.conf",
            "user=myuser by a flag",
            "dbname=mydb by the connection string",
            "sslmode=verify-full by the default",
            "connect_timeout=3 by [s] in /home/ada/.pg_service.conf",
        ]
    );
}

/// As in psql: a service overrules the variables, wherever it is named; whatever stands beside its name overrules it.
#[test]
fn a_service_overrules_variables() {
    let service_file = "[s]\nhost=service\nport=4\nuser=u4\ndbname=d4\n";
    let stale = [("PGHOST", "stale"), ("PGPORT", "3"), ("PGUSER", "u3"), ("PGDATABASE", "d3")];
    let with_variable = [&stale[..], &[("PGSERVICE", "s")]].concat();
    for (positional, flags, variables, expected) in [
        (Some("service=s"), &[][..], &stale[..], "u4@service:4/d4"),
        (Some("postgresql:///?service=s"), &[], &stale, "u4@service:4/d4"),
        (Some("service=s port=9 dbname=x"), &[], &stale, "u4@service:9/x"),
        (Some("service=s"), &[("user", "u2")], &stale, "u2@service:4/d4"),
        (None, &[("dbname", "service=s")], &stale, "u4@service:4/d4"),
        (None, &[], &with_variable, "u4@service:4/d4"),
        (Some("mydb"), &[("host", "h")], &with_variable, "u4@h:4/mydb"),
    ] {
        let place = Place { positional, flags, variables, service_file, files: &[] };
        assert_eq!(shown(&place.resolve().unwrap()), expected, "{positional:?} {flags:?}");
    }
    let place = Place {
        positional: Some("service=s"),
        service_file: "[s]\nhost=service\n",
        variables: &stale,
        ..Place::default()
    };
    assert_eq!(shown(&place.resolve().unwrap()), "u3@service:3/d3", "what a service leaves open");
}

#[test]
fn each_way_to_write_it() {
    for (positional, flags, expected) in [
        (Some("postgresql://myuser@h/mydb"), &[][..], "myuser@h:5432/mydb"),
        (Some("postgresql://myuser@h"), &[], "myuser@h:5432/myuser"),
        (Some("host=h user=myuser dbname=mydb port=5433"), &[], "myuser@h:5433/mydb"),
        (Some("host=h user=myuser@mydemoserver dbname=mydb"), &[], "myuser@mydemoserver@h:5432/mydb"),
        (None, &[("dbname", "postgresql://myuser@h/mydb")], "myuser@h:5432/mydb"),
        (None, &[("dbname", "host=h user=myuser")], "myuser@h:5432/myuser"),
        (None, &[("dbname", "mydb"), ("host", "h"), ("user", "My Group")], "My Group@h:5432/mydb"),
        (Some("host=h user=a user=b"), &[], "b@h:5432/b"),
        (Some("host=h user=u port=''"), &[], "u@h:5432/u"),
        (Some("service=s user=u"), &[], "u@service:5432/u"),
        (Some("postgresql:///?service=s&user=u"), &[], "u@service:5432/u"),
    ] {
        let place =
            Place { positional, flags, service_file: "[s]\nhost=service\npassword=x\n", ..Place::default() };
        assert_eq!(shown(&place.resolve().unwrap()), expected, "{positional:?} {flags:?}");
    }
}

#[test]
fn service_connector_asks_for_less_and_gets_more() {
    let text = "dbname=mydb host=s.postgres.database.azure.com port=5432 sslmode=require user=myuser";
    let variables = [("AZURE_POSTGRESQL_CONNECTIONSTRING", text)];
    let target = Place { variables: &variables, ..Place::default() }.resolve().unwrap();
    assert_eq!(shown(&target), "myuser@s.postgres.database.azure.com:5432/mydb");
    assert_eq!(target.ssl_mode(), SslMode::VerifyFull);
}

#[test]
fn every_setting_has_its_place() {
    let authority = Authority::generate().unwrap();
    let target = Place {
        positional: Some(
            "host=a,b hostaddr=127.0.0.1,::1 port=1,2 user=u sslmode=verify-ca sslrootcert=/ca.pem \
             sslnegotiation=direct connect_timeout=9 application_name=app options='-c x=y' keepalives_idle=30 \
             keepalives_interval=5 keepalives_count=3 tcp_user_timeout=2500 channel_binding=prefer target_session_attrs=primary \
             load_balance_hosts=random",
        ),
        files: &[("/ca.pem", authority.pem())],
        ..Place::default()
    };
    let target = target.resolve().unwrap();
    let endpoints: Vec<String> =
        target.endpoints().iter().map(|e| format!("{e} {}", e.address.unwrap())).collect();
    assert_eq!(endpoints, ["a:1 127.0.0.1", "b:2 ::1"]);
    assert_eq!((target.ssl_mode(), target.ssl_negotiation()), (SslMode::VerifyCa, SslNegotiation::Direct));
    assert_eq!(target.connect_timeout().as_secs(), 9);
    assert_eq!((target.application_name(), target.options()), (Some("app"), Some("-c x=y")));
    let keep_alive = target.keep_alive().unwrap();
    assert_eq!((keep_alive.idle.as_secs(), keep_alive.interval.as_secs(), keep_alive.count), (30, 5, 3));
    assert_eq!(target.to_string(), "role \"u\" on a:1, b:2, database \"u\", sslmode=verify-ca");
    assert_eq!(target.user_timeout().unwrap().as_millis(), 2500);
    assert_eq!(target.session_attrs(), SessionAttrs::Primary);
    assert_eq!(target.load_balance_hosts(), LoadBalanceHosts::Random);
    let off = "host=h user=u keepalives=0 tcp_user_timeout=0";
    let off = Place { positional: Some(off), ..Place::default() }.resolve().unwrap();
    assert_eq!((off.keep_alive(), off.user_timeout()), (None, None));
    let fallback = "host=::1 user=u fallback_application_name=f";
    let fallback = Place { positional: Some(fallback), ..Place::default() }.resolve().unwrap();
    assert_eq!(
        (fallback.application_name(), fallback.endpoints()[0].to_string().as_str()),
        (Some("f"), "[::1]:5432")
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let base = "host=h user=u ";
    for (more, says) in [
        ("sslmode=disable", "sslmode=disable"),
        ("sslmode=allow", "sslmode=allow"),
        ("sslmode=prefer", "sslmode=prefer"),
        ("sslmode=require", "sslmode=require"),
        ("sslmode=verify-all", "sslmode cannot be \"verify-all\""),
        ("sslmode=verify-ca", "sslmode=verify-ca needs"),
        ("sslmode=verify-ca sslrootcert=system", "sslmode=verify-ca needs"),
        ("sslrootcert=/absent", "/absent cannot be read"),
        ("sslrootcert=/empty", "no certificate"),
        ("sslnegotiation=maybe", "sslnegotiation cannot be"),
        ("connect_timeout=0", "connect_timeout cannot be \"0\""),
        ("connect_timeout=-1", "connect_timeout cannot be"),
        ("connect_timeout=3601", "connect_timeout cannot be"),
        ("connect_timeout=1s", "connect_timeout cannot be"),
        ("keepalives=yes", "keepalives cannot be"),
        ("keepalives_count=many", "keepalives_count cannot be"),
        ("tcp_user_timeout=1s", "tcp_user_timeout cannot be"),
        ("tcp_user_timeout=2147483648", "tcp_user_timeout cannot be"),
        ("target_session_attrs=master", "target_session_attrs cannot be \"master\""),
        ("load_balance_hosts=on", "load_balance_hosts cannot be \"on\""),
        ("port=0", "port cannot be \"0\""),
        ("port=65536", "port cannot be"),
        ("port=x", "port cannot be"),
        ("port=1,2", "2 ports are named for 1 hosts"),
        ("hostaddr=localhost", "hostaddr cannot be"),
        ("hostaddr=::1,::1", "2 values of hostaddr are named for 1 hosts"),
        ("host=/var/run/postgresql", "a Unix socket has no TLS"),
        ("host=@socket", "a Unix socket has no TLS"),
        ("host=a,,b", "one of the hosts has no name"),
        ("password=hunter2", "a password is given"),
        ("channel_binding=require", "channel_binding=require"),
        ("sslkey=x", "\"sslkey\" is not supported"),
        ("sslmod=x", "there is no connection keyword \"sslmod\""),
        ("service=absent", "there is no connection service \"absent\""),
    ] {
        let text = format!("{base}{more}");
        let files = [("/empty", "nothing")];
        let error =
            Place { positional: Some(&text), files: &files, ..Place::default() }.resolve().unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Config, "{more}");
        assert!(error.to_string().contains(says), "{more}: {error}");
        assert!(!format!("{error:?} {:?}", error.hint()).contains("hunter2"));
    }
    let many = format!("user=u host={}", vec!["h"; 17].join(","));
    assert!(Place { positional: Some(&many), ..Place::default() }.resolve().is_err());
}

#[test]
fn host_and_role_are_never_guessed() {
    for (positional, says) in [("user=u", "no server is named"), ("host=h", "no database role is named")] {
        let error = Place { positional: Some(positional), ..Place::default() }.resolve().unwrap_err();
        assert!(error.to_string().contains(says) && error.hint().is_some());
    }
}

#[test]
fn a_variable_in_the_way_is_named() {
    for (variable, value) in [("PGCHANNELBINDING", "require"), ("PGREQUIREAUTH", "scram-sha-256")] {
        let place =
            Place { positional: Some("host=h user=u"), variables: &[(variable, value)], ..Place::default() };
        let error = place.resolve().unwrap_err();
        assert!(error.to_string().contains(variable), "{error}");
    }
    for (variable, value) in
        [("PGSSLMODE", "require"), ("PGTARGETSESSIONATTRS", "master"), ("PGLOADBALANCEHOSTS", "yes")]
    {
        let place =
            Place { positional: Some("host=h user=u"), variables: &[(variable, value)], ..Place::default() };
        let hint = place.resolve().unwrap_err().hint().unwrap();
        assert!(hint.contains(variable), "{hint}");
    }
    // A password of psql's is no business of ours.
    let variables = [("PGPASSWORD", "x"), ("PGPASSFILE", "/y")];
    Place { positional: Some("host=h user=u"), variables: &variables, ..Place::default() }.resolve().unwrap();
}
