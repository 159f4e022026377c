//! A server from its settings and files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgentra_gateway::{
    AccountCheck, ClientCertificates, ClientTls, Config, DirectoryChecks, DirectoryQuestions, Flavour,
    GatewayTelemetry, IssuerKeys, JwksUrl, Oauth, RoleRules, RoleSource, ServiceAccount, SessionExpiry,
    SharedRules, SigningAuthority, TlsUpstream, Unmapped, UpstreamAddress, UpstreamMethod,
};
use pgentra_session::Limits;
use pgentra_settings::{FileWatch, ListenAddr, Problems, SettingOrigin, chain};
use pgentra_system::System;
use pgentra_system::http::HttpClient;
use pgentra_verify::{Policy, Verifier};
use secrecy::SecretString;

use crate::directory::DirectorySource;
use crate::mapping_file::parse_mapping;
use crate::settings::{AccountLookup, Expiry, GraphDown, GroupOverage, ServerSettings, SignInMethod};

const UPSTREAM_HINT: &str = "write upstream = \"/var/run/postgresql\", or upstream = \"db.example:5432\"";
/// PostgreSQL's default port.
const PORT: u16 = 5432;
/// Longest password in bytes; PostgreSQL's own limit for a password is about a kilobyte.
const PASSWORD: usize = 1000;

/// Reads what a server needs. Everything that is wrong is added to `problems`.
pub(crate) struct Building<'a> {
    pub(crate) system: &'a System,
    /// The server in problems.
    pub(crate) label: &'a str,
    pub(crate) problems: &'a mut Problems,
    /// Makes what is asked about principals.
    pub(crate) directories: Option<&'a DirectorySource>,
}

