//! A pooled session goes only to a client that could sign in now, and equals a new session.

use std::time::Duration;

use eventually::{DEADLINE, eventually, holds, within};
use pgentra_proxy::Options;
use pgentra_session::Limits;
use tokio_postgres::{Client, NoTls};

use crate::fixture::{ROLE, Raw, Running, Stage, one, pid, run};

/// Something that is changed while a session is kept. `{r}` is its role, `{d}` its database; each case has its own.
struct Case {
    about: &'static str,
    /// SQL of the superuser before the first client comes, in the database.
    before: &'static str,
    /// SQL of the superuser while a session is pooled. Statements for the administrator begin with
    /// `@`.
    change: &'static str,
    /// The query of the next client.
    ask: &'static str,
    /// Its result, or the SQLSTATE of the refusal.
    answer: Result<&'static str, &'static str>,
}

const WHO: &str = "SELECT session_user::text";

const fn case(
    about: &'static str,
    change: &'static str,
    ask: &'static str,
    answer: Result<&'static str, &'static str>,
) -> Case {
    Case { about, before: "", change, ask, answer }
}

/// Schemas that a role's own `search_path` puts before `pg_catalog`: a check that named an operator without its schema would
/// be answered by these.
const HIJACK: &str = "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
    CREATE FUNCTION evil.yes(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION evil.yes(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION evil.yes(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.yes);
    CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.yes);
    CREATE OPERATOR evil.>= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.yes);
    CREATE FUNCTION evil.md5(text) RETURNS text LANGUAGE sql AS 'SELECT ''x''::text';
    CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT ''x''::bytea';
    CREATE VIEW evil.pg_roles AS SELECT 1 AS oid; CREATE VIEW evil.pg_database AS SELECT 1 AS oid;
    ALTER ROLE {r} SET search_path = evil, pg_catalog, public;";

