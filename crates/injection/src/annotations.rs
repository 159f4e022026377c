//! The annotations by which a pod, or its namespace, asks for the sidecar.

use std::collections::BTreeMap;

use pgentra_connect::quote;
use serde_json::{Map, Value};

use crate::refusal::InjectionRefusal;
use crate::target::{self, SidecarTarget};

/// What all annotations and the label of a namespace begin with.
pub const PREFIX: &str = "pgentra.dev/";

/// An annotation that people write.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// Its name, behind [`PREFIX`].
    pub name: &'static str,
    /// What it says; for people.
    pub meaning: &'static str,
    /// What holds without it.
    pub default: &'static str,
}

/// Every annotation that people write.
pub const ANNOTATIONS: [Annotation; 10] = [
    Annotation { name: TARGET, meaning: "the server: a connection string without a password", default: "" },
    Annotation { name: PORT, meaning: "port of the sidecar on 127.0.0.1", default: "5432" },
    Annotation {
        name: ENVIRONMENT,
        meaning: "variables that containers get: PGHOST, PGPORT, PGUSER, PGDATABASE and DATABASE_URL, with commas between \
                  them, or none",
        default: "PGHOST,PGPORT,PGUSER,PGDATABASE",
    },
    Annotation {
        name: CONTAINERS,
        meaning: "names of the containers that get them, with commas between them",
        default: "all",
    },
    Annotation {
        name: ENV,
        meaning: "variables of the sidecar, a line NAME=VALUE for each; PGENTRA_WARM=2 is a setting of the proxy",
        default: "none",
    },
    Annotation {
        name: MOUNTS,
        meaning: "volumes of the pod that the sidecar reads, a line VOLUME:PATH for each",
        default: "none",
    },
    Annotation {
        name: RESOURCES,
        meaning: "requests and limits of the sidecar, as JSON",
        default: "50m of CPU and 32Mi, at most 256Mi",
    },
    Annotation { name: HEALTH_PORT, meaning: "port of the sidecar's probes and metrics", default: "9432" },
    Annotation {
        name: WORKLOAD_IDENTITY,
        meaning: "false: the pod does not get the label azure.workload.identity/use",
        default: "true",
    },
    Annotation { name: INJECT, meaning: "false: the pod gets no sidecar", default: "true" },
];

const TARGET: &str = "target";
const PORT: &str = "port";
const HEALTH_PORT: &str = "health-port";
const ENVIRONMENT: &str = "environment";
const CONTAINERS: &str = "containers";
const ENV: &str = "env";
const MOUNTS: &str = "mounts";
const RESOURCES: &str = "resources";
const WORKLOAD_IDENTITY: &str = "workload-identity";
const INJECT: &str = "inject";
/// The annotation that a run leaves behind.
pub(crate) const INJECTED: &str = "injected";

/// Longer values are a mistake; Kubernetes allows 256 KiB for all annotations together.
const LENGTH_LIMIT: usize = 16 * 1024;

/// The variables that containers can get.
pub(crate) const VARIABLES: [&str; 5] = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", DATABASE_URL];
pub(crate) const DATABASE_URL: &str = "DATABASE_URL";

/// What a namespace says for its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceDefaults {
    annotations: BTreeMap<String, Value>,
    is_for_all: bool,
}

impl NamespaceDefaults {
    /// What an object of kind `Namespace` says: its annotations, and by the label `pgentra.dev/inject: "true"` that every
    /// pod gets the sidecar.
    pub fn of_namespace(namespace: &Value) -> Self {
        let metadata = &namespace["metadata"];
        Self {
            annotations: ours(metadata["annotations"].as_object()),
            is_for_all: metadata["labels"][format!("{PREFIX}{INJECT}")] == "true",
        }
    }
}

/// What a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SidecarRequest {
    pub(crate) server: SidecarTarget,
    pub(crate) port: u16,
    pub(crate) health_port: u16,
    pub(crate) variables: Vec<&'static str>,
    /// All containers, or these.
    pub(crate) containers: Option<Vec<String>>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<(String, String)>,
    pub(crate) resources: Option<Value>,
    pub(crate) has_workload_identity: bool,
}