impl Building<'_> {
    /// The configuration of a server; `None` if something is wrong.
    pub(crate) fn config(&mut self, settings: &ServerSettings, limits: &Limits) -> Option<Config> {
        let upstream = self.upstreams(settings);
        let is_unix = upstream
            .as_ref()
            .and_then(|servers| servers.first())
            .is_some_and(|upstream| matches!(upstream, UpstreamAddress::Unix { .. }));
        let signs_in = settings.method.unwrap_or(match is_unix {
            true => SignInMethod::Peer,
            false => SignInMethod::Cert,
        });
        let method = upstream.as_ref().and_then(|_| self.method(settings, signs_in, is_unix));
        let roles = self.roles(settings, signs_in);
        let verifiers = self.verifiers(settings);
        if settings.unmapped == Unmapped::Password && upstream.is_some() && !is_unix {
            // The client would see the gateway's certificate in the place of the server's.
            let hint = "lead the server's Unix socket to the gateway, or have such clients connect to the server itself";
            self.add("unmapped", "cannot be password over TLS: SCRAM with channel binding would fail", hint);
        }
        if settings.warm.number > 0 && settings.flavour == Some(Flavour::Single) {
            // The server compares the id in each client's token: a session that waits has answered for another client.
            let hint = "leave it at 0 with flavour single";
            self.add("warm", "cannot be used with flavour single", hint);
        }
        let directory = self.directory(settings);
        let (method, password) = method?;
        let mut servers = upstream?.into_iter();
        let verifiers = verifiers?;
        let oauth = Oauth { default: settings.auth, ..Oauth::of(verifiers.first()?.policy()) };
        let clock = self.system.clock().clone();
        let notice = settings.expiry_notice;
        Some(Config {
            name: self.name(settings),
            tls: ClientTls::DangerOptional(None),
            upstream: servers.next()?,
            pooler: None,
            further: servers.collect(),
            target_session_attrs: settings.target_session_attrs,
            method,
            service: ServiceAccount { name: settings.service_role.clone(), password },
            roles: roles?,
            unmapped: settings.unmapped,
            server_name: settings.server_name.clone(),
            verifiers,
            oauth,
            clock: Arc::new(move || clock.now()),
            expiry: match settings.expiry {
                Expiry::Off => SessionExpiry::Off,
                Expiry::Warn => SessionExpiry::Warn(notice),
                Expiry::End => SessionExpiry::End(notice),
            },
            directory: directory?,
            warm: settings.warm,
            limits: Limits { connections: settings.max_connections, ..limits.clone() },
            telemetry: GatewayTelemetry::default(),
        })
    }

    pub(crate) fn name(&self, settings: &ServerSettings) -> String {
        settings.name.clone().or_else(|| settings.upstream.clone()).unwrap_or_default()
    }

    /// The servers, at least one; all of them are reached in the same way.
    fn upstreams(&mut self, settings: &ServerSettings) -> Option<Vec<UpstreamAddress>> {
        let Some(text) = &settings.upstream else {
            self.add("upstream", "is missing: the server behind the gateway", UPSTREAM_HINT);
            return None;
        };
        let found: Vec<_> = text.split(',').map(|text| self.upstream(text.trim(), settings)).collect();
        let found: Vec<_> = found.into_iter().collect::<Option<_>>()?;
        let is_unix = |upstream: &UpstreamAddress| matches!(upstream, UpstreamAddress::Unix { .. });
        if found.iter().any(is_unix) && !found.iter().all(is_unix) {
            let hint = "one method is for all of them: name only folders, or only hosts";
            self.add("upstream", "cannot be Unix sockets and hosts at once", hint);
            return None;
        }
        Some(found)
    }

    fn upstream(&mut self, text: &str, settings: &ServerSettings) -> Option<UpstreamAddress> {
        if text.starts_with('/') {
            return match text.parse() {
                Ok(ListenAddr::Unix { folder, port }) => Some(UpstreamAddress::Unix { dir: folder, port }),
                Ok(_) => None,
                Err(error) => {
                    self.add("upstream", &format!("cannot be `{text}`: {error}"), UPSTREAM_HINT);
                    None
                }
            };
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') || host.starts_with('[') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => {
                    self.add("upstream", &format!("cannot be `{text}`: `{port}` is no port"), UPSTREAM_HINT);
                    return None;
                }
            },
            _ => (text, PORT),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let Some(path) = &settings.upstream_ca else {
            let hint = "give the certificate of the authority; of a self-signed server.crt, give that file";
            self.add("upstream_ca", "is missing: it verifies the server's certificate", hint);
            return None;
        };
        let roots = self.read("upstream_ca", path, false)?;
        match TlsUpstream::new(host, port, &roots) {
            Ok(server) => Some(UpstreamAddress::Tls(server)),
            Err(error) => {
                let hint = "give a host name or address, and a file with -----BEGIN CERTIFICATE----- in it";
                self.add(
                    "upstream",
                    &format!("cannot be `{text}` with {}: {}", path.display(), chain(&error)),
                    hint,
                );
                None
            }
        }
    }

    fn method(
        &mut self,
        settings: &ServerSettings,
        method: SignInMethod,
        is_unix: bool,
    ) -> Option<(UpstreamMethod, SecretString)> {
        let none = || SecretString::from(String::new());
        match method {
            SignInMethod::Peer if !is_unix => {
                let hint = "name the folder of the server's Unix socket as upstream, or take method cert";
                self.add("method", "cannot be peer over TLS", hint);
                None
            }
            SignInMethod::Peer => Some((UpstreamMethod::Peer, none())),
            SignInMethod::Cert if is_unix => {
                let hint = "PostgreSQL takes certificates over TLS alone: write upstream = \"localhost\", or take method peer";
                self.add("method", "cannot be cert over a Unix socket", hint);
                None
            }
            SignInMethod::Cert => {
                let Some(path) = &settings.authority else {
                    self.add(
                        "authority",
                        "is missing: it signs the gateway's certificates",
                        "make it: pgentra gateway init --method cert --authority FILE",
                    );
                    return None;
                };
                let text = self.read("authority", path, true)?;
                let clock = self.system.clock().clone();
                let made = SigningAuthority::from_pem(&text)
                    .and_then(|authority| ClientCertificates::new(authority, Arc::new(move || clock.now())));
                match made {
                    Ok(certificates) => Some((UpstreamMethod::Certificate(Arc::new(certificates)), none())),
                    Err(error) => {
                        let hint = "make it: pgentra gateway init --method cert --authority FILE";
                        self.add("authority", &format!("{}: {}", path.display(), chain(&error)), hint);
                        None
                    }
                }
            }
            SignInMethod::Scram => {
                let Some(path) = &settings.password_file else {
                    let hint = "give a file with the password that pgentra gateway init was given";
                    self.add("password_file", "is missing: method scram needs it", hint);
                    return None;
                };
                let text = self.read("password_file", path, true)?;
                match password(&text) {
                    Ok(password) => Some((UpstreamMethod::SharedPassword, password)),
                    Err(what) => {
                        self.add(
                            "password_file",
                            &format!("{}: {what}", path.display()),
                            "openssl rand -hex 32",
                        );
                        None
                    }
                }
            }
        }
    }

    /// What Graph is asked for; `None` in it: nothing. `None`: something is wrong.
    fn directory(&mut self, settings: &ServerSettings) -> Option<Option<DirectoryChecks>> {
        let questions = DirectoryQuestions {
            groups: settings.group_overage == GroupOverage::Graph,
            account: match settings.account_check {
                AccountLookup::Off => AccountCheck::Off,
                AccountLookup::Login => AccountCheck::Login,
                AccountLookup::Session => AccountCheck::Session(settings.account_check_interval),
            },
            allow_if_unavailable: settings.graph_down == GraphDown::Allow,
        };
        let key = match (questions.groups, questions.account) {
            (true, _) => "group_overage",
            (false, AccountCheck::Off) => return Some(None),
            (false, _) => "account_check",
        };
        if settings.tenant.len() != 1 {
            let hint = "the gateway's identity is of one tenant, and Graph knows the principals of that one";
            self.add(key, "needs exactly one tenant", hint);
            return None;
        }
        let Some(source) = self.directories else {
            self.add(key, "cannot be served by this program", "serve it with pgentra gateway");
            return None;
        };
        match source.make(self.system, settings.cloud) {
            Ok(directory) => Some(Some(DirectoryChecks::new(directory, questions))),
            Err(error) => {
                let hint = "the gateway asks Graph with the identity of its host: pgentra whoami";
                self.add(key, &format!("needs access to Microsoft Graph: {error}"), hint);
                None
            }
        }
    }

    fn roles(&mut self, settings: &ServerSettings, method: SignInMethod) -> Option<RoleSource> {
        match (settings.flavour, &settings.mapping) {
            (Some(_), Some(_)) => {
                self.add(
                    "mapping",
                    "is for flavour none: the mapping would be in two places",
                    "write flavour = \"none\", or leave mapping out",
                );
                None
            }
            (Some(Flavour::Single), None) if method != SignInMethod::Scram => {
                let hint = "there, the password of a role is the id of its principal: take method scram";
                self.add("flavour", "cannot be single with this method", hint);
                None
            }
            (Some(flavour), None) => Some(RoleSource::Database(flavour)),
            (None, None) => {
                self.add(
                    "mapping",
                    "is missing: flavour none needs it",
                    "name a TOML file with [[role]] tables",
                );
                None
            }
            (None, Some(path)) => self.rules(path).map(|rules| RoleSource::Rules(SharedRules::new(rules))),
        }
    }

    fn rules(&mut self, path: &Path) -> Option<RoleRules> {
        let text = self.read("mapping", path, false)?;
        let faults = read_rules(&text, path);
        faults
            .map_err(|faults| {
                for fault in faults {
                    self.add("mapping", &fault, "correct the line");
                }
            })
            .ok()
    }

    fn verifiers(&mut self, settings: &ServerSettings) -> Option<Vec<Arc<Verifier>>> {
        if settings.tenant.is_empty() && settings.issuer.is_empty() {
            self.add("tenant", "is missing: whose tokens are accepted", "az account show --query tenantId");
            return None;
        }
        if settings.tenant.is_empty() && settings.issuer.len() > 1 && settings.keys_url.is_some() {
            self.add(
                "keys_url",
                "is for one issuer, and there are several",
                "leave it out: each names its own",
            );
            return None;
        }
        for (key, is_set) in
            [("issuer", !settings.issuer.is_empty()), ("keys_url", settings.keys_url.is_some())]
        {
            if is_set && settings.tenant.len() > 1 {
                self.add(key, "is for one tenant, and there are several", "leave it out, or name one tenant");
                return None;
            }
        }
        let mut http = self.system.http().clone();
        if let Some(path) = &settings.keys_ca {
            let pem = self.read("keys_ca", path, false)?;
            http = match http.with_extra_roots(&pem) {
                Ok(http) => http,
                Err(error) => {
                    let hint = "give a file with -----BEGIN CERTIFICATE----- in it";
                    self.add("keys_ca", &format!("{}: {}", path.display(), chain(&error)), hint);
                    return None;
                }
            };
        }
        let mut verifiers = Vec::new();
        for tenant in &settings.tenant {
            let mut policy = Policy::builder(*tenant).cloud(settings.cloud);
            for issuer in &settings.issuer {
                policy = policy.issuer(issuer);
            }
            for audience in &settings.audience {
                policy = policy.audience(audience);
            }
            let policy = match policy.build() {
                Ok(policy) => policy,
                Err(error) => {
                    self.add("tenant", &format!("makes no policy: {error}"), "give the GUID of the tenant");
                    return None;
                }
            };
            let url = settings.keys_url.clone().unwrap_or_else(|| settings.cloud.keys_url(*tenant));
            verifiers.push(Arc::new(Verifier::new(policy, JwksUrl::new(http.clone(), url))));
        }
        if settings.tenant.is_empty() {
            for issuer in &settings.issuer {
                verifiers.push(self.of_issuer(settings, issuer, &http)?);
            }
        }
        Some(verifiers)
    }

    /// A verifier of an issuer that is not Entra.
    fn of_issuer(
        &mut self,
        settings: &ServerSettings,
        issuer: &str,
        http: &HttpClient,
    ) -> Option<Arc<Verifier>> {
        let policy = Policy::of_issuer(issuer);
        let policy = settings.audience.iter().fold(policy, |policy, audience| policy.audience(audience));
        match policy.build() {
            Ok(policy) => Some(Arc::new(match &settings.keys_url {
                Some(url) => Verifier::new(policy, JwksUrl::new(http.clone(), url)),
                None => Verifier::new(policy, IssuerKeys::new(http.clone(), issuer)),
            })),
            Err(error) => {
                let hint = "give the audience (aud) that the issuer writes into tokens for this server";
                self.add("audience", &format!("makes no policy: {error}"), hint);
                None
            }
        }
    }

    fn read(&mut self, key: &str, path: &Path, is_private: bool) -> Option<Vec<u8>> {
        let files = self.system.files();
        let read = match is_private {
            true => files.read_private(path, FileWatch::LENGTH),
            false => files.read(path, FileWatch::LENGTH),
        };
        let hint = match &read {
            Err(error) if is_private && error.kind() == std::io::ErrorKind::PermissionDenied => {
                "chmod 0640 FILE, or 0600, and give it to the gateway's user"
            }
            _ => "give a file that the gateway can read",
        };
        read.map_err(|error| self.add(key, &format!("{} cannot be read: {error}", path.display()), hint)).ok()
    }

    fn add(&mut self, key: &str, message: &str, hint: &str) {
        let origin = SettingOrigin::Target { target: self.label.to_owned(), key: key.to_owned() };
        self.problems.add_with_hint(origin, message, hint);
    }
}

/// The files whose change makes another server of the same settings; not the mapping, which is
/// replaced in place.
pub(crate) fn files(settings: &ServerSettings) -> impl Iterator<Item = PathBuf> {
    [&settings.upstream_ca, &settings.authority, &settings.password_file, &settings.keys_ca]
        .into_iter()
        .flatten()
        .cloned()
}

/// The rules in the text of a mapping file; a line for each fault.
pub(crate) fn read_rules(text: &[u8], path: &Path) -> Result<RoleRules, Vec<String>> {
    let text = std::str::from_utf8(text).map_err(|_| vec![format!("{} is not UTF-8", path.display())])?;
    parse_mapping(text).map_err(|faults| {
        faults.iter().map(|fault| format!("{}:{} {}", path.display(), fault.line, fault.message)).collect()
    })
}

/// The first line of the file.
fn password(text: &[u8]) -> Result<SecretString, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "the password is not UTF-8")?;
    match text.lines().next().unwrap_or_default() {
        "" => Err("the first line is empty"),
        line if line.len() > PASSWORD => Err("the password is longer than 1000 bytes"),
        line => Ok(line.to_owned().into()),
    }
}