const CASES: &[Case] = &[
    case("NOLOGIN", "ALTER ROLE {r} NOLOGIN", WHO, Err("28000")),
    case("VALID UNTIL passed", "ALTER ROLE {r} VALID UNTIL 'yesterday'", WHO, Err("08006")),
    case("CONNECTION LIMIT of the role", "ALTER ROLE {r} CONNECTION LIMIT 0", WHO, Err("53300")),
    case("dropped", "@SELECT pgaadauth_drop_principal_if_exists('{r}')", WHO, Err("28000")),
    case(
        "created again",
        "@SELECT pgaadauth_drop_principal_if_exists('{r}'); {map}",
        "SELECT current_user::text || (SELECT ' ' || (r.oid = (SELECT usesysid FROM pg_stat_activity \
         WHERE pid = pg_backend_pid()))::text FROM pg_roles r WHERE rolname = current_user)",
        Ok("{r} true"),
    ),
    case(
        "mapped to another principal",
        "@SELECT pgaadauth_update_principal_with_oid('{r}', '00000000-0000-0000-0000-000000000001', 'service', false, false)",
        WHO,
        Err("28000"),
    ),
    case(
        "mapped to another principal and back",
        "@SELECT pgaadauth_update_principal_with_oid('{r}', '00000000-0000-0000-0000-000000000001', 'service', false, false);
         SELECT pgaadauth_update_principal_with_oid('{r}', '{me}', 'service', false, false)",
        WHO,
        Ok("{r}"),
    ),
    case("no longer mapped", "REVOKE pgentra_principal FROM {r}", WHO, Err("28000")),
    case("renamed", "ALTER ROLE {r} RENAME TO {r}_old", WHO, Err("28000")),
    case(
        "renamed, and its name given to another",
        "ALTER ROLE {r} RENAME TO {r}_old; @{map}",
        "SELECT (SELECT rolname::text FROM pg_roles r JOIN pg_stat_activity a ON a.usesysid = r.oid \
         WHERE a.pid = pg_backend_pid())",
        Ok("{r}"),
    ),
    case("a setting of the role", "ALTER ROLE {r} SET work_mem = '33MB'", "SHOW work_mem", Ok("33MB")),
    case(
        "a setting of the role in the database",
        "ALTER ROLE {r} IN DATABASE {d} SET work_mem = '34MB'",
        "SHOW work_mem",
        Ok("34MB"),
    ),
    case(
        "a setting of the database",
        "ALTER DATABASE {d} SET default_transaction_isolation = 'serializable'",
        "SHOW transaction_isolation",
        Ok("serializable"),
    ),
    case(
        "a setting of all roles in the database",
        "ALTER ROLE ALL IN DATABASE {d} SET work_mem = '35MB'",
        "SHOW work_mem",
        Ok("35MB"),
    ),
    Case {
        about: "a setting that is taken away",
        before: "ALTER ROLE {r} SET work_mem = '33MB'",
        change: "ALTER ROLE {r} RESET work_mem",
        ask: "SHOW work_mem",
        answer: Ok("4MB"),
    },
    Case {
        about: "a setting behind a search_path that leads elsewhere",
        before: HIJACK,
        change: "ALTER ROLE {r} SET work_mem = '36MB'",
        ask: "SHOW work_mem",
        answer: Ok("36MB"),
    },
    Case {
        about: "NOLOGIN behind a search_path that leads elsewhere",
        before: HIJACK,
        change: "ALTER ROLE {r} NOLOGIN",
        ask: WHO,
        answer: Err("28000"),
    },
    Case {
        about: "membership in the role that a session begins in",
        before: "CREATE ROLE {r}_owner; GRANT {r}_owner TO {r}; ALTER ROLE {r} SET role = '{r}_owner'",
        change: "REVOKE {r}_owner FROM {r}",
        ask: "SELECT current_user::text",
        answer: Ok("{r}"),
    },
    Case {
        about: "membership at one remove",
        before: "CREATE ROLE {r}_top; CREATE ROLE {r}_middle; GRANT {r}_top TO {r}_middle; GRANT {r}_middle TO {r}",
        change: "REVOKE {r}_top FROM {r}_middle",
        ask: "SELECT pg_has_role('{r}_top', 'MEMBER')::text",
        answer: Ok("false"),
    },
    case("an attribute of the role", "ALTER ROLE {r} CREATEDB", WHO, Ok("{r}")),
    case("CONNECT revoked", "REVOKE CONNECT ON DATABASE {d} FROM PUBLIC", WHO, Err("42501")),
    case("ALLOW_CONNECTIONS", "ALTER DATABASE {d} ALLOW_CONNECTIONS false", WHO, Err("55000")),
    case("CONNECTION LIMIT of the database", "ALTER DATABASE {d} CONNECTION LIMIT 0", WHO, Err("53300")),
    case("dropped database", "DROP DATABASE {d} WITH (FORCE)", WHO, Err("3D000")),
    case(
        "a reload of the configuration",
        "ALTER SYSTEM SET log_disconnections = on; SELECT pg_reload_conf(); ALTER SYSTEM RESET log_disconnections",
        "SHOW log_disconnections",
        Ok("on"),
    ),
];

/// A separate server: its configuration is reloaded, which would end the pooled sessions of other
/// tests.
struct Theatre {
    stage: Stage,
    superuser: Client,
    administrator: Client,
    direct: Running,
}

impl Theatre {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let superuser = stage.superuser().await;
        let direct = stage.inject("").await;
        let administrator = direct.connect(ROLE, "postgres").await.unwrap();
        Self { stage, superuser, administrator, direct }
    }

    fn fill(&self, sql: &str, name: &str) -> String {
        let me = self.stage.azure.vm().object_id().to_string();
        let map = "SELECT pgaadauth_create_principal_with_oid('{r}', '{me}', 'service', false, false)";
        sql.replace("{map}", map).replace("{me}", &me).replace("{r}", name).replace("{d}", name)
    }

    /// A role that is mapped to this identity.
    async fn role(&self, name: &str) {
        self.administrator.batch_execute(&self.fill("{map}", name)).await.unwrap();
    }

    /// The same, and a database of the same name.
    async fn role_and_database(&self, name: &str) {
        self.role(name).await;
        self.superuser.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    }

    /// The server processes of this role's clients.
    async fn processes(&self, name: &str) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'";
        self.superuser.query(sql, &[&name]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn until_processes(&self, name: &str, number: usize) {
        let what = format!("{number} server processes of {name}");
        let processes = async || holds(self.processes(name).await, |there| there.len() == number);
        eventually(DEADLINE, &what, processes).await;
    }

    async fn change(&self, sql: &str, name: &str) {
        // One by one: a database is not dropped in a transaction.
        for statement in self.fill(sql, name).split(';') {
            let statement = statement.trim();
            let (client, statement) = match statement.strip_prefix('@') {
                Some(statement) => (&self.administrator, statement),
                None if statement.starts_with("SELECT pgaadauth") => (&self.administrator, statement),
                None => (&self.superuser, statement),
            };
            let loaded = self.loaded().await;
            client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            if statement.contains("pg_reload_conf") {
                let again = async || self.loaded().await != loaded;
                eventually(DEADLINE, "the server has read its configuration again", again).await;
            }
        }
    }

    /// When the server that a new client finds has read its configuration.
    async fn loaded(&self) -> String {
        one(&self.stage.superuser().await, "SELECT pg_conf_load_time()::text").await
    }

    async fn keeping(&self, options: &Options) -> Running {
        Running::with(self.stage.connector(""), options.clone()).await
    }
}

