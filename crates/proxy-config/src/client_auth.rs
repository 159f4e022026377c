//! Client authentication from the settings and their files, read again when the files change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use pgentra_proxy::{
    AuthProxy, CertificateName, CertificateRule, ClientAuth, ClientAuthError, RoleMap, Tls, Users,
};
use pgentra_settings::{FileWatch, LOOK};
use pgentra_system::{Accounts, Files, System};

use crate::settings::{ClientAuthSettings, ClientName};

/// Longest file in bytes.
const LENGTH: usize = FileWatch::LENGTH;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientAuthFault {
    pub(crate) key: &'static str,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

/// The files of the client authentication, and a hash of their content.
#[derive(Clone, Debug)]
pub(crate) struct WatchedFiles {
    system: System,
    client_auth: ClientAuthSettings,
    /// Not a setting of the files: see [`ClientAuth::danger_admit_unauthenticated`].
    admits_unauthenticated: bool,
    watch: FileWatch,
}

/// Reads the files of the settings; or returns everything that is wrong with them.
fn open(system: &System, client_auth: &ClientAuthSettings) -> Result<ClientAuth, Vec<ClientAuthFault>> {
    let files = system.files();
    let mut faults = Vec::new();
    let tls = tls(files, client_auth, &mut faults);
    let users = client_auth.auth_file.as_ref().and_then(|path| {
        const KEY: &str = "listen_auth_file";
        let text = String::from_utf8(read(files, KEY, path, true, &mut faults)?);
        let users = match &text {
            Ok(text) => Users::parse(text).map_err(|error| ClientAuthFault::of(KEY, path, &error)),
            Err(_) => {
                let message = format!("{} is not UTF-8", path.display());
                Err(ClientAuthFault { key: KEY, message, hint: "save it as UTF-8" })
            }
        };
        users.map_err(|fault| faults.push(fault)).ok()
    });
    let uids = uids(system.accounts(), &client_auth.uids, &mut faults);
    let roles = (!client_auth.role_map.is_empty()).then(|| RoleMap::from_iter(client_auth.role_map.clone()));
    match faults.is_empty() {
        true => Ok(ClientAuth { tls, users, uids, roles, ..ClientAuth::default() }),
        false => Err(faults),
    }
}

impl WatchedFiles {
    /// The files of these settings with their current content.
    pub(crate) fn new(
        system: &System,
        client_auth: &ClientAuthSettings,
        admits_unauthenticated: bool,
    ) -> Self {
        let watch = FileWatch::new(system.files(), client_auth.files().cloned());
        Self { system: system.clone(), client_auth: client_auth.clone(), admits_unauthenticated, watch }
    }

    /// Reads the files; or returns everything that is wrong with them and the settings.
    pub(crate) fn open(&self) -> Result<ClientAuth, Vec<ClientAuthFault>> {
        let client_auth = open(&self.system, &self.client_auth)?;
        Ok(ClientAuth { danger_admit_unauthenticated: self.admits_unauthenticated, ..client_auth })
    }

    /// Applies changes of the files for as long as the proxy exists. An invalid file changes
    /// nothing: the log says what is wrong with it, and the next change is read again.
    pub(crate) async fn keep(mut self, proxy: Weak<AuthProxy>) {
        if self.client_auth.files().next().is_none() {
            return;
        }
        let mut interval = tokio::time::interval(LOOK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Some(proxy) = proxy.upgrade() else { return };
            if let Some(client_auth) = self.look() {
                proxy.set_client_auth(client_auth);
            }
        }
    }

    /// The client authentication, if its files have changed and are valid.
    fn look(&mut self) -> Option<ClientAuth> {
        if !self.watch.has_changed() {
            return None;
        }
        match self.open() {
            Ok(client_auth) => {
                tracing::info!(files = ?self.client_auth.files().collect::<Vec<_>>(), "client authentication files reloaded");
                Some(client_auth)
            }
            Err(faults) => {
                for ClientAuthFault { key, message, hint } in faults {
                    tracing::warn!(key, hint, "{message}; what was there before stays");
                }
                None
            }
        }
    }
}

impl ClientAuthFault {
    fn of(key: &'static str, path: &Path, error: &ClientAuthError) -> Self {
        let mut message = format!("{}: {error}", path.display());
        if let Some(cause) = std::error::Error::source(error) {
            message.push_str(&format!(": {cause}"));
        }
        Self { key, message, hint: error.hint() }
    }
}

fn tls(files: &Files, client_auth: &ClientAuthSettings, faults: &mut Vec<ClientAuthFault>) -> Option<Tls> {
    let mut missing =
        |key, needs: &str, hint| faults.push(ClientAuthFault { key, message: needs.to_owned(), hint });
    if client_auth.tls_client_name != ClientName::Any || !client_auth.tls_client_map.is_empty() {
        let hint = "listen_tls_client_ca names the authority whose certificates clients have";
        if client_auth.tls_client_ca.is_none() {
            missing("listen_tls_client_name", "needs listen_tls_client_ca", hint);
        }
    }
    if client_auth.tls_client_name == ClientName::Any && !client_auth.tls_client_map.is_empty() {
        let hint = "say which name of a certificate the map has: listen_tls_client_name = \"cn\" or \"dn\"";
        missing("listen_tls_client_map", "needs listen_tls_client_name", hint);
    }
    let (cert, key) = match (&client_auth.tls_cert, &client_auth.tls_key) {
        (None, None) => {
            if client_auth.tls_client_ca.is_some() {
                let hint = "a client shows its certificate to a server that shows one: give listen_tls_cert and listen_tls_key";
                missing("listen_tls_client_ca", "needs listen_tls_cert", hint);
            }
            return None;
        }
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            missing("listen_tls_cert", "needs listen_tls_key", "give the file with its private key");
            return None;
        }
        (None, Some(_)) => {
            missing("listen_tls_key", "needs listen_tls_cert", "give the file with its certificate chain");
            return None;
        }
    };
    let chain = read(files, "listen_tls_cert", cert, false, faults);
    let private = read(files, "listen_tls_key", key, true, faults);
    let authority = match &client_auth.tls_client_ca {
        None => None,
        Some(path) => Some((read(files, "listen_tls_client_ca", path, false, faults)?, rule(client_auth))),
    };
    let clients = authority.as_ref().map(|(pem, rule)| (&**pem, rule.clone()));
    match Tls::from_pem(&chain?, &private?, clients) {
        Ok(tls) => Some(tls),
        Err(error) => {
            faults.push(ClientAuthFault::of("listen_tls_cert", cert, &error));
            None
        }
    }
}