/// The annotations of ours, without the prefix.
fn ours(annotations: Option<&Map<String, Value>>) -> BTreeMap<String, Value> {
    let annotations = annotations.into_iter().flatten();
    let ours =
        annotations.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value.clone())));
    ours.collect()
}

/// Whether an object has an annotation of ours that people write.
pub(crate) fn asks(metadata: &Value) -> bool {
    ours(metadata["annotations"].as_object()).keys().any(|name| name != INJECTED)
}

/// What the annotations of a pod and the defaults of its namespace ask for; `None` for no sidecar.
///
/// # Errors
/// Every annotation that cannot be read.
pub(crate) fn read(
    annotations: Option<&Map<String, Value>>,
    defaults: &NamespaceDefaults,
) -> Result<Option<SidecarRequest>, Vec<InjectionRefusal>> {
    let mut own = ours(annotations);
    own.remove(INJECTED);
    if own.get(INJECT).is_some_and(|value| value == "false") || (own.is_empty() && !defaults.is_for_all) {
        return Ok(None);
    }
    let mut all = defaults.annotations.clone();
    all.append(&mut own);
    let mut reading = AnnotationReader { all, refusals: Vec::new() };
    reading.names();
    let server = reading.take(TARGET, target::read);
    let mut request = SidecarRequest {
        server: SidecarTarget { text: String::new(), user: None, database: None },
        port: reading.take(PORT, port).unwrap_or(5432),
        health_port: reading.take(HEALTH_PORT, port).unwrap_or(9432),
        variables: reading
            .take(ENVIRONMENT, variables)
            .unwrap_or_else(|| VARIABLES.into_iter().filter(|variable| *variable != DATABASE_URL).collect()),
        containers: reading.take(CONTAINERS, |text| Ok(words(text).map(str::to_owned).collect())),
        env: reading.take(ENV, |text| lines(text, '=', "NAME=VALUE", is_variable)).unwrap_or_default(),
        mounts: reading.take(MOUNTS, |text| lines(text, ':', "VOLUME:PATH", is_label)).unwrap_or_default(),
        resources: reading.take(RESOURCES, resources),
        has_workload_identity: reading.take(WORKLOAD_IDENTITY, truth).unwrap_or(true),
    };
    reading.take(INJECT, truth);
    if server.is_none() && !reading.refusals.iter().any(|refusal| refusal.to_string().contains(TARGET)) {
        reading.refusals.push(InjectionRefusal::annotation(format!(
            "neither the pod nor its namespace names a server: the annotation {PREFIX}{TARGET} takes \
             postgresql://my-app@my-server.postgres.database.azure.com/app"
        )));
    }
    if request.port == request.health_port {
        reading.refusals.push(InjectionRefusal::annotation(format!(
            "{PREFIX}{PORT} and {PREFIX}{HEALTH_PORT} are both {}",
            request.port
        )));
    }
    match server {
        Some(server) if reading.refusals.is_empty() => {
            request.server = server;
            Ok(Some(request))
        }
        _ => Err(reading.refusals),
    }
}

struct AnnotationReader {
    all: BTreeMap<String, Value>,
    refusals: Vec<InjectionRefusal>,
}

impl AnnotationReader {
    /// Refuses names that do not exist.
    fn names(&mut self) {
        for name in self.all.keys() {
            if ANNOTATIONS.iter().all(|known| known.name != name) {
                self.refusals.push(InjectionRefusal::annotation(unknown(name)));
            }
        }
    }

    fn take<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.all.get(name)?;
        let read = match value {
            Value::String(text) if text.len() > LENGTH_LIMIT => {
                Err(format!("is longer than {LENGTH_LIMIT} bytes"))
            }
            Value::String(text) => read(text),
            _ => Err("is not a string: Kubernetes wants quotation marks around it".to_owned()),
        };
        read.map_err(|why| self.refusals.push(InjectionRefusal::annotation(format!("{PREFIX}{name} {why}"))))
            .ok()
    }
}

