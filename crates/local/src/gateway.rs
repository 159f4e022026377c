//! A gateway that serves on a loopback address, and on one more if asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pgentra_emulator::LocalAzure;
use pgentra_gateway::{Config, Gateway, JwksUrl, Oauth};
use pgentra_identity::Cloud;
use pgentra_system::http::HttpClient;
use pgentra_system::{Env, Files};
use pgentra_verify::{Policy, Verifier};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::Failure;

/// A gateway that serves until `shutdown` is cancelled. Dropping it cancels `shutdown`.
#[derive(Debug)]
pub struct RunningGateway {
    /// The address for clients.
    pub address: SocketAddr,
    /// Cancelled, it begins the shutdown, which takes [`pgentra_session::Limits::drain`] at most.
    pub shutdown: CancellationToken,
    /// Done when the gateway has ended.
    pub served: JoinHandle<()>,
    gateway: Arc<Gateway>,
    /// The further address, and what serves there.
    pub(crate) further: Option<IpAddr>,
    serving_further: JoinSet<()>,
    _shutdown_on_drop: DropGuard,
}

impl RunningGateway {
    /// Serves `config` on a port of 127.0.0.1; 0 takes any free one.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub async fn start(config: Config, port: u16) -> Result<Self, Failure> {
        Self::start_on(config, Self::listen(port).await?)
    }

    /// Opens a port of 127.0.0.1 for [`RunningGateway::start_on`]; clients that connect before that wait.
    pub(crate) async fn listen(port: u16) -> Result<TcpListener, Failure> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(cannot_listen)
    }

    /// Serves `config` on an open port.
    pub(crate) fn start_on(config: Config, listener: TcpListener) -> Result<Self, Failure> {
        Self::serve(config, listener).map_err(cannot_listen)
    }

    /// Serves `config` on an open port; without one, at the preferred port if it is free, and at any
    /// free one otherwise or if it is 0.
    pub(crate) async fn start_kept(
        config: Config,
        listener: Option<TcpListener>,
        preferred_port: u16,
    ) -> Result<Self, Failure> {
        match listener {
            Some(listener) => Self::start_on(config, listener),
            None if preferred_port != 0 => Self::start_preferred(config, preferred_port).await,
            None => Self::start(config, 0).await,
        }
    }

    /// As [`RunningGateway::start`], at this port if it is free and at any free one otherwise.
    async fn start_preferred(config: Config, port: u16) -> Result<Self, Failure> {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .and_then(|it| Self::serve(config.clone(), it))
        {
            Ok(running) => Ok(running),
            Err(_) => {
                let running = Self::start(config, 0).await?;
                let other = running.address.port();
                tracing::warn!(
                    port,
                    other,
                    "PostgreSQL's usual port is taken; another one serves in this run"
                );
                Ok(running)
            }
        }
    }

    fn serve(config: Config, listener: TcpListener) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let gateway = Arc::new(Gateway::new(config));
        let served = tokio::spawn(gateway.clone().serve(listener, shutdown.clone()));
        let _shutdown_on_drop = shutdown.clone().drop_guard();
        let serving_further = JoinSet::new();
        Ok(Self { address, shutdown, served, gateway, further: None, serving_further, _shutdown_on_drop })
    }

    /// Serves at a further address, at the same port.
    pub(crate) async fn serve_further(&mut self, address: IpAddr) -> Result<(), Failure> {
        let listener = TcpListener::bind((address, self.address.port())).await.map_err(|error| {
            Failure::machine(&format!("cannot listen on {address} for PostgreSQL clients"), error)
                .with_hint("give an address of this machine: ip address")
        })?;
        self.serving_further.spawn(self.gateway.clone().serve(listener, self.shutdown.clone()));
        self.further = Some(address);
        Ok(())
    }

    /// Shuts the gateway down and waits for its end.
    pub async fn stop(mut self) {
        self.end().await;
    }

    /// The same for a gateway that is kept; once it has ended, nothing.
    pub(crate) async fn end(&mut self) {
        self.shutdown.cancel();
        if !self.served.is_finished() {
            let _ = (&mut self.served).await;
        }
        while self.serving_further.join_next().await.is_some() {}
    }
}

fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::machine("cannot listen for PostgreSQL clients", error)
        .with_hint("give another --port, or 0 for any free one")
}

/// What clients of OAUTHBEARER are told: the local authority, whose addresses differ from the issuer in its tokens.
pub(crate) fn oauth(azure: &LocalAzure, policy: &Policy) -> Oauth {
    let issuer = format!("{}{}/v2.0", azure.authority_host(), azure.tenant());
    Oauth { issuer, ..Oauth::of(policy) }
}

/// A verifier of the local tenant's tokens, which fetches the keys from the tenant.
pub(crate) fn verifier(azure: &LocalAzure) -> Result<Verifier, Failure> {
    let policy = Policy::builder(azure.tenant())
        .issuer(azure.issuer())
        .audience(Cloud::Public.postgres_resource().as_str())
        .build()
        .map_err(|error| Failure::machine("cannot make the policy for tokens", error))?;
    let http = HttpClient::new(&Env::from_map::<String, String>([]), &Files::in_memory())
        .with_extra_roots(azure.ca_pem().as_bytes())
        .map_err(|error| Failure::machine("cannot trust the local authority", error))?;
    Ok(Verifier::new(policy, JwksUrl::new(http, azure.keys_url())))
}
