//! Sessions that are signed in before a client asks for them.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use eventually::{DEADLINE, eventually};
use pgentra_emulator::Draft;
use pgentra_gateway::{Config, GatewayTelemetry, WarmSessions};
use pgentra_observe::http::Observable as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::fixture::{RESOURCE, Running, Stage, failure, one, run};

/// A gateway that keeps one session ready, a role that the virtual machine may use, and a superuser.
struct Warm {
    gateway: Running,
    telemetry: GatewayTelemetry,
    superuser: Client,
    role: &'static str,
    token: String,
}

impl Warm {
    async fn new(role: &'static str, change: impl FnOnce(&mut Config)) -> Self {
        let stage = Stage::flexible().await;
        let telemetry = GatewayTelemetry::new(|| SystemTime::UNIX_EPOCH, CancellationToken::new(), None);
        let gateway = stage
            .gateway_with(|config| {
                config.warm.number = 1;
                config.telemetry = telemetry.clone();
                change(config);
            })
            .await;
        let admin = stage.administrator(&stage.gateway().await).await;
        let oid = stage.azure().vm().object_id();
        let map = format!(
            "SELECT * FROM pgaadauth_create_principal_with_oid('{role}', '{oid}', 'service', false, false)"
        );
        admin.batch_execute(&map).await.unwrap();
        let superuser = stage.superuser().await;
        Self { gateway, telemetry, superuser, role, token: stage.vm_token() }
    }

    async fn connect(&self) -> Client {
        self.gateway.connect(self.role, "postgres", &self.token).await.unwrap()
    }

    /// The process of the only session that waits: no client has it.
    async fn waiting(&self, clients: &[&Client]) -> i32 {
        self.ready(1).await;
        let mut theirs = Vec::new();
        for client in clients {
            theirs.push(pid(client).await);
        }
        let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND pid <> ALL ($2) \
                   AND query LIKE '/* pgentra%' AND state = 'idle'";
        eventually(DEADLINE, "a session waits", async || {
            let rows = self.superuser.query(sql, &[&self.role, &theirs]).await.unwrap();
            (rows.len() == 1).then(|| rows[0].get(0))
        })
        .await
    }