fn unknown(name: &str) -> String {
    let names = || ANNOTATIONS.iter().map(|known| known.name);
    let shown: String = name.chars().take(64).collect();
    let close = names().max_by(|a, b| {
        let likeness = |known: &str| strsim::jaro_winkler(known, &shown);
        likeness(a).total_cmp(&likeness(b))
    });
    let meant = close.filter(|close| strsim::jaro_winkler(close, &shown) > 0.8);
    let meant = meant.map(|close| format!(" (did you mean {PREFIX}{close}?)")).unwrap_or_default();
    format!(
        "there is no annotation {}{meant}; there are {PREFIX}{}",
        quote::name(&format!("{PREFIX}{shown}")),
        names().collect::<Vec<_>>().join(", ")
    )
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.trim().parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("is {}, and a port is a number from 1 to 65535", shown(text)))
}

fn truth(text: &str) -> Result<bool, String> {
    text.trim().parse().map_err(|_| format!("is {}, and takes true or false", shown(text)))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn variables(text: &str) -> Result<Vec<&'static str>, String> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let mut wanted = Vec::new();
    for word in words(text) {
        match VARIABLES.iter().find(|variable| **variable == word) {
            Some(variable) if !wanted.contains(variable) => wanted.push(*variable),
            Some(_) => {}
            None => {
                let all = VARIABLES.join(", ");
                return Err(format!("has {}, and takes {all}, or none", shown(word)));
            }
        }
    }
    if wanted.is_empty() { Err("is empty, and takes none for no variables".to_owned()) } else { Ok(wanted) }
}

/// Lines of a name, a separator and a value.
fn lines(
    text: &str,
    separator: char,
    form: &str,
    is_name: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // The line may hold a secret: its name alone is shown.
        let Some((name, value)) = line.split_once(separator) else {
            return Err(format!("has a line that is not {form}"));
        };
        if !is_name(name) || value.is_empty() && separator == ':' {
            return Err(format!("has {} in a line, and each line is {form}", shown(name)));
        }
        let is_path = separator == ':';
        if is_path && !value.starts_with('/') {
            return Err(format!("has {}, and a path begins with /", shown(value)));
        }
        if found.iter().any(|(known, path)| if is_path { path == value } else { known == name }) {
            return Err(format!("has {} twice", shown(if is_path { value } else { name })));
        }
        found.push((name.to_owned(), value.to_owned()));
    }
    Ok(found)
}

/// A name of a variable, as Kubernetes allows it by default.
fn is_variable(name: &str) -> bool {
    let is_letter = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '.' | '-');
    !name.starts_with(|char: char| char.is_ascii_digit()) && !name.is_empty() && name.chars().all(is_letter)
}

/// A name of a volume (RFC 1123).
fn is_label(name: &str) -> bool {
    let is_letter = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    (1..=63).contains(&name.len()) && name.chars().all(is_letter)
}

fn resources(text: &str) -> Result<Value, String> {
    let form = r#"is not of the form {"requests": {"cpu": "50m"}, "limits": {"memory": "256Mi"}}"#;
    let value: Value = serde_json::from_str(text).map_err(|_| form.to_owned())?;
    let quantity = |value: &Value| value.is_string() || value.is_number();
    let amounts = |value: &Value| value.as_object().is_some_and(|amounts| amounts.values().all(quantity));
    let parts = value.as_object().ok_or(form)?;
    let is_known =
        |(name, part): (&String, &Value)| matches!(name.as_str(), "requests" | "limits") && amounts(part);
    if parts.iter().all(is_known) { Ok(value) } else { Err(form.to_owned()) }
}

