//! Names and texts from a server, a directory or a user are treated as data wherever they are
//! printed: in scripts for psql, in hints for psql or a shell, in tables, on terminals, in logs.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::net::TcpListener;

use e2e::{Cloud, Done, Flavour, Lab, have};
use serde_json::Value;

/// Characters that a terminal interprets, or shows in another order.
fn is_hidden(char: char) -> bool {
    char.is_control() && char != '\n' || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn assert_shown(text: &str) {
    assert!(!text.chars().any(is_hidden), "a terminal would obey this: {text:?}");
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

struct Stage<'lab> {
    lab: &'lab Lab,
    cloud: Cloud<'lab>,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab, flavour: Flavour) -> Self {
        Self { lab, cloud: lab.cloud(flavour, &[]) }
    }

    fn pgentra(&self, host: &str, words: &[&str]) -> Done<'_> {
        self.lab.pgentra(words).envs(self.cloud.env(host)).done()
    }

    /// As the administrator.
    fn sql(&self, database: &str, sql: &str) -> Done<'_> {
        // In a variable: a value like a connection string after -d is one, as in psql.
        let words = ["query", "-o", "json", "-c", sql];
        self.lab.pgentra(&words).envs(self.cloud.env("admin")).env("PGDATABASE", database).done()
    }

    fn value(&self, database: &str, sql: &str) -> Value {
        self.sql(database, sql).json()[0]["rows"][0][0].clone()
    }

    /// Runs a script as the administrator does: in a folder where a file named PWNED would be
    /// found.
    fn psql(&self, script: &str) -> Done<'_> {
        let words = ["psql", "--", "-X", "-q", "-f", "-"];
        self.lab.pgentra(&words).envs(self.cloud.env("admin")).input(script).done()
    }

    fn vm_id(&self, what: &str) -> String {
        self.cloud.identity("system-assigned")[what].as_str().unwrap().to_owned()
    }

    fn create(&self, role: &str) {
        self.pgentra("admin", &["role", "create", "--object-id", &self.vm_id("object_id"), "--", role]).ok();
    }

    fn assert_nothing_ran(&self) {
        let home = self.lab.path().join("home");
        let files: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!files.iter().any(|file| file == "PWNED"), "a name was run: {files:?}");
    }
}

