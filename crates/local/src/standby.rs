//! A standby of a local cloud's PostgreSQL, and the crash that makes it take over.

use pgentra_gateway::UpstreamAddress;
use pgentra_localdb::LocalDb;
use secrecy::ExposeSecret as _;
use tokio_postgres::{Client, NoTls};

use crate::error::{Error, Failure};
use crate::gateway::RunningGateway;
use crate::local_cloud::{LocalCloud, upstream};

/// A hot standby of a local cloud's PostgreSQL, behind a gateway of its own. Dropping it ends it without waiting;
/// [`Standby::stop`] waits.
#[derive(Debug)]
pub struct Standby {
    gateway: RunningGateway,
    database: LocalDb,
}

impl LocalCloud {
    /// Starts a standby, which takes the same tokens for the same roles on another port of 127.0.0.1. A cloud can have
    /// one. From then on a commit on the primary is acknowledged when the standby has it
    /// (`synchronous_standby_names = '*'`), so that a failover loses none.
    ///
    /// # Errors
    /// If the standby cannot be made, or a port cannot be bound.
    pub async fn start_standby(&self) -> Result<Standby, Error> {
        let options = pgentra_localdb::Options {
            folder: self.folder().join("standby"),
            server: self.installation.clone(),
        };
        let failed = |error| Failure::machine("cannot start a standby", error);
        let database = pgentra_localdb::start_standby(options, &self.database).await.map_err(failed)?;
        let (upstream, service) = upstream(&database);
        let config = pgentra_gateway::Config { upstream, service, ..self.gateway_config() };
        let gateway = RunningGateway::start(config, 0).await?;
        let superuser = self.superuser("postgres").await.map_err(cannot_ask)?;
        for statement in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            superuser.simple_query(statement).await.map_err(cannot_ask)?;
        }
        Ok(Standby { gateway, database })
    }

    /// Ends PostgreSQL as a crash does, and the gateway in front of it: connections to it are refused from then on.
    pub async fn crash(&mut self) {
        self.database.kill();
        self.gateway.end().await;
        self.named_gateway.end().await;
    }
}

impl Standby {
    /// The port of 127.0.0.1 for clients.
    pub fn port(&self) -> u16 {
        self.gateway.address.port()
    }

    /// Where its PostgreSQL is, for a gateway that leads to it and to the primary.
    pub fn upstream(&self) -> UpstreamAddress {
        upstream(&self.database).0
    }

    /// Makes it the primary, and waits until it is.
    ///
    /// # Errors
    /// If PostgreSQL has ended or refuses.
    pub async fn promote(&self) -> Result<(), tokio_postgres::Error> {
        let session = self.superuser("postgres").await?;
        session.simple_query("SELECT pg_promote()").await?;
        // As a copy of the primary it would wait for a standby.
        for statement in ["ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"] {
            session.simple_query(statement).await?;
        }
        Ok(())
    }

    /// A superuser session in this database, without the gateway. Its connection is driven by a task of its own.
    ///
    /// # Errors
    /// If there is no such database, or PostgreSQL has ended.
    pub async fn superuser(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.database.socket_dir())
            .port(self.database.port())
            .user(self.database.superuser())
            .password(self.database.password().expose_secret())
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Ends sessions, processes and the listener, and removes the folder.
    pub async fn stop(self) {
        self.gateway.stop().await;
        self.database.stop().await;
    }
}

fn cannot_ask(error: tokio_postgres::Error) -> Failure {
    Failure::machine("cannot have PostgreSQL wait for its standby", error)
}