/// What a client gets: an answer and its server process, or a SQLSTATE.
async fn ask(running: &Running, role: &str, database: &str, sql: &str) -> Result<(String, i32), String> {
    match running.connect(role, database).await {
        Ok(client) => Ok((one(&client, sql).await, pid(&client).await)),
        Err(error) => Err(error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned()),
    }
}

fn warm() -> Options {
    Options { warm: 1, ..Options::default() }
}

fn reuse() -> Options {
    Options { reuse: true, ..Options::default() }
}

/// A session waits, something is changed, and a client comes: it gets what it would get without the proxy's keeping any.
async fn play(theatre: &Theatre, options: &Options, case: &Case, name: &str) {
    let about = case.about;
    let is_own = case.change.contains("{d}") || case.before.contains("SCHEMA");
    let database = if is_own { name } else { "postgres" };
    match is_own {
        true => theatre.role_and_database(name).await,
        false => theatre.role(name).await,
    }
    if !case.before.is_empty() {
        let inside = theatre.stage.superuser_in(database).await;
        inside.batch_execute(&theatre.fill(case.before, name)).await.unwrap();
    }
    let running = theatre.keeping(options).await;
    drop(running.connect(name, database).await.unwrap_or_else(|error| panic!("{about}: {error:?}")));
    running.until_supply(|supply| supply.ready == 1).await;
    // The first one of `warm` has left.
    theatre.until_processes(name, 1).await;
    let kept = theatre.processes(name).await;
    theatre.change(case.change, name).await;

    let ask_for = theatre.fill(case.ask, name);
    let found = ask(&running, name, database, &ask_for).await;
    let expected = case.answer.map(|answer| theatre.fill(answer, name)).map_err(str::to_owned);
    assert_eq!(found.clone().map(|(answer, _)| answer), expected, "{about}");
    if let Ok((_, process)) = found {
        assert!(!kept.contains(&process), "{about}: the session from before the change");
    }
    assert_eq!(running.proxy.supply().hits, 0, "{about}");
    // A client of a proxy without a pool gets the same.
    let new = ask(&theatre.direct, name, database, &ask_for).await.map(|(answer, _)| answer);
    assert_eq!(new, expected, "{about}: without kept sessions");
    running.shutdown.cancel();
    running.served.await.unwrap();
}

#[test]
fn a_client_gets_what_a_new_session_would_be() {
    run(async {
        let theatre = Theatre::new().await;
        for (kind, options) in [("reuse", reuse()), ("warm", warm())] {
            for (number, case) in CASES.iter().enumerate() {
                let name = format!("{kind}_{number}");
                within(DEADLINE, case.about, play(&theatre, &options, case, &name)).await;
            }
        }
    });
}

#[test]
fn where_nothing_has_changed_the_session_is_used() {
    run(async {
        let theatre = Theatre::new().await;
        theatre.role_and_database("same").await;
        // Of a busy server, whose other roles, databases and settings come and go.
        for options in [reuse(), warm()] {
            let running = theatre.keeping(&options).await;
            drop(running.connect("same", "same").await.unwrap());
            within(DEADLINE, "a kept session", running.until_supply(|supply| supply.ready == 1)).await;
            theatre.until_processes("same", 1).await;
            let kept = theatre.processes("same").await;
            theatre
                .change(
                    "CREATE ROLE other LOGIN; ALTER ROLE other SET work_mem = '1MB'; GRANT pg_monitor TO other; \
                     ALTER ROLE other CONNECTION LIMIT 0; CREATE TABLE busy (); DROP TABLE busy; DROP ROLE other; \
                     VACUUM pg_database; ANALYZE",
                    "same",
                )
                .await;
            let (_, process) = ask(&running, "same", "same", WHO).await.unwrap();
            assert_eq!([process], kept[..]);
            assert_eq!(running.proxy.supply().hits, 1);
            running.shutdown.cancel();
            running.served.await.unwrap();
            theatre.until_processes("same", 0).await;
        }
    });
}