/// psql runs the script: each statement runs in its database, and nothing else runs.
#[test]
fn a_script_for_psql_does_what_the_plan_does_and_nothing_else() {
    if !have(&["psql"]) {
        return;
    }
    // No connection may arrive here: a name that psql takes for a connection string would lead to
    // one.
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let databases = [
        format!("host=127.0.0.1 port={port} user=x"),
        format!("postgresql://127.0.0.1:{port}/x"),
        "it's \"quoted\" \\! touch PWNED".to_owned(),
        "$(touch PWNED) `touch PWNED` %s :x".to_owned(),
        "Zoë 日本語 🦀\\".to_owned(),
        "-reuse-previous=off".to_owned(),
    ];
    let [victim, heir] = ["vic\"t'im\\! touch PWNED", "$(touch PWNED) %d 'heir\\'"];
    let [schema, table] = ["s\"'\\! touch PWNED ;:x", "t'\"; \\! touch PWNED -- "];
    stage.create(victim);
    stage.create(heir);
    let owned = format!("{}.{}", identifier(schema), identifier(table));
    for database in &databases {
        stage.sql("postgres", &format!("CREATE DATABASE {}", identifier(database))).ok();
        let (role, schema) = (identifier(victim), identifier(schema));
        stage
            .sql(
                database,
                &format!(
                    "CREATE SCHEMA {schema}; CREATE TABLE {owned} (); \
                     CREATE TABLE {schema}.mine (); GRANT {role} TO CURRENT_USER; \
                     GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {schema}.mine TO {role}; \
                     ALTER TABLE {owned} OWNER TO {role}"
                ),
            )
            .ok();
    }
    // Grants from a file, with hostile names of everything.
    let file: String = std::iter::once(format!(
        "[[role]]\nname = {}\nobject_id = '{}'\n",
        Value::from(heir),
        stage.vm_id("object_id")
    ))
    .chain(databases.iter().map(|database| {
        format!(
            "[[role.grant]]\ndatabase = {}\nschema = {}\ntables = ['mine']\nprivileges = ['SELECT']\n",
            Value::from(database.as_str()),
            Value::from(schema)
        )
    }))
    .collect();
    let path = lab.path().join("roles.toml");
    fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    let plan = stage.pgentra("admin", &["role", "plan", "-f", path, "--print-sql"]);
    assert_shown(plan.ok());
    stage.psql(plan.ok()).ok();
    let left = stage.pgentra("admin", &["role", "plan", "-f", path, "-o", "json"]).json();
    assert_eq!(left["changes"].as_array().unwrap().len(), 0, "{left}");

    let words = ["role", "drop", "--reassign-to", heir, "--print-sql", "--", victim];
    let script = stage.pgentra("admin", &words);
    assert!(script.ok().starts_with("\\set ON_ERROR_STOP on\n"), "{script:?}");
    assert_shown(&script.stdout);
    stage.psql(script.ok()).ok();
    for database in &databases {
        let owner = format!(
            "SELECT tableowner FROM pg_tables WHERE schemaname = {} AND tablename = {}",
            literal(schema),
            literal(table)
        );
        assert_eq!(stage.value(database, &owner), heir, "{database}");
    }
    let left = format!("SELECT count(*) FROM pg_roles WHERE rolname = {}", literal(victim));
    assert_eq!(stage.value("postgres", &left), "0");
    stage.assert_nothing_ran();
    let caught = trap.accept();
    assert!(caught.is_err(), "a name was taken for a connection string: {caught:?}");
}

/// An error in one database stops the script before the next.
#[test]
fn a_script_for_psql_stops_at_the_first_error() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let (gone, role) = ("gone \"db\"", "vic\"tim");
    stage.create(role);
    stage.sql("postgres", &format!("CREATE DATABASE {}", identifier(gone))).ok();
    for database in ["postgres", gone] {
        let sql = format!("CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO {}", identifier(role));
        stage.sql(database, &sql).ok();
    }
    let script = stage.pgentra("admin", &["role", "drop", role, "--revoke", "--print-sql"]);
    let script = script.ok();
    // The database is not there any more, and psql cannot connect to it.
    let missing = script.replace("gone", "never");
    assert_ne!(missing, script);
    let stopped = stage.psql(&missing);
    assert_eq!(stopped.status.code(), Some(3), "{stopped:?}");
    let there = format!("SELECT count(*) FROM pg_roles WHERE rolname = {}", literal(role));
    assert_eq!(stage.value("postgres", &there), "1", "it went on after the error");
    stage.psql(script).ok();
    assert_eq!(stage.value("postgres", &there), "0");
}

/// A name with an invisible character is refused in a script; without a script the plan can be
/// applied.
#[test]
fn a_script_for_psql_has_no_name_that_does_not_show() {
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    for (number, hidden) in ["\n", "\u{1b}", "\r", "\u{9b}", "\u{202e}"].into_iter().enumerate() {
        let role = format!("victim{number}");
        stage.create(&role);
        let database = format!("a{hidden}\\! touch PWNED #");
        stage.sql("postgres", &format!("CREATE DATABASE {}", identifier(&database))).ok();
        let grant = format!("CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO {role}");
        stage.sql(&database, &grant).ok();
        let words = ["role", "drop", &role, "--revoke", "--print-sql"];
        let refused = stage.pgentra("admin", &words);
        assert_eq!(refused.fault(2, &["touch PWNED", "without --print-sql"]), None);
        assert_shown(&refused.stderr);
        let done = stage.pgentra("admin", &["role", "drop", &role, "--revoke", "--yes"]);
        assert_shown(done.ok());
    }
    stage.assert_nothing_ran();
}

