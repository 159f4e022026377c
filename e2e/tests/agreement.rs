//! The real Azure SDKs and pgentra get the same answers from the same endpoints.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod mounts;

use std::collections::BTreeMap;
use std::path::Path;

use e2e::{Cloud, Flavour, Lab, client, have};
use mounts::Mounts;
use serde_json::{Value, json};

/// How an identity is named, in each client's own words.
enum Named<'a> {
    /// Without a name.
    Default,
    Client(&'a str),
    Object(&'a str),
    Resource(&'a str),
}

impl Named<'_> {
    fn for_python(&self) -> Value {
        match self {
            Named::Default => json!({}),
            Named::Client(id) => json!({"client_id": id}),
            Named::Object(id) => json!({"identity_config": {"object_id": id}}),
            Named::Resource(id) => json!({"identity_config": {"resource_id": id}}),
        }
    }

    fn for_node(&self) -> Value {
        match self {
            Named::Default => json!({}),
            Named::Client(id) => json!({"clientId": id}),
            Named::Object(id) => json!({"objectId": id}),
            Named::Resource(id) => json!({"resourceId": id}),
        }
    }

    fn for_pgentra(&self) -> String {
        match self {
            Named::Default => String::new(),
            Named::Client(id) => format!("--client-id {id}"),
            Named::Object(id) => format!("--object-id {id}"),
            Named::Resource(id) => format!("--resource-id {id}"),
        }
    }
}

/// A host of a local cloud, and the clients that are asked there.
struct Place<'a> {
    lab: &'a Lab,
    name: String,
    variables: BTreeMap<String, String>,
}

impl<'a> Place<'a> {
    fn new(lab: &'a Lab, cloud: &Cloud<'_>, host: &str) -> Place<'a> {
        Place { lab, name: host.to_owned(), variables: cloud.env(host) }
    }

    /// The claims of a client's token. The client prints JSON; `read_token.py` reads it, so that no
    /// token is shown.
    fn read(&self, client: &str) -> Value {
        let script = format!("{client} | {} {}", python(), own("read_token.py"));
        self.lab.shell(&script).envs(self.variables.clone()).done().json()
    }

    fn pgentra(&self, named: &Named<'_>) -> Value {
        self.read(&format!("pgentra token -o json {}", named.for_pgentra()))
    }

    fn python(&self, credential: &str, options: &Value) -> Value {
        self.read(&format!("{} {} {credential} '{options}'", python(), own("get_token.py")))
    }

    fn node(&self, credential: &str, options: &Value) -> Value {
        let (script, folder) = (own("get_token.mjs"), client(""));
        self.read(&format!("{} {script} {} {credential} '{options}'", node(), folder.display()))
    }

    /// The output of `pgentra whoami` must match the token and the identity of the local cloud.
    fn knows(&self, named: &Named<'_>, ours: &Value, identity: &Value) {
        let script = format!("pgentra whoami -o json {}", named.for_pgentra());
        let who = self.lab.shell(&script).envs(self.variables.clone()).done().json();
        for field in ["object_id", "client_id", "tenant_id"] {
            assert_eq!(who["claims"][field], ours[field], "{}: {field}", self.name);
        }
        for field in ["object_id", "client_id"] {
            assert_eq!(identity[field], ours[field], "{}: {field}", self.name);
        }
        assert_eq!(ours["expires_on"], ours["expires"], "{}", self.name);
    }

    /// A managed identity: the platform returns the same token again, so all clients must get the
    /// same one.
    fn managed(&self, named: &Named<'_>, identity: &Value, with_node: bool) {
        let ours = self.pgentra(named);
        self.knows(named, &ours, identity);
        let mut theirs = vec![self.python("ManagedIdentityCredential", &named.for_python())];
        if with_node {
            theirs.push(self.node("ManagedIdentityCredential", &named.for_node()));
        }
        for their in theirs {
            assert_eq!(their["digest"], ours["digest"], "{}: {their} {ours}", self.name);
            same_expiry(&their, &ours, &self.name);
        }
    }
}

/// Compares the expiry that a client computes: MSAL counts in whole seconds from the arrival of the
/// answer.
fn same_expiry(theirs: &Value, ours: &Value, place: &str) {
    let (said, end) = (theirs["expires_on"].as_i64().unwrap(), theirs["expires"].as_i64().unwrap());
    assert!((said - end).abs() <= ROUNDING, "{place}: {theirs}");
    assert_eq!(theirs["object_id"], ours["object_id"], "{place}");
}

/// Seconds by which a client that counts from the answer's arrival may be off.
const ROUNDING: i64 = 5;

fn own(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name).display().to_string()
}

fn python() -> String {
    client("venv/bin/python").display().to_string()
}

fn node() -> String {
    client("venv/bin/node").display().to_string()
}

fn text<'a>(identity: &'a Value, field: &str) -> &'a str {
    identity[field].as_str().unwrap()
}

#[test]
fn on_managed_identities() {
    if !have(&["python", "node"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let (vm, identity) = (cloud.identity("system-assigned"), cloud.identity("user-assigned"));
    for host in ["vm", "app-service"] {
        let place = Place::new(&lab, &cloud, host);
        place.managed(&Named::Default, vm, true);
        place.managed(&Named::Client(text(identity, "client_id")), identity, true);
        place.managed(&Named::Object(text(identity, "object_id")), identity, true);
        place.managed(&Named::Resource(text(identity, "resource_id")), identity, true);
    }
}

#[test]
fn on_azure_arc() {
    if !have(&["python", "node", "mounts"]) {
        return;
    }
    let mounts = Mounts::new(false);
    let lab = mounts.lab();
    let cloud = lab.cloud(Flavour::Flexible, &["--arc"]);
    let (vm, identity) = (cloud.identity("system-assigned"), cloud.identity("user-assigned"));
    let place = Place::new(&lab, &cloud, "azure-arc");
    place.managed(&Named::Default, vm, true);
    // @azure/identity knows no user-assigned identity there
    place.managed(&Named::Resource(text(identity, "resource_id")), identity, false);
}

/// Each exchange returns another token, so these are compared by their claims.
#[test]
fn on_workload_identity() {
    if !have(&["python", "node"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let identity = cloud.identity("user-assigned");
    let place = Place::new(&lab, &cloud, "aks");
    let named = Named::Client(text(identity, "client_id"));
    for named in [&Named::Default, &named] {
        let ours = place.pgentra(named);
        place.knows(named, &ours, identity);
        for their in [
            place.python("WorkloadIdentityCredential", &json!({"disable_instance_discovery": true})),
            place.node("WorkloadIdentityCredential", &json!({"disableInstanceDiscovery": true})),
        ] {
            for field in ["object_id", "client_id", "tenant_id"] {
                assert_eq!(their[field], ours[field], "{field}");
            }
            same_expiry(&their, &ours, "aks");
        }
    }
}
