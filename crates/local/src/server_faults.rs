//! Faults of PostgreSQL: it fails over, or has no connection left.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgentra_localdb::{LocalDb, Restarter};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

/// How long the server takes no connections in a failover. On Azure it is a minute or two (Microsoft:
/// concepts-high-availability), which is too long for a test.
const OUTAGE: Duration = Duration::from_secs(5);
/// How many connections are opened at a time.
const AT_A_TIME: usize = 16;

/// Time for the sessions of [`ServerFault::ConnectionLimit`], which are there in less than a second. It is
/// shorter than the time that a client waits for the answer.
const FILL_TIME: Duration = Duration::from_secs(8);

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerFault {
    /// Sessions end, and the server takes no connections for a while. It ends by itself.
    Failover,
    /// The server has as many sessions as it takes.
    ConnectionLimit,
}

/// The faults of a PostgreSQL that are on. Clones share them.
#[derive(Clone)]
pub(crate) struct ServerFaults(Arc<FaultyServer>);

struct FaultyServer {
    restarter: Restarter,
    socket_dir: PathBuf,
    port: u16,
    superuser: String,
    password: SecretString,
    state: Mutex<FaultState>,
    /// Held while sessions are opened, so that two changes do not compete for the last ones.
    filling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct FaultState {
    failing_over: bool,
    /// The sessions that leave none for others; `None`: the fault is off.
    sessions: Option<Vec<Client>>,
    /// How often those sessions were ended.
    ended: u64,
    work: JoinSet<()>,
}

impl ServerFaults {
    pub(crate) fn new(database: &LocalDb) -> Self {
        Self(Arc::new(FaultyServer {
            restarter: database.restarter(),
            socket_dir: database.socket_dir().to_path_buf(),
            port: database.port(),
            superuser: database.superuser().to_owned(),
            password: database.password().clone(),
            state: Mutex::default(),
            filling: tokio::sync::Mutex::default(),
        }))
    }

    /// The faults that are on.
    pub(crate) fn active(&self) -> Vec<ServerFault> {
        let state = self.state();
        let failover = state.failing_over.then_some(ServerFault::Failover);
        let limit = state.sessions.is_some().then_some(ServerFault::ConnectionLimit);
        failover.into_iter().chain(limit).collect()
    }

    /// Switches a fault on. A failover has begun when this returns, and sessions end a moment later. After
    /// [`ServerFault::ConnectionLimit`] a new session is refused at once.
    ///
    /// # Errors
    /// In words for a person: PostgreSQL cannot be reached, or does not answer within 8 s.
    pub(crate) async fn set(&self, fault: ServerFault) -> Result<(), String> {
        match fault {
            ServerFault::Failover => {
                self.fail_over();
                Ok(())
            }
            ServerFault::ConnectionLimit => {
                let filled = tokio::time::timeout(FILL_TIME, self.fill()).await;
                filled.unwrap_or_else(|_| {
                    Err(format!("PostgreSQL did not answer within {} s", FILL_TIME.as_secs()))
                })
            }
        }
    }

    /// Switches a fault off. A failover goes on to its end.
    pub(crate) fn clear(&self, fault: ServerFault) {
        if fault == ServerFault::ConnectionLimit {
            self.state().end_sessions();
        }
    }

    /// Waits for the end of a failover, and switches the faults off.
    pub(crate) async fn finish(&self) {
        let FaultState { mut work, .. } = std::mem::take(&mut *self.state());
        while work.join_next().await.is_some() {}
    }

    /// Ends what the faults do.
    pub(crate) async fn end(&self) {
        let mut work = std::mem::take(&mut *self.state());
        work.work.shutdown().await;
    }

    fn fail_over(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.failing_over, true) {
            return;
        }
        // The restart ends these sessions too.
        state.end_sessions();
        let (restarter, shared) = (self.0.restarter.clone(), Arc::downgrade(&self.0));
        state.work.spawn(async move {
            if let Err(error) = restarter.restart(OUTAGE).await {
                tracing::error!(%error, "PostgreSQL did not start again after the failover");
            }
            if let Some(shared) = shared.upgrade() {
                Self(shared).state().failing_over = false;
            }
        });
    }

    async fn fill(&self) -> Result<(), String> {
        let _filling = self.0.filling.lock().await;
        let ended = self.state().ended;
        let sessions = self.take_connections().await;
        let sessions = sessions.map_err(|error| format!("PostgreSQL takes no session: {error}"))?;
        let mut state = self.state();
        // The fault may have been switched off in between.
        if state.ended == ended {
            state.sessions.get_or_insert_default().extend(sessions);
        }
        Ok(())
    }

    /// Opens sessions until only those are left that PostgreSQL keeps for superusers.
    async fn take_connections(&self) -> Result<Vec<Client>, tokio_postgres::Error> {
        let first = self.connect().await?;
        let mut sessions = Vec::new();
        loop {
            let left: i64 = first.query_one(LEFT, &[]).await?.get(0);
            let wanted = usize::try_from(left).unwrap_or_default().min(AT_A_TIME);
            if wanted == 0 {
                sessions.push(first);
                return Ok(sessions);
            }
            let mut opened = JoinSet::new();
            for _ in 0..wanted {
                let this = self.clone();
                opened.spawn(async move { this.connect().await });
            }
            while let Some(session) = opened.join_next().await {
                if let Ok(session) = session {
                    sessions.push(session?);
                }
            }
        }
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.0.socket_dir)
            .port(self.0.port)
            .user(&self.0.superuser)
            .password(self.0.password.expose_secret())
            .dbname("postgres")
            .application_name("pgentra local fault");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn state(&self) -> MutexGuard<'_, FaultState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultState {
    fn end_sessions(&mut self) {
        self.sessions = None;
        self.ended += 1;
    }
}

/// How many more sessions clients can have (PostgreSQL documentation, `superuser_reserved_connections`,
/// and `reserved_connections` from version 16 on).
const LEFT: &str = "
SELECT greatest(0, current_setting('max_connections')::bigint
    - current_setting('superuser_reserved_connections')::bigint
    - coalesce(current_setting('reserved_connections', true), '0')::bigint
    - (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'))";

impl fmt::Debug for ServerFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerFaults").field(&self.active()).finish()
    }
}