    /// The value of a metric whose line begins so.
    fn metric(&self, begin: &str) -> u32 {
        let text = self.telemetry.metrics("").text;
        let line = text.lines().find(|line| line.starts_with(&format!("pgentra_gateway_{begin}")));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until so many sessions wait for clients.
    async fn ready(&self, wanted: u32) {
        eventually(DEADLINE, "sessions wait", async || {
            let ready = self.metric("sessions_ready{");
            if ready == wanted { Ok(()) } else { Err(ready) }
        })
        .await;
    }

    /// Logins that got a session that waited, and others.
    fn supply(&self) -> (u32, u32) {
        let count = |result: &str| {
            let text = self.telemetry.metrics("").text;
            let is_it =
                |line: &&str| line.starts_with("pgentra_gateway_supply_total") && line.contains(result);
            text.lines().find(is_it).map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        (count("\"hit\""), count("\"miss\""))
    }
}

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

#[test]
fn a_session_that_waits_is_for_one_client_with_its_token() {
    run(async {
        let warm = Warm::new("ready_once", |_| {}).await;
        let first = warm.connect().await;
        first.batch_execute("SET work_mem = '9MB'; CREATE TEMPORARY TABLE own (n int)").await.unwrap();
        let waiting = warm.waiting(&[&first]).await;

        // Tokens that are refused get nothing, and neither does the token of another principal.
        let azure = Stage::flexible().await.azure();
        let (hour, now) = (Duration::from_secs(3600), azure.clock().now());
        let expired = Draft::of_identity(azure.vm(), RESOURCE).issued(now - 2 * hour).lifetime(hour);
        let user = Draft::of_user(azure.administrator(), RESOURCE);
        for draft in [expired, user] {
            let token = Stage::flexible().await.token(&draft);
            assert_eq!(warm.gateway.refusal(warm.role, "postgres", &token).await.0, "28000");
        }
        assert_eq!(warm.waiting(&[&first]).await, waiting);

        let second = warm.connect().await;
        assert_eq!(pid(&second).await, waiting);
        assert_eq!(one(&second, "SHOW work_mem").await, "4MB");
        assert_eq!(one(&second, "SELECT (to_regclass('own') IS NULL)::text").await, "true");
        assert_eq!(one(&second, "SELECT current_user::text").await, warm.role);
        let third = {
            let next = warm.waiting(&[&first, &second]).await;
            assert_ne!(next, waiting);
            let third = warm.connect().await;
            assert_eq!(pid(&third).await, next);
            third
        };
        assert_eq!(warm.supply(), (2, 1));

        // Its cancel key works, and the first client's does not reach it.
        let cancel = async |client: &Client| {
            client.cancel_token().cancel_query_raw(warm.gateway.dial_tls().await, NoTls).await.unwrap();
        };
        let slept = second.batch_execute("SELECT pg_sleep(3600)");
        let cancelled = async {
            let sql = "SELECT pid FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
            eventually(DEADLINE, "it sleeps", async || {
                warm.superuser.query_opt(sql, &[&waiting]).await.unwrap()
            })
            .await;
            cancel(&first).await;
            cancel(&third).await;
            assert!(warm.superuser.query_opt(sql, &[&waiting]).await.unwrap().is_some());
            cancel(&second).await;
        };
        let (slept, ()) = tokio::join!(slept, cancelled);
        assert_eq!(failure(slept).0, "57014");

        // No session is left when the gateway is gone.
        warm.waiting(&[&first, &second, &third]).await;
        drop((first, second, third));
        warm.gateway.stop().await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        eventually(DEADLINE, "no session is left", async || {
            let row = warm.superuser.query_one(sql, &[&warm.role]).await.unwrap();
            row.get::<_, i64>(0) == 0
        })
        .await;
    });
}

#[test]
fn other_start_up_parameters_get_another_session() {
    run(async {
        let warm = Warm::new("ready_other", |_| {}).await;
        let first = warm.connect().await;
        let waiting = warm.waiting(&[&first]).await;
        let named = async || {
            let (client, connection) = tokio_postgres::Config::new()
                .user(warm.role)
                .dbname("postgres")
                .password(&warm.token)
                .application_name("reports")
                .options("-c work_mem=7MB")
                .connect_raw(warm.gateway.dial_tls().await, NoTls)
                .await
                .unwrap();
            let version = connection.parameter("server_version").map(str::to_owned);
            let name = connection.parameter("application_name").map(str::to_owned);
            tokio::spawn(connection);
            assert!(version.is_some());
            assert_eq!(name.as_deref(), Some("reports"));
            client
        };
        for _ in 0..2 {
            let client = named().await;
            assert_ne!(pid(&client).await, waiting);
            assert_eq!(one(&client, "SHOW application_name").await, "reports");
            assert_eq!(one(&client, "SHOW work_mem").await, "7MB");
            warm.ready(2).await;
        }
        assert_eq!(warm.supply(), (1, 2), "the second has the session that waited for it");
    });
}

#[test]
fn a_session_is_as_one_that_would_be_opened_now() {
    run(async {
        let warm = Warm::new("ready_changes", |_| {}).await;
        let first = warm.connect().await;
        let role = warm.role;
        // A setting of the role.
        let waiting = warm.waiting(&[&first]).await;
        warm.superuser.batch_execute(&format!("ALTER ROLE {role} SET work_mem = '3MB'")).await.unwrap();
        let second = warm.connect().await;
        assert_ne!(pid(&second).await, waiting);
        assert_eq!(one(&second, "SHOW work_mem").await, "3MB");
        // The server has ended the session that waited.
        let waiting = warm.waiting(&[&first, &second]).await;
        warm.superuser.execute("SELECT pg_terminate_backend($1)", &[&waiting]).await.unwrap();
        let third = warm.connect().await;
        assert_eq!(one(&third, "SHOW work_mem").await, "3MB");
        // The connection limit of the role is not used up.
        warm.waiting(&[&first, &second, &third]).await;
        warm.superuser.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 4")).await.unwrap();
        let fourth = warm.connect().await;
        let refused = warm.gateway.refusal(role, "postgres", &warm.token).await;
        assert_eq!(refused.0, "53300", "{refused:?}");
        drop(fourth);
        // The role may no longer sign in, and then it is no longer mapped.
        warm.superuser.batch_execute(&format!("ALTER ROLE {role} NOLOGIN")).await.unwrap();
        let refused = warm.gateway.refusal(role, "postgres", &warm.token).await;
        assert_eq!(refused.0, "28000", "{refused:?}");
        drop((first, second, third));
        warm.superuser.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
        let refused = warm.gateway.refusal(role, "postgres", &warm.token).await;
        assert!(refused.0.starts_with("28"), "{refused:?}");
    });
}

/// An answer may be as old as the delay: a change at the server counts later, and one of the mapping at once.
#[test]
fn an_answer_of_the_server_may_be_used_again() {
    run(async {
        let delay = Duration::from_secs(3600);
        let warm = Warm::new("ready_delayed", |config| config.warm.check_delay = delay).await;
        let first = warm.connect().await;
        // The first answer is that of this hand-out.
        let waiting = warm.waiting(&[&first]).await;
        let second = warm.connect().await;
        assert_eq!(pid(&second).await, waiting);
        let waiting = warm.waiting(&[&first, &second]).await;
        let role = warm.role;
        warm.superuser.batch_execute(&format!("ALTER ROLE {role} SET work_mem = '3MB'")).await.unwrap();
        let third = warm.connect().await;
        assert_eq!((pid(&third).await, one(&third, "SHOW work_mem").await), (waiting, "4MB".to_owned()));
        warm.ready(1).await;
        let unmap = format!("DELETE FROM pgentra.principal WHERE role = '{role}'::regrole");
        warm.superuser.batch_execute(&unmap).await.unwrap();
        let refused = warm.gateway.refusal(role, "postgres", &warm.token).await;
        assert!(refused.0.starts_with("28"), "{refused:?}");
        assert_eq!(warm.supply().0, 2, "a session went to a client that is not mapped");
    });
}

#[test]
fn a_session_that_waits_makes_room_and_does_not_grow_old() {
    run(async {
        let warm = Warm::new("ready_room", |config| {
            config.limits.connections = 2;
            config.warm = WarmSessions { max_age: Duration::from_secs(1), ..config.warm };
        })
        .await;
        let first = warm.connect().await;
        let waiting = warm.waiting(&[&first]).await;
        eventually(DEADLINE, "another session waits", async || warm.waiting(&[&first]).await != waiting)
            .await;
        let (second, connection) = tokio_postgres::Config::new()
            .user(warm.role)
            .dbname("postgres")
            .password(&warm.token)
            .application_name("another")
            .connect_raw(warm.gateway.dial_tls().await, NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        assert_eq!(one(&second, "SELECT 'in'").await, "in");
        let refused = warm.gateway.refusal(warm.role, "postgres", &warm.token).await;
        assert_eq!(refused.0, "53300", "{refused:?}");
    });
}

/// The server counts a session until it has ended: a client that takes the place of a session that waits is not
/// refused because of that session.
#[test]
fn a_session_that_makes_room_has_ended_at_the_server() {
    run(async {
        let warm = Warm::new("ready_ends", |config| config.limits.connections = 2).await;
        let first = warm.connect().await;
        let waiting = warm.waiting(&[&first]).await;
        let limit = format!("ALTER ROLE {} CONNECTION LIMIT 2", warm.role);
        warm.superuser.batch_execute(&limit).await.unwrap();
        let waiting = Pid::from_raw(waiting).unwrap();
        kill_process(waiting, Signal::STOP).unwrap();
        let mut config = tokio_postgres::Config::new();
        config.user(warm.role).dbname("postgres").password(&warm.token).application_name("another");
        let mut second = pin!(config.connect_raw(warm.gateway.dial_tls().await, NoTls));
        let answered = timeout(Duration::from_millis(300), &mut second).await;
        kill_process(waiting, Signal::CONT).unwrap();
        assert!(answered.is_err(), "the client was answered while the session was there");
        let (second, connection) = second.await.unwrap();
        tokio::spawn(connection);
        assert_eq!(one(&second, "SELECT 'in'").await, "in");
    });
}

/// On Single Server the server compares the id of each client: what another client has answered does
/// not count.
#[test]
fn no_session_waits_where_the_server_compares_the_client() {
    run(async {
        let stage = Stage::single().await;
        let telemetry = GatewayTelemetry::new(|| SystemTime::UNIX_EPOCH, CancellationToken::new(), None);
        let gateway = stage
            .gateway_with(|config| {
                config.warm.number = 1;
                config.telemetry = telemetry.clone();
            })
            .await;
        let admin = stage.administrator(&gateway).await;
        let id = stage.azure().vm().client_id();
        let sql = format!("CREATE ROLE ready_single LOGIN PASSWORD '{id}' IN ROLE azure_ad_user");
        admin.batch_execute(&format!("SET aad_validate_oids_in_tenant = off; {sql}")).await.unwrap();
        for _ in 0..3 {
            gateway.connect("ready_single", "postgres", &stage.vm_token()).await.unwrap();
        }
        let text = telemetry.metrics("").text;
        assert!(!text.contains("pgentra_gateway_supply_total{"), "{text}");
        assert!(!text.contains("pgentra_gateway_sessions_opened_ahead_total{"), "{text}");
    });
}