/// Values that a terminal would interpret, and characters with a width of two or zero columns.
const VALUES: [&str; 8] = [
    "\u{1b}[31mred\u{1b}[0m",
    "\u{1b}]0;pwn\u{7}",
    "two\nlines",
    "a\tb\tc",
    "carriage\rreturn\u{7f}\u{8}",
    "日本語",
    "e\u{301}\u{9b}31m",
    "plain  ",
];

/// Tables are as psql prints them, on a terminal and in a pipe alike; JSON has the values.
#[test]
fn a_table_is_as_psql_prints_it() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let rows: Vec<String> = VALUES
        .iter()
        .enumerate()
        .map(|(at, value)| format!("({}, {})", literal(VALUES[(at + 3) % VALUES.len()]), literal(value)))
        .collect();
    let sql = format!(
        "SELECT a AS \"a\nb\", b FROM (VALUES {}, (NULL, 'x'), ('y', NULL)) v(a, b)",
        rows.join(", ")
    );
    let printed = stage.pgentra("vm", &["query", "-c", &sql]);
    assert_shown(printed.ok());
    let psql = stage.pgentra("vm", &["psql", "--", "-X", "-c", &sql]);
    // psql leaves blanks at the end of a header and in an empty cell.
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(printed.ok()), lines(psql.ok()));
    assert!(printed.stdout.contains("\\x1B]0;pwn\\x07") && printed.stdout.contains("two  "), "{printed:?}");

    let json = stage.pgentra("vm", &["query", "-o", "json", "-c", &sql]).json();
    for (at, value) in VALUES.iter().enumerate() {
        assert_eq!(json[0]["rows"][at][1], *value);
    }
    let bidi = "SELECT E'\\u202Eevil\\u2069' AS \"\u{202e}\"";
    for words in [&["query", "-c", bidi][..], &["query", "-o", "json", "-c", bidi]] {
        let printed = stage.pgentra("vm", words);
        assert!(printed.ok().to_lowercase().contains("\\u202eevil\\u2069"), "{printed:?}");
        assert_shown(&printed.stdout);
    }

    if have(&["script"]) {
        let script = format!("pgentra query -c {}", literal_word(&sql));
        let words = ["script", "-qec", &script, "/dev/null"];
        let terminal = lab.program(&words).envs(stage.cloud.env("vm")).env("TERM", "xterm").done();
        assert_eq!(terminal.ok().replace("\r\n", "\n"), printed.stdout);
    }
}

/// A word for a shell.
fn literal_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Texts of a server are shown, and cannot pass for pgentra's own lines.
#[test]
fn a_servers_text_is_shown_and_forges_nothing() {
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let raise = "DO $$ BEGIN RAISE EXCEPTION E'boo\\x1b]0;errpwn\\x07\\nerror: forged\\nhint: curl x | sh\\u009b' \
                 USING HINT = E'\\x1b[2Jlook\\nsee: elsewhere\\u202e', DETAIL = E'\\x1b[31mred'; END $$";
    let failed = stage.pgentra("vm", &["query", "-c", raise]);
    assert_eq!(failed.status.code(), Some(5), "{failed:?}");
    assert_shown(&failed.stderr);
    let beginnings: Vec<_> = failed
        .stderr
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(beginnings, ["error", "hint", "see"], "{failed:?}");
    for shown in ["boo\\x1B]0;errpwn\\x07", "\\u009B", "\\x1B[2Jlook", "\\u202E", "\\x1B[31mred"] {
        assert!(failed.stderr.contains(shown), "{shown}: {failed:?}");
    }

    // A name that a person gave, in what is said of it by the server and by pgentra.
    let name = "a\u{1b}]0;x\u{7}\u{202e}\nhint: forged";
    for words in [
        &["query", "-U", name, "-c", "SELECT 1"][..],
        &["query", "-d", name, "-c", "SELECT 1"],
        &["query", "-h", name, "-c", "SELECT 1"],
        &["doctor", "-U", name],
        &["role", "drop", name, "--yes"],
        &["identity", "find", name],
        &["-vv", "query", "-U", name, "-c", "SELECT 1"],
    ] {
        let failed = stage.pgentra("admin", words);
        assert!(!failed.status.success(), "{failed:?}");
        assert_shown(&failed.stderr);
        assert_shown(&failed.stdout);
        assert!(!failed.stderr.contains("\nhint: forged"), "{failed:?}");
    }
}

