//! Programs in containers that find themselves on Azure. Their name resolution leads Azure's names to an address of this
//! process, which serves each service at its port on Azure; a folder that they share with it has their variables, tokens and
//! trusted certificates.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgentra_connect::quote;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::container_files::ContainerFiles;
use super::plan::NamespacePlan;
use super::relay::accepted;
use super::trust::TrustFiles;
use crate::azure_names::NamedService;
use crate::error::Failure;
use crate::folder::write_shared;
use crate::host::Host;
use crate::local_cloud::LocalCloud;
use crate::status::Status;

/// The hosts whose endpoints all have names or addresses of Azure. Endpoints of the others are at 127.0.0.1.
const HOSTS: [Host; 5] =
    [Host::Vm, Host::UserAssigned, Host::Aks, Host::ClientSecret, Host::ClientCertificate];

/// The file of the pod's token in the folder.
const POD_TOKEN: &str = "azure-identity-token";
/// The file of the application's certificate and key.
const CLIENT_CERTIFICATE: &str = "myApp.pem";
/// The script that runs a program with the variables of a host.
const ENTER: &str = "enter";

/// Longest start of a TLS connection, up to the name of the server: more than a record of TLS (RFC 8446, section 5.1), with
/// room for a second one.
const LONGEST_HELLO: usize = 1 << 15;
/// Time for the start of a TLS connection, as browsers and servers have it.
const HELLO_TIME: Duration = Duration::from_secs(10);

impl LocalCloud {
    /// Serves Azure's names at this address, each at its port on Azure, and writes the files for programs in containers into
    /// `folder`, which must exist. After [`LocalCloud::create_roles`].
    ///
    /// Each client that reaches the address can be the administrator of this cloud. The files have secrets of this cloud, and
    /// every user can read them. They are removed at the stop; after SIGKILL they stay.
    ///
    /// # Errors
    /// If a port cannot be bound, or a file cannot be written.
    pub async fn serve_containers(&mut self, address: IpAddr, folder: &Path) -> Result<(), Failure> {
        let status = Status::of(self);
        let services = status.azure_names.iter().flat_map(|names| names.services.clone());
        let mut by_port: BTreeMap<u16, Vec<NamedService>> = BTreeMap::new();
        for service in services {
            by_port.entry(service.port).or_default().push(service);
        }
        let mut relays = JoinSet::new();
        for (port, services) in by_port {
            let place = SocketAddr::new(address, port);
            let listener = TcpListener::bind(place).await.map_err(|error| {
                let hint = hint(&error);
                let failure =
                    Failure::machine(&format!("cannot listen on {place} for programs in containers"), error);
                hint.into_iter().fold(failure, Failure::with_hint)
            })?;
            relays.spawn(relay(listener, services.into()));
        }
        self.container_files = Some(self.write_files(&status, folder)?);
        self.clock.share(folder.join(POD_TOKEN))?;
        self.followers.spawn(async move { while relays.join_next().await.is_some() {} });
        Ok(())
    }

    fn write_files(&self, status: &Status, folder: &Path) -> Result<ContainerFiles, Failure> {
        let mut files = ContainerFiles::default();
        files.add(folder.join(POD_TOKEN));
        let mut put = |name: &str, content: &[u8]| {
            files.add(folder.join(name));
            write_shared(&folder.join(name), content)
        };
        let certificate = fs::read(self.files().client_certificate);
        let certificate = certificate
            .map_err(|error| Failure::machine("cannot read the application's certificate", error))?;
        put(CLIENT_CERTIFICATE, &certificate)?;
        for host in HOSTS {
            let plan = NamespacePlan::new(status, host, &[])?.0.at(folder);
            if host == Host::Vm {
                let trust = TrustFiles::with(&plan.certificates)?;
                let name = |path: PathBuf| path.file_name().map(|it| it.to_string_lossy().into_owned());
                put(&name(plan.bundle()).unwrap_or_default(), trust.bundle.as_bytes())?;
                put(&name(plan.store()).unwrap_or_default(), &trust.store)?;
            }
            let mut variables = plan.variables(None);
            for (variable, file) in [
                ("AZURE_FEDERATED_TOKEN_FILE", POD_TOKEN),
                ("AZURE_CLIENT_CERTIFICATE_PATH", CLIENT_CERTIFICATE),
            ] {
                if let Some(path) = variables.get_mut(variable) {
                    *path = folder.join(file).display().to_string();
                }
            }
            let export =
                |(name, value): (&String, &String)| format!("export {name}={}\n", quote::shell_word(value));
            put(
                &format!("{}.env", host.name()),
                variables.iter().map(export).collect::<String>().as_bytes(),
            )?;
        }
        put(ENTER, enter(folder).as_bytes())?;
        Ok(files)
    }
}

