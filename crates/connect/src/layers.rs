//! All settings of a connection by their origin, in order of precedence.

use pgentra_system::{Env, Files};

use crate::conninfo::{self, Pairs};
use crate::error::ConnectError;
use crate::keyword::{self, DBNAME, SERVICE, SERVICEFILE};
use crate::origin::Origin;
use crate::{service_connector, service_file};

/// All settings of a connection by their origin. The first layer that names a keyword decides it:
///
/// 1. the connection string or database name given as the positional argument,
/// 2. flags,
/// 3. the service file, if a service is named by one of those or by `PGSERVICE`,
/// 4. the variables of libpq (`PGHOST`, …),
/// 5. the variables of Azure's Service Connector (`AZURE_POSTGRESQL_…`).
///
/// The order of the first four is libpq's: a service is a choice of a server as a whole, and a variable that was set for something
/// else must not lead to another one.
#[derive(Debug, Clone)]
pub struct Layers {
    layers: Vec<KeywordLayer>,
    files: Files,
    system_bundle: Option<String>,
}

/// Where systems keep the file of all authorities: Debian, Red Hat, SUSE, then Alpine, macOS and the BSDs.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, Clone, Default)]
struct KeywordLayer(Vec<KeywordValue>);

/// A keyword that was given a value.
#[derive(Debug, Clone)]
pub(crate) struct KeywordValue {
    pub(crate) keyword: &'static str,
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

impl Layers {
    /// Reads all five layers. `positional` is a URI, a `keyword=value` string or a database name; so may be the flag
    /// `dbname`, as with `psql -d`. A flag is named by libpq's keyword (`host`, `port`, `user`, `dbname`, `sslrootcert`, …).
    ///
    /// # Errors
    /// A string or file that cannot be read, a service that is not defined, a keyword that does not exist or is not
    /// supported, a password. A password in a service file or of Service Connector is not an error and not read.
    pub fn gather(
        positional: Option<&str>,
        flags: &[(&str, String)],
        env: &Env,
        files: &Files,
    ) -> Result<Layers, ConnectError> {
        let bundles = env.get("SSL_CERT_FILE").into_iter().chain(SYSTEM_BUNDLES.map(str::to_owned));
        let system_bundle = bundles.into_iter().find(|path| files.is_file(path));
        let mut layers = Layers { layers: Vec::new(), files: files.clone(), system_bundle };
        let positional =
            positional.map(|text| vec![(DBNAME.to_owned(), text.to_owned())]).unwrap_or_default();
        layers.push(expand(positional)?, &Origin::Positional)?;
        let flags = flags.iter().map(|(keyword, value)| ((*keyword).to_owned(), value.clone())).collect();
        layers.push(expand(flags)?, &Origin::Flag)?;
        layers.push_service(env)?;
        layers.push_variables(env)?;
        let azure = service_connector::read(env)?.into_iter().map(|(variable, keyword, value)| {
            KeywordValue { keyword, value, origin: Origin::ServiceConnector(variable) }
        });
        layers.layers.push(KeywordLayer(azure.collect()));
        Ok(layers)
    }

    /// The value that counts, and who gave it. An empty value counts as none, as with libpq.
    pub(crate) fn find(&self, keyword: &str) -> Option<&KeywordValue> {
        let in_layer = |layer: &'_ KeywordLayer| {
            layer.0.iter().position(|s| s.keyword == keyword && !s.value.is_empty())
        };
        self.layers.iter().find_map(|layer| in_layer(layer).map(|at| &layer.0[at]))
    }

    /// The file in which the operating system, or `SSL_CERT_FILE`, keeps its authorities.
    pub(crate) fn system_bundle(&self) -> Option<&str> {
        self.system_bundle.as_deref()
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    fn push(&mut self, pairs: Pairs, origin: &Origin) -> Result<(), ConnectError> {
        let mut layer = KeywordLayer::default();
        for (keyword, value) in pairs {
            if let Some(keyword) = keyword::check(&keyword, &value, origin)? {
                layer.set(KeywordValue { keyword, value, origin: origin.clone() });
            }
        }
        self.layers.push(layer);
        Ok(())
    }

    fn push_variables(&mut self, env: &Env) -> Result<(), ConnectError> {
        let mut layer = KeywordLayer::default();
        for (variable, keyword) in keyword::variables() {
            let Some(value) = env.get(&variable) else { continue };
            let origin = Origin::Variable(variable.clone());
            let checked = keyword::check(keyword, &value, &origin).map_err(|error| {
                ConnectError::config(format!("the variable {variable} is in the way")).because(error)
            })?;
            if let Some(keyword) = checked {
                layer.set(KeywordValue { keyword, value, origin });
            }
        }
        self.layers.push(layer);
        Ok(())
    }

    fn push_service(&mut self, env: &Env) -> Result<(), ConnectError> {
        let named = |keyword, variable| {
            let setting = self.find(keyword).map(|setting| setting.value.clone());
            setting.or_else(|| env.get(variable))
        };
        let Some(service) = named(SERVICE, "PGSERVICE") else { return Ok(()) };
        let file = named(SERVICEFILE, "PGSERVICEFILE");
        let (path, pairs) = service_file::read(&service, file.as_deref(), env, &self.files)?;
        let pairs = pairs.into_iter().filter(|(keyword, _)| keyword != "password").collect();
        self.push(pairs, &Origin::ServiceFile { path, service })
    }
}

impl KeywordLayer {
    /// Within a layer the last one counts, as with libpq.
    fn set(&mut self, setting: KeywordValue) {
        self.0.retain(|known| known.keyword != setting.keyword);
        self.0.push(setting);
    }
}

/// Puts what a connection string says in the place of the `dbname` that it was given as.
fn expand(pairs: Pairs) -> Result<Pairs, ConnectError> {
    let mut expanded = Pairs::new();
    for (keyword, value) in pairs {
        if keyword == DBNAME && conninfo::is_connection_string(&value) {
            expanded.extend(conninfo::parse(&value)?);
        } else {
            expanded.push((keyword, value));
        }
    }
    Ok(expanded)
}