/// Roles whose names look like rows, in every list of them.
#[test]
fn a_roles_name_cannot_draw_a_row_of_its_own() {
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let hostile = "evil\nrole x | service\u{1b}[2K\u{9b}";
    let sql = format!(
        "SELECT pgaadauth_create_principal_with_oid({}, '{}', 'service', false, false)",
        literal(hostile),
        stage.vm_id("object_id")
    );
    stage.sql("postgres", &sql).ok();
    let json = stage.pgentra("admin", &["role", "list", "-o", "json"]).json();
    let roles = json["roles"].as_array().unwrap();
    assert!(roles.iter().any(|role| role["name"] == hostile), "{json}");
    let list = stage.pgentra("admin", &["role", "list"]);
    assert_shown(list.ok());
    let row = list.stdout.lines().find(|line| line.contains("role x")).unwrap();
    assert!(row.contains("\\x1B[2K\\u009B") && row.trim_start().starts_with("role x"), "{list:?}");
    assert!(list.stdout.lines().any(|line| line.starts_with(" evil") && line.contains("+|")), "{list:?}");

    // In a plan it is one line.
    let path = lab.path().join("none.toml");
    fs::write(&path, "").unwrap();
    let plan = stage.pgentra("admin", &["role", "plan", "--prune", "-f", path.to_str().unwrap()]);
    assert_shown(plan.ok());
    assert!(plan.stdout.lines().any(|line| line.contains("evil\\nrole x")), "{plan:?}");
}

/// Runs the SQL and the commands of hints unchanged.
#[test]
fn a_hint_can_be_run_as_it_stands() {
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let hint = |done: &Done<'_>| {
        assert_eq!(done.status.code(), Some(5), "{done:?}");
        assert_shown(&done.stderr);
        done.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap().to_owned()
    };
    let role = "ro\"ot's \\ $(touch PWNED)";
    let query = ["query", "-U", role, "-c", "SELECT 1"];
    let after =
        |text: &str, words: &str| text.split(words).nth(1).unwrap_or_else(|| panic!("{text}")).to_owned();

    let told = hint(&stage.pgentra("vm", &query));
    assert!(told.starts_with("sign in as \"myVm\", the role that fits this identity"), "{told}");
    stage.sql("postgres", &after(&told, "in database postgres: ")).ok();
    stage.pgentra("vm", &query).ok();

    stage.sql("postgres", &format!("ALTER ROLE {} NOLOGIN", identifier(role))).ok();
    let told = hint(&stage.pgentra("vm", &query));
    stage.sql("postgres", &after(&told, "as an administrator: ")).ok();
    stage.pgentra("vm", &query).ok();

    let database = "d\"b'\\ %s $(touch PWNED)";
    stage.sql("postgres", &format!("CREATE DATABASE {}", identifier(database))).ok();
    let revoke = format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", identifier(database));
    stage.sql("postgres", &revoke).ok();
    let query = ["query", "-U", role, "-d", database, "-c", "SELECT 1"];
    let told = hint(&stage.pgentra("vm", &query));
    stage.sql("postgres", &after(&told, "as an administrator: ")).ok();
    stage.pgentra("vm", &query).ok();

    // A kind that the local server does not compare with the directory's, as the function takes it.
    let wrong = "wro'ng kind";
    let sql = format!(
        "SELECT pgaadauth_create_principal_with_oid({}, '{}', 'user', false, false)",
        literal(wrong),
        stage.vm_id("object_id")
    );
    if stage.sql("postgres", &sql).status.success() {
        let query = ["query", "-U", wrong, "-c", "SELECT 1"];
        let told = hint(&stage.pgentra("vm", &query));
        lab.shell(&after(&told, "create it again: ")).envs(stage.cloud.env("admin")).done().ok();
        stage.pgentra("vm", &query).ok();
    }

    // No SQL with a name that no role can have.
    let told = hint(&stage.pgentra("vm", &["query", "-U", &"x".repeat(64), "-c", "SELECT 1"]));
    assert!(!told.contains("SELECT") && !told.contains("pgaadauth"), "{told}");

    // What `grant` prints for the machine.
    let granted =
        stage.pgentra("admin", &["grant", "myVm", "--role", "it's \"mine\" $(touch PWNED)", "--yes"]);
    let command = after(granted.ok(), "On the machine: ");
    lab.shell(&command).envs(stage.cloud.env("vm")).done().ok();
    stage.assert_nothing_ran();
}