#[test]
fn nothing_is_kept_where_a_trigger_runs_when_a_session_begins() {
    run(async {
        let theatre = Theatre::new().await;
        theatre.role_and_database("watched").await;
        let inside = theatre.stage.superuser_in("watched").await;
        inside
            .batch_execute(
                "CREATE SEQUENCE begun; GRANT ALL ON begun TO PUBLIC;
                 CREATE FUNCTION begins() RETURNS event_trigger LANGUAGE plpgsql AS
                     $$BEGIN PERFORM nextval('public.begun'); END$$;
                 CREATE EVENT TRIGGER begins ON login EXECUTE FUNCTION begins()",
            )
            .await
            .unwrap();
        let running = theatre.keeping(&reuse()).await;
        for _ in 0..2 {
            drop(running.connect("watched", "watched").await.unwrap());
            within(DEADLINE, "the end of the session", theatre.until_processes("watched", 0)).await;
        }
        let begun: i64 = inside.query_one("SELECT last_value FROM begun", &[]).await.unwrap().get(0);
        assert_eq!(begun, 2);
        // The trigger's removal does not make an older session valid again.
        inside.batch_execute("DROP EVENT TRIGGER begins").await.unwrap();
        drop(running.connect("watched", "watched").await.unwrap());
        within(DEADLINE, "a kept session", running.until_supply(|supply| supply.ready == 1)).await;
        inside.batch_execute("CREATE EVENT TRIGGER begins ON login EXECUTE FUNCTION begins()").await.unwrap();
        drop(running.connect("watched", "watched").await.unwrap());
        let begun: i64 = inside.query_one("SELECT last_value FROM begun", &[]).await.unwrap().get(0);
        assert_eq!(begun, 3);
        assert_eq!(running.proxy.supply().hits, 0);
    });
}

#[test]
fn a_session_with_a_temporary_schema_is_not_for_the_next_client() {
    run(async {
        let stage = Stage::shared().await;
        let superuser = stage.superuser().await;
        let running = Running::with(stage.connector(""), reuse()).await;
        let made =
            ["CREATE TEMP TABLE t ()", "CREATE TEMP VIEW v AS SELECT 1", "CREATE TYPE pg_temp.t AS (a int)"];
        for (number, sql) in made.into_iter().enumerate() {
            let name = format!("kept temporary {number}");
            let first = running.named(&name).await;
            first.batch_execute(sql).await.unwrap();
            drop(first);
            within(DEADLINE, "the end of the session", stage.until_processes(&superuser, &name, 0)).await;
            let next = running.named(&name).await;
            assert_eq!(one(&next, "SELECT pg_my_temp_schema()::text").await, "0", "{sql}");
        }
        assert_eq!(running.proxy.supply().hits, 0);
    });
}

#[test]
fn a_session_is_kept_for_its_lifetime_and_no_longer() {
    run(async {
        let stage = Stage::shared().await;
        let superuser = stage.superuser().await;
        for options in [reuse(), warm()] {
            let options = Options { server_lifetime: Duration::ZERO, ..options };
            let running = Running::with(stage.connector(""), options).await;
            drop(running.named("kept never").await);
            within(DEADLINE, "the end of the session", stage.until_processes(&superuser, "kept never", 0))
                .await;
            assert_eq!(running.proxy.supply().ready, 0);
        }
        // A session in the pool does not get a longer lifetime.
        let options = Options { server_lifetime: Duration::from_millis(500), ..reuse() };
        let running = Running::with(stage.connector(""), options).await;
        drop(running.named("kept shortly").await);
        within(DEADLINE, "the end of the session", stage.until_processes(&superuser, "kept shortly", 0))
            .await;
        assert_eq!(running.proxy.supply().ready, 0);
    });
}