/// The user ids for numbers or names.
fn uids(accounts: &Accounts, users: &[String], faults: &mut Vec<ClientAuthFault>) -> Vec<u32> {
    const HINT: &str = "give the user's number: id -u NAME";
    let mut uids = Vec::new();
    for user in users {
        let uid = user.parse().map_or_else(|_| accounts.uid(user), |uid| Ok(Some(uid)));
        let message = match uid {
            Ok(Some(uid)) => {
                uids.push(uid);
                continue;
            }
            Ok(None) => format!("names `{user}`, who is no user of this machine"),
            Err(error) => format!("names `{user}`, whose number cannot be found: {error}"),
        };
        faults.push(ClientAuthFault { key: "listen_uids", message, hint: HINT });
    }
    uids
}

fn rule(client_auth: &ClientAuthSettings) -> CertificateRule {
    let name = match client_auth.tls_client_name {
        ClientName::Any => return CertificateRule::Any,
        ClientName::Cn => CertificateName::CommonName,
        ClientName::Dn => CertificateName::DistinguishedName,
    };
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, role) in &client_auth.tls_client_map {
        map.entry(name.clone()).or_default().push(role.clone());
    }
    CertificateRule::Named(name, (!map.is_empty()).then_some(map))
}

fn read(
    files: &Files,
    key: &'static str,
    path: &Path,
    is_private: bool,
    faults: &mut Vec<ClientAuthFault>,
) -> Option<Vec<u8>> {
    let read = if is_private { files.read_private(path, LENGTH) } else { files.read(path, LENGTH) };
    let hint = match &read {
        Err(error) if is_private && error.kind() == std::io::ErrorKind::PermissionDenied => {
            "chmod 0640 FILE, or 0600; of a Kubernetes secret: defaultMode: 0440 with an fsGroup"
        }
        _ => "give a file that the proxy can read",
    };
    let fault =
        |error| ClientAuthFault { key, message: format!("{} cannot be read: {error}", path.display()), hint };
    read.map_err(|error| faults.push(fault(error))).ok()
}

impl ClientAuthSettings {
    /// Whether a listener may be reachable from other machines: clients must authenticate, and the
    /// connection is encrypted.
    pub(crate) fn require_authentication(&self) -> bool {
        self.tls_cert.is_some() && (self.tls_client_ca.is_some() || self.auth_file.is_some())
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.tls_cert, &self.tls_key, &self.tls_client_ca, &self.auth_file].into_iter().flatten()
    }
}

#[cfg(test)]
#[path = "tests/client_auth.rs"]
mod tests;