/// The next step after an address could not be bound.
fn hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Some("a port below 1024 takes root, or net.ipv4.ip_unprivileged_port_start=0 with sysctl")
        }
        io::ErrorKind::AddrNotAvailable => {
            Some("use an address of this machine, which `ip address` lists, or 0.0.0.0 for all of them")
        }
        io::ErrorKind::AddrInUse => {
            Some("`ss -ltnp` shows the program that has this port; stop it, or use another address")
        }
        _ => None,
    }
}

/// The script: `sh enter HOST PROGRAM ARGUMENTS`.
fn enter(folder: &Path) -> String {
    let folder = quote::shell_word(&folder.to_string_lossy());
    format!("#!/bin/sh\nhost=$1\nshift\n. {folder}/\"$host\".env && exec \"$@\"\n")
}

/// Leads each connection to the service that the client means.
async fn relay(listener: TcpListener, services: Arc<[NamedService]>) {
    let mut connections = JoinSet::new();
    loop {
        let near = accepted(&listener).await;
        while connections.try_join_next().is_some() {}
        let services = services.clone();
        connections.spawn(async move {
            if let Err(error) = lead(near, &services).await {
                tracing::debug!(%error, "a connection of a container ended");
            }
        });
    }
}

async fn lead(mut near: TcpStream, services: &[NamedService]) -> io::Result<()> {
    let mut hello = Vec::new();
    let port = match services {
        [first, rest @ ..] if rest.iter().all(|other| other.local_port == first.local_port) => {
            first.local_port
        }
        _ => {
            let name = timeout(HELLO_TIME, server_name(&mut near, &mut hello)).await??;
            let known = services.iter().find(|service| service.name.eq_ignore_ascii_case(&name));
            known.ok_or_else(|| io::Error::other("the name of the server is none of Azure's"))?.local_port
        }
    };
    let mut far = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await?;
    far.set_nodelay(true)?;
    far.write_all(&hello).await?;
    copy_bidirectional(&mut near, &mut far).await.map(drop)
}

/// Reads the start of a TLS connection into `hello`, up to the name that the client expects of the server.
async fn server_name(near: &mut TcpStream, hello: &mut Vec<u8>) -> io::Result<String> {
    let mut acceptor = Acceptor::default();
    loop {
        let known = hello.len();
        if known >= LONGEST_HELLO || near.read_buf(hello).await? == 0 {
            return Err(io::Error::other("no start of a TLS connection"));
        }
        let mut received = &hello[known..];
        while !received.is_empty() {
            acceptor.read_tls(&mut received)?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return name.ok_or_else(|| io::Error::other("the client names no server"));
            }
            Err((error, _)) => return Err(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_one_word_of_the_script() {
        assert!(enter(Path::new("/run/a b")).contains(". '/run/a b'/\"$host\".env && exec \"$@\"\n"));
    }

    #[test]
    fn the_hint_is_of_the_cause() {
        let hint_of = |address: &str| hint(&std::net::TcpListener::bind(address).unwrap_err());
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(hint_of(&held.local_addr().unwrap().to_string()).unwrap().contains("ss -ltnp"));
        assert!(hint_of("192.0.2.1:0").unwrap().contains("ip address"));
        assert!(hint(&io::ErrorKind::PermissionDenied.into()).unwrap().contains("1024"));
        assert_eq!(hint(&io::ErrorKind::OutOfMemory.into()), None);
    }

    #[tokio::test]
    async fn what_is_no_tls_has_no_server_name() {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b""] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent).await.unwrap();
            drop(client);
            let mut near = accepted(&listener).await;
            assert!(server_name(&mut near, &mut Vec::new()).await.is_err(), "{sent:?}");
        }
    }
}
