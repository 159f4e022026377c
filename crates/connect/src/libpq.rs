//! The same connection for programs that use libpq.

use std::process::Command;

use pgentra_identity::AccessToken;

use crate::error::ConnectError;
use crate::load_balance::LoadBalanceHosts;
use crate::roots::RootSource;
use crate::target::Target;

/// Variables that would override the others: a service file has precedence over variables, so a file with
/// `sslmode=prefer` would send the token to an unverified server.
const REMOVED: [&str; 12] = [
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGPASSFILE",
    "PGREQUIRESSL",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGHOSTADDR",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGLOADBALANCEHOSTS",
];

/// The environment with which a libpq program makes the same connection: verified TLS, with a token as its password.
///
/// The token can be read by the program, and by processes that may read its environment: those of the same user and of
/// root.
#[derive(Debug, Clone)]
pub struct LibpqEnvironment {
    variables: Vec<(&'static str, String)>,
    token: AccessToken,
}

impl LibpqEnvironment {
    /// The variables to set, without `PGPASSWORD`.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.variables.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The variables to remove from the program's environment, except those in [`LibpqEnvironment::variables`].
    pub fn removed(&self) -> impl Iterator<Item = &'static str> {
        REMOVED.into_iter().filter(|name| self.variables.iter().all(|(set, _)| set != name))
    }

    /// The access token, which is the value of `PGPASSWORD`.
    pub fn password(&self) -> &AccessToken {
        &self.token
    }

    /// Sets all variables with the password in a command's environment, and removes those of
    /// [`LibpqEnvironment::removed`].
    pub fn apply(&self, command: &mut Command) {
        for name in self.removed() {
            command.env_remove(name);
        }
        command.envs(self.variables()).env("PGPASSWORD", self.token.expose_secret());
    }

    pub(crate) fn new(target: &Target, token: AccessToken) -> Result<LibpqEnvironment, ConnectError> {
        let list = |part: &dyn Fn(&crate::HostSpec) -> String| {
            target.endpoints().iter().map(part).collect::<Vec<_>>().join(",")
        };
        let addresses =
            list(&|endpoint| endpoint.address.map(|address| address.to_string()).unwrap_or_default());
        let order = Some(target.load_balance_hosts()).filter(|order| *order != LoadBalanceHosts::default());
        let optional = [
            ("PGHOSTADDR", Some(addresses).filter(|list| list.chars().any(|c| c != ','))),
            ("PGAPPNAME", target.application_name().map(str::to_owned)),
            ("PGOPTIONS", target.options().map(str::to_owned)),
            // libpq 16 and later; an earlier one ignores it.
            ("PGLOADBALANCEHOSTS", order.map(|order| order.as_str().to_owned())),
        ];
        let mut variables = vec![
            ("PGHOST", list(&|endpoint| endpoint.host.clone())),
            ("PGPORT", list(&|endpoint| endpoint.port.to_string())),
            ("PGUSER", target.user().to_owned()),
            ("PGDATABASE", target.database().to_owned()),
            ("PGSSLMODE", target.ssl_mode().to_string()),
            ("PGSSLROOTCERT", root_certificates(target)?),
            ("PGSSLNEGOTIATION", target.ssl_negotiation().as_str().to_owned()),
            ("PGTARGETSESSIONATTRS", target.session_attrs().as_str().to_owned()),
            ("PGCONNECT_TIMEOUT", target.connect_timeout().as_secs().to_string()),
            // With the next three, libpq 16 and later sends the token only as a cleartext password inside TLS.
            ("PGREQUIREAUTH", "password".to_owned()),
            ("PGCHANNELBINDING", "disable".to_owned()),
            ("PGGSSENCMODE", "disable".to_owned()),
        ];
        variables.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        Ok(LibpqEnvironment { variables, token })
    }
}

/// libpq's connection variables that would change where a program connects, or how it authenticates (PostgreSQL
/// documentation, "Environment Variables" of libpq).
const CONNECTION: [&str; 27] = [
    "PGHOSTADDR",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGREQUIREAUTH",
    "PGCHANNELBINDING",
    "PGREQUIRESSL",
    "PGSSLNEGOTIATION",
    "PGSSLCOMPRESSION",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCERTMODE",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
    "PGREQUIREPEER",
    "PGKRBSRVNAME",
    "PGGSSLIB",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
    "PGCONNECT_TIMEOUT",
    "PGOPTIONS",
    "PGAPPNAME",
];

/// The environment with which a libpq program connects to a listener of the auth proxy on this machine, as the role
/// and to the database of a target. It contains no token.
#[derive(Debug, Clone)]
pub struct ListenerEnvironment {
    variables: Vec<(&'static str, String)>,
}

impl ListenerEnvironment {
    /// `host` is the folder of a Unix socket or an address. The connection to the server is the proxy's, so all
    /// settings that belong to it are removed.
    pub fn new(target: &Target, host: &str, port: u16) -> Self {
        let optional = [
            ("PGAPPNAME", target.application_name().map(str::to_owned)),
            ("PGOPTIONS", target.options().map(str::to_owned)),
        ];
        let mut variables = vec![
            ("PGHOST", host.to_owned()),
            ("PGPORT", port.to_string()),
            ("PGUSER", target.user().to_owned()),
            ("PGDATABASE", target.database().to_owned()),
            // The listener has no TLS: it is a Unix socket or on the loopback interface.
            ("PGSSLMODE", "disable".to_owned()),
            ("PGGSSENCMODE", "disable".to_owned()),
        ];
        variables.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        Self { variables }
    }

    /// Sets the variables in a command's environment, and removes every other one that would change the connection.
    pub fn apply(&self, command: &mut Command) {
        for name in CONNECTION {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }
}

/// libpq before 16 knows no `system`, so a file is named wherever the system keeps one.
pub(crate) fn root_certificates(target: &Target) -> Result<String, ConnectError> {
    match &target.roots().0 {
        RootSource::Own { path: Some(path), .. } => Ok(path.clone()),
        RootSource::Own { path: None, .. } => {
            Err(ConnectError::config("the trusted authorities are in no file, which is where libpq looks")
                .hinting("name the file with sslrootcert"))
        }
        RootSource::Platform => Ok(target.system_bundle().unwrap_or("system").to_owned()),
    }
}