/// A value in a sentence.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    quote::name(&short)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(annotations: Value) -> Result<Option<SidecarRequest>, String> {
        read(annotations.as_object(), &NamespaceDefaults::default())
            .map_err(|all| crate::refusal::joined(&all))
    }

    #[test]
    fn one_annotation_is_enough() {
        let request = of(json!({ "pgentra.dev/target": "postgresql://my-app@one/app" })).unwrap().unwrap();
        assert_eq!((request.port, request.health_port), (5432, 9432));
        assert_eq!(request.variables, ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"]);
        assert_eq!(of(json!({ "other.dev/target": "x" })), Ok(None));
        assert_eq!(of(json!({ "pgentra.dev/injected": "{}" })), Ok(None));
        assert_eq!(of(json!({ "pgentra.dev/inject": "false", "pgentra.dev/targets": "x" })), Ok(None));
    }

    #[test]
    fn each_annotation_is_read() {
        let request = of(json!({
            "pgentra.dev/target": "host=one",
            "pgentra.dev/port": "6432",
            "pgentra.dev/health-port": "9433",
            "pgentra.dev/environment": "DATABASE_URL, PGHOST",
            "pgentra.dev/containers": "web,worker",
            "pgentra.dev/env": "PGENTRA_WARM=2\n\nHTTPS_PROXY=http://p:3128/?a=b\n",
            "pgentra.dev/mounts": "pki:/etc/pki",
            "pgentra.dev/resources": r#"{"limits": {"memory": "64Mi"}}"#,
            "pgentra.dev/workload-identity": "false",
            "pgentra.dev/inject": "true",
        }));
        let request = request.unwrap().unwrap();
        assert_eq!((request.port, request.health_port, request.has_workload_identity), (6432, 9433, false));
        assert_eq!(request.variables, ["DATABASE_URL", "PGHOST"]);
        assert_eq!(request.containers.unwrap(), ["web", "worker"]);
        let pair = |(name, value): &(String, String)| format!("{name} is {value}");
        let env: Vec<_> = request.env.iter().map(pair).collect();
        assert_eq!(env, ["PGENTRA_WARM is 2", "HTTPS_PROXY is http://p:3128/?a=b"]);
        assert_eq!(request.mounts.iter().map(pair).collect::<Vec<_>>(), ["pki is /etc/pki"]);
        assert_eq!(request.resources.unwrap()["limits"]["memory"], "64Mi");
    }

    #[test]
    fn every_problem_is_named() {
        let said = of(
            json!({ "pgentra.dev/target": "my-server", "pgentra.dev/port": "0", "pgentra.dev/prot": "1" }),
        );
        let said = said.unwrap_err();
        for part in ["is no connection string", "a port is a number", "did you mean pgentra.dev/port?"] {
            assert!(said.contains(part), "{said}");
        }
        for (name, value, why) in [
            ("colour", json!("blue"), "there are pgentra.dev/target, port"),
            ("port", json!(5432), "quotation marks"),
            ("port", json!("65536"), "65535"),
            ("port", json!("9432"), "are both 9432"),
            ("environment", json!("PGPASSWORD"), "takes PGHOST"),
            ("environment", json!(""), "takes none"),
            ("env", json!("PGENTRA_WARM"), "is not NAME=VALUE"),
            ("env", json!("1A=b"), "NAME=VALUE"),
            ("env", json!("A=b\nA=c"), "twice"),
            ("mounts", json!("pki:etc"), "begins with /"),
            ("mounts", json!("PKI:/etc"), "VOLUME:PATH"),
            ("resources", json!("64Mi"), "requests"),
            ("resources", json!(r#"{"limit": {}}"#), "requests"),
            ("workload-identity", json!("no"), "true or false"),
            ("inject", json!("no"), "true or false"),
            ("target", json!("postgresql://a:secret@one/"), "password"),
            ("target", json!("x=".repeat(10_000)), "longer than"),
        ] {
            let mut all = json!({ "pgentra.dev/target": "postgresql://one/" });
            all[format!("pgentra.dev/{name}")] = value.clone();
            let said = of(all).unwrap_err();
            assert!(said.contains(why) && !said.contains("secret"), "{name}={value}: {said}");
        }
        let said = of(json!({ "pgentra.dev/port": "1" })).unwrap_err();
        assert!(said.contains("names a server") && !said.contains(';'), "{said}");
    }

    #[test]
    fn a_namespace_gives_defaults() {
        let namespace = |label: &str| {
            NamespaceDefaults::of_namespace(&json!({ "metadata": {
                "labels": { "pgentra.dev/inject": label },
                "annotations": { "pgentra.dev/target": "postgresql://one/", "pgentra.dev/port": "1" },
            }}))
        };
        let of = |annotations: Value, label: &str| read(annotations.as_object(), &namespace(label)).unwrap();
        assert_eq!(of(json!({}), "false"), None);
        assert_eq!(of(json!({ "pgentra.dev/inject": "false" }), "true"), None);
        assert_eq!(of(json!({}), "true").unwrap().port, 1);
        assert_eq!(of(json!({ "pgentra.dev/port": "2" }), "false").unwrap().port, 2);
        assert_eq!(of(json!({ "pgentra.dev/inject": "true" }), "").unwrap().server.text, "postgresql://one/");
    }
}