#[test]
fn an_answer_may_be_as_old_as_the_delay_allows() {
    run(async {
        let theatre = Theatre::new().await;
        theatre.role_and_database("slow").await;
        let options = Options { server_check_delay: Duration::from_secs(3600), ..reuse() };
        let running = theatre.keeping(&options).await;
        let leave = async || {
            let reused = running.proxy.supply().reused;
            let (answer, process) = ask(&running, "slow", "slow", "SHOW work_mem").await.unwrap();
            within(
                DEADLINE,
                "it comes back",
                running.until_supply(|supply| supply.reused > reused && supply.ready == 1),
            )
            .await;
            (answer, process)
        };
        let (_, process) = leave().await;
        // The server is asked for the first client only.
        leave().await;
        theatre.change("ALTER ROLE slow SET work_mem = '33MB'", "slow").await;
        assert_eq!(leave().await, ("4MB".to_owned(), process));
        assert_eq!(running.proxy.supply().hits, 2);
    });
}

/// A client of this role whose start-up has this application name.
async fn named(running: &Running, name: &str, application: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.user(name).dbname(name).application_name(application);
    let (client, connection) = config.connect_raw(running.dial().await, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[test]
fn kept_sessions_do_not_use_up_a_connection_limit() {
    run(async {
        let theatre = Theatre::new().await;
        for (name, limit) in [
            ("few", "ALTER ROLE few CONNECTION LIMIT 2"),
            ("small", "ALTER DATABASE small CONNECTION LIMIT 2"),
        ] {
            theatre.role_and_database(name).await;
            theatre.change(limit, name).await;
            let running = theatre.keeping(&reuse()).await;
            // Two sessions are pooled, each with another start-up.
            let both = [named(&running, name, "a").await.unwrap(), named(&running, name, "b").await.unwrap()];
            drop(both);
            within(DEADLINE, "two kept sessions", running.until_supply(|supply| supply.ready == 2)).await;
            // And one of another role and database, to which no limit applies.
            drop(running.named("unrelated").await);
            within(DEADLINE, "a third one", running.until_supply(|supply| supply.ready == 3)).await;
            let _third = named(&running, name, "c").await.unwrap();
            assert_eq!(running.proxy.supply().ready, 2, "one made room");
            let _fourth = named(&running, name, "d").await.unwrap();
            assert_eq!(theatre.processes(name).await.len(), 2);
            // All connections of the role are in use now.
            let refused = named(&running, name, "e").await.map(|_| ()).unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "53300");
            running.shutdown.cancel();
        }
        // The refill opens a session when the next client comes.
        theatre.role_and_database("ahead").await;
        theatre.change("ALTER ROLE ahead CONNECTION LIMIT 2", "ahead").await;
        for _ in 0..5 {
            let running = theatre.keeping(&warm()).await;
            let first = named(&running, "ahead", "a").await.unwrap();
            let second = within(DEADLINE, "a second client", named(&running, "ahead", "b")).await.unwrap();
            assert_eq!(one(&second, WHO).await, "ahead");
            drop((first, second));
            running.shutdown.cancel();
            running.served.await.unwrap();
            within(DEADLINE, "their end", theatre.until_processes("ahead", 0)).await;
        }
    });
}

#[test]
fn a_limit_below_what_is_kept_ends_what_is_kept() {
    run(async {
        let theatre = Theatre::new().await;
        theatre.role_and_database("lower").await;
        let limits = Limits { connections: 10, ..Limits::default() };
        let running = theatre.keeping(&Options { limits, ..reuse() }).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(running.connect("lower", "lower").await.unwrap());
        }
        drop(clients);
        within(DEADLINE, "three kept sessions", running.until_supply(|supply| supply.ready == 3)).await;
        theatre.change("ALTER ROLE lower CONNECTION LIMIT 1", "lower").await;
        let client = running.connect("lower", "lower").await.unwrap();
        assert_eq!(one(&client, WHO).await, "lower");
        assert_eq!(theatre.processes("lower").await.len(), 1);
    });
}

#[test]
fn a_server_that_does_not_answer_keeps_no_client_waiting_for_each_session() {
    run(async {
        let stage = Stage::shared().await;
        let server = crate::scripted::Scripted::new().await;
        let running = Running::with(server.connector(stage), reuse()).await;
        let start = || {
            pgentra_wire::startup::StartupMessage::new(pgentra_wire::startup::ProtocolVersion::V3_0, ROLE)
                .unwrap()
        };
        // The first query fails: the client gets a session all the same, which is not pooled.
        let mut client = Raw::new(running.dial().await);
        client.start(&start()).await;
        let mut asked = server.session(1).await;
        asked.talk_nonsense().await;
        let plain = server.session(2).await;
        client.until_ready().await;
        drop(client);
        plain.until_left().await;
        assert_eq!(running.proxy.supply().reused, 0);
    });
}