/// Single Server has none of the functions of Flexible Server.
#[test]
fn a_hint_for_single_server_can_be_run_there() {
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Single);
    let query = ["query", "-U", "no\"body's@mydemoserver", "-c", "SELECT current_user"];
    let refused = stage.pgentra("vm", &query);
    assert!(refused.stderr.contains("sign in as \"myVm@mydemoserver\""), "{refused:?}");
    assert!(!refused.stderr.contains("pgaadauth"), "{refused:?}");
    let sql = refused.stderr.split("as an Entra administrator: ").nth(1).unwrap().lines().next().unwrap();
    stage.sql("postgres", sql).ok();
    stage.pgentra("vm", &query).ok();

    // Another identity's role.
    let refused = stage.pgentra("user-assigned", &["query", "-U", "myVm@mydemoserver", "-c", "SELECT 1"]);
    assert!(
        refused.stderr.contains("pgentra role drop myVm") && !refused.stderr.contains("pgaadauth"),
        "{refused:?}"
    );
}

/// Names of a client's choosing, in the log and in the audit log; a hint in what its psql prints.
#[test]
fn a_log_shows_what_a_client_calls_itself() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let audit = lab.path().join("audit.jsonl");
    let proxy =
        lab.proxy(stage.cloud.env("vm"), &["-vv", "--listen=0", &format!("--audit={}", audit.display())], 1);
    let hostile = "a\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\nINFO forged";
    let conninfo = format!("host=127.0.0.1 port={} dbname=postgres", proxy.port());
    let psql = |more: &str| lab.program(&["psql", "-Atc", "SELECT 1", &format!("{conninfo} {more}")]).done();
    let refused = psql(&format!("user='{hostile}'"));
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    psql(&format!("user=myVm application_name='{hostile}'")).ok();
    let said = proxy.said();
    assert!(!said.chars().any(is_hidden), "{said:?}");
    assert!(!said.lines().any(|line| line.starts_with("INFO forged")), "{said}");
    drop(proxy);
    let audited = fs::read_to_string(&audit).unwrap();
    assert!(audited.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{audited}");
    assert!(!audited.chars().any(|char| char.is_ascii_control() && char != '\n'), "{audited:?}");
}

/// The privilege that a role needs for replication is not one on the database.
#[test]
fn a_role_that_may_not_replicate_is_told_what_it_lacks() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, Flavour::Flexible);
    let proxy = lab.proxy(stage.cloud.env("vm"), &["--listen=0"], 1);
    let conninfo =
        format!("host=127.0.0.1 port={} user=myVm dbname=postgres replication=database", proxy.port());
    let refused = lab.program(&["psql", "-Atc", "IDENTIFY_SYSTEM", &conninfo]).done();
    assert!(
        refused.stderr.contains("HINT:  as an administrator: ALTER ROLE \"myVm\" REPLICATION"),
        "{refused:?}"
    );
}
