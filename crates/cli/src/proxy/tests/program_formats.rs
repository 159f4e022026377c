use super::*;

fn entry(name: &str, host: ListenerHost, user: &str, database: &str) -> ProgramTarget {
    let access = Access {
        host,
        port: 6432,
        user: Some(user.to_owned()),
        database: database.to_owned(),
        is_tls: false,
        has_password: false,
    };
    ProgramTarget { name: name.to_owned(), access, user: user.to_owned() }
}

fn plain() -> ProgramTarget {
    entry("my-server/app", ListenerHost::Tcp("127.0.0.1".to_owned()), "my-app", "app")
}

#[test]
fn the_usual_case_is_as_a_person_would_write_it() {
    let lines = |program| text(program, &[plain()]).unwrap();
    assert_eq!(
        lines(Program::PsqlService),
        "[my-server-app]\nhost=127.0.0.1\nport=6432\nuser=my-app\ndbname=app\nsslmode=disable\n"
    );
    assert_eq!(lines(Program::Jdbc), "jdbc:postgresql://127.0.0.1:6432/app?user=my-app&sslmode=disable\n");
    assert_eq!(
        lines(Program::Npgsql),
        "Host=127.0.0.1;Port=6432;Database=app;Username=my-app;SSL Mode=Disable\n"
    );
    assert_eq!(
        lines(Program::Dotenv),
        "# my-server/app\nDATABASE_URL=postgresql://my-app@127.0.0.1:6432/app?sslmode=disable\n\
         PGHOST=127.0.0.1\nPGPORT=6432\nPGUSER=my-app\nPGDATABASE=app\nPGSSLMODE=disable\n"
    );
    let pgadmin: serde_json::Value = serde_json::from_str(&lines(Program::Pgadmin)).unwrap();
    let expected = serde_json::json!({
        "Name": "my-server/app", "Group": "pgentra", "Host": "127.0.0.1", "Port": 6432,
        "MaintenanceDB": "app", "Username": "my-app",
        "ConnectionParameters": { "sslmode": "disable", "passfile": "/dev/null" },
    });
    assert_eq!(pgadmin["Servers"]["1"], expected);
    let dbeaver: serde_json::Value = serde_json::from_str(&lines(Program::Dbeaver)).unwrap();
    let settings = &dbeaver["connections"]["postgres-jdbc-pgentra-1"]["configuration"];
    assert_eq!((&settings["user"], &settings["port"]), (&"my-app".into(), &"6432".into()));
}

#[test]
fn several_targets_are_told_apart() {
    let entries = [plain(), entry("9 reports", ListenerHost::Unix("/run/pg".to_owned()), "app", "reports")];
    let dotenv = text(Program::Dotenv, &entries).unwrap();
    assert!(dotenv.contains("\nMY_SERVER_APP_PGUSER=my-app\n"), "{dotenv}");
    assert!(
        dotenv.contains("\n_9_REPORTS_DATABASE_URL=postgresql://app@%2Frun%2Fpg:6432/reports\n"),
        "{dotenv}"
    );
    let service = text(Program::PsqlService, &entries).unwrap();
    assert!(service.contains("\n[9-reports]\nhost=/run/pg\n"), "{service}");
    assert_eq!(keys(&[plain(), plain()]), ["my-server-app", "my-server-app-2"]);
}

#[test]
fn a_certificate_and_a_password_are_asked_for() {
    let mut entry = plain();
    (entry.access.is_tls, entry.access.has_password) = (true, true);
    let lines = |program| text(program, std::slice::from_ref(&entry)).unwrap();
    assert!(lines(Program::Npgsql).contains("SSL Mode=Require"));
    assert!(lines(Program::Jdbc).ends_with("&sslmode=require\n"));
    assert!(!lines(Program::Pgadmin).contains("passfile"));
    assert!(lines(Program::Dbeaver).contains("\"save-password\": false"));
}

#[test]
fn a_name_that_a_format_cannot_hold_is_refused_or_left_to_the_uri() {
    let of = |user: &str| [entry("a", ListenerHost::Tcp("::1".to_owned()), user, "app")];
    for (program, user) in [
        (Program::PsqlService, "ends with a blank "),
        (Program::PsqlService, "two\nlines"),
        (Program::Npgsql, "two\nlines"),
        (Program::Dbeaver, "a${user}"),
    ] {
        let problem = text(program, &of(user)).unwrap_err();
        assert!(problem.error_text().contains("cannot be written in"), "{problem:?}");
    }
    let dotenv = text(Program::Dotenv, &of("O'Brien $HOME")).unwrap();
    assert!(dotenv.contains("DATABASE_URL=postgresql://O%27Brien%20%24HOME@[::1]:6432/app"), "{dotenv}");
    assert!(dotenv.contains("\n# PGUSER: "), "{dotenv}");
    assert!(text(Program::Grafana, &of("a$b")).unwrap().contains("user: \"a$$b\""));
    assert!(text(Program::Npgsql, &of("a;b=\"c\"")).unwrap().contains("Username=\"a;b=\"\"c\"\"\""));
}
