use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::host::is_localhost;
use super::proxy::Proxies;
use super::tls::Platform;
use super::{HttpError, HttpErrorKind, Request};
use crate::span;

/// A byte stream to the peer, plain or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// No more addresses than this are tried for one name.
const MAX_ADDRESSES: usize = 8;

/// Opens the connection of a request. Clones share the TLS configuration.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    pub(super) routes: Arc<BTreeMap<(String, u16), SocketAddr>>,
    pub(super) proxies: Arc<Proxies>,
    pub(super) tls: Arc<Platform>,
}

impl Dialer {
    pub(super) async fn dial(&self, request: &Request) -> Result<Pin<Box<dyn Stream>>, HttpError> {
        let Some(proxy) = self.proxies.proxy_for(request)? else {
            let stream = self.connect(request.host(), request.port(), request).await?;
            return if request.is_https() {
                self.encrypt(stream, request).await
            } else {
                Ok(Box::pin(stream))
            };
        };
        let stream = self.connect(&proxy.host, proxy.port, request).await?;
        self.encrypt(proxy.tunnel(stream, request).await?, request).await
    }

    async fn connect(&self, host: &str, port: u16, request: &Request) -> Result<TcpStream, HttpError> {
        let mut last = None;
        for address in self.addresses(host, port).await? {
            let attempt = timeout(request.connect_limit, TcpStream::connect(address)).await;
            match attempt {
                Ok(Ok(stream)) => {
                    // A request is one small write; waiting to fill a packet would only add delay.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(cause)) => last = Some(cause),
                Err(_) => {
                    last = Some(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("not accepted within {}", span::shown(request.connect_limit)),
                    ));
                }
            }
        }
        let error = HttpError::new(HttpErrorKind::Connect, format!("cannot connect to {host}:{port}"));
        Err(match last {
            Some(cause) => error.caused_by(cause),
            None => HttpError::new(HttpErrorKind::Resolve, format!("the name {host} has no address")),
        })
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, HttpError> {
        if let Some(address) = self.routes.get(&(host.to_owned(), port)) {
            return Ok(vec![*address]);
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if is_localhost(host) {
            // Local token services bind 127.0.0.1. Where one is down, another user may listen on ::1 to be asked instead.
            return Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]);
        }
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => Ok(found.take(MAX_ADDRESSES).collect()),
            Err(cause) => {
                let message = format!("the name {host} cannot be resolved");
                Err(HttpError::new(HttpErrorKind::Resolve, message).caused_by(cause))
            }
        }
    }

    async fn encrypt<S>(&self, stream: S, request: &Request) -> Result<Pin<Box<dyn Stream>>, HttpError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (config, name) = match &request.tls {
            Some((config, name)) => (config.clone(), name.clone()),
            None => (self.tls.config()?, None),
        };
        let name = match name {
            Some(name) => name,
            None => ServerName::try_from(request.host().to_owned()).map_err(|cause| {
                HttpError::unusable("the URL's host is not a name for TLS").caused_by(cause)
            })?,
        };
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|cause| {
            HttpError::new(
                HttpErrorKind::Tls,
                format!("no trusted TLS connection to {}", request.authority()),
            )
            .caused_by(cause)
        })?;
        Ok(Box::pin(stream))
    }
}
