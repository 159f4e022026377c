//! A pod, or the template of one: the sidecar goes in, stays the same, changes or goes out.

use std::collections::BTreeMap;

use pgentra_connect::quote;
use serde_json::{Map, Value, json};

use crate::annotations::{
    self, DATABASE_URL, INJECTED, NamespaceDefaults, PREFIX, SidecarRequest, VARIABLES,
};
use crate::checks;
use crate::entries::{Position, contains, entries, reconcile};
use crate::record::Record;
use crate::refusal::InjectionRefusal;
use crate::sidecar::{NAME, Sidecar, literal};

/// The label by which Azure's webhook gives a pod the token of its service account (Azure/azure-workload-identity,
/// `pkg/webhook`).
const LABEL: &str = "azure.workload.identity/use";

/// What a run found and did.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Whether the pod has the sidecar now.
    pub(crate) has_sidecar: bool,
    /// What works, and may not be what was meant.
    pub(crate) warnings: Vec<String>,
}

/// Makes a template have what its annotations ask for.
///
/// # Errors
/// Every reason why it cannot; the template is as it was.
pub(crate) fn apply(
    template: &mut Value,
    defaults: &NamespaceDefaults,
    sidecar: &Sidecar,
) -> Result<Applied, Vec<InjectionRefusal>> {
    let annotations = template["metadata"]["annotations"].as_object();
    let request = annotations::read(annotations, defaults)?;
    let before = match annotations.and_then(|all| all.get(&format!("{PREFIX}{INJECTED}"))) {
        Some(value) => Some(record(value).map_err(|refusal| vec![refusal])?),
        None => None,
    };
    if request.is_none() && before.is_none() {
        return Ok(Applied::default());
    }
    if let Some(request) = &request {
        let refusals = checks::check(template, request, sidecar, before.is_some());
        if !refusals.is_empty() {
            return Err(refusals);
        }
    }
    let (Some(spec), before) = (template["spec"].as_object_mut(), before.unwrap_or_default()) else {
        return Err(vec![InjectionRefusal::pod("the pod has no spec")]);
    };
    let mut warnings = Vec::new();
    let mut now =
        Record { variables: request.as_ref().map(variables).unwrap_or_default(), ..Record::default() };
    containers(spec, request.as_ref(), (&before, &now), &mut warnings);
    put_sidecar(spec, request.as_ref(), sidecar, (&before, &mut now));
    let volumes = if request.is_some() { sidecar.volumes().to_vec() } else { Vec::new() };
    let is_ours = |one: &Value, names: &[String], key: &str| names.iter().any(|name| one[key] == **name);
    let places = ("volumes", "name");
    now.volumes =
        reconcile(spec, places, |one| is_ours(one, &before.volumes, "name"), volumes, Position::Back);
    let hosts = if request.is_some() { sidecar.host_aliases().to_vec() } else { Vec::new() };
    let places = ("hostAliases", "ip");
    now.hosts = reconcile(spec, places, |one| is_ours(one, &before.hosts, "ip"), hosts, Position::Back);
    let wants_label = request.as_ref().is_some_and(|request| request.has_workload_identity);
    now.label = label(template, wants_label, before.label);
    note(template, request.is_some().then_some(&now));
    Ok(Applied { has_sidecar: request.is_some(), warnings })
}

fn record(value: &Value) -> Result<Record, InjectionRefusal> {
    let unreadable = || {
        InjectionRefusal::annotation(format!(
            "{PREFIX}{INJECTED} was changed and cannot be read: take it out, and take out what was put in"
        ))
    };
    serde_json::from_str(value.as_str().ok_or_else(unreadable)?).map_err(|_| unreadable())
}

/// The variables that containers get.
fn variables(request: &SidecarRequest) -> BTreeMap<String, String> {
    let server = &request.server;
    let value = |variable: &str| match variable {
        "PGHOST" => Some("127.0.0.1".to_owned()),
        "PGPORT" => Some(request.port.to_string()),
        "PGUSER" => server.user.clone(),
        "PGDATABASE" => server.database.clone(),
        DATABASE_URL => {
            let user =
                server.user.as_deref().map(|user| format!("{}@", quote::url_value(user))).unwrap_or_default();
            let database = server.database.as_deref().map(quote::url_value).unwrap_or_default();
            // Inside the pod: TLS begins at the sidecar.
            Some(format!("postgresql://{user}127.0.0.1:{}/{database}?sslmode=disable", request.port))
        }
        _ => None,
    };
    let wanted = request.variables.iter();
    wanted.filter_map(|variable| Some(((*variable).to_owned(), literal(&value(variable)?)))).collect()
}

/// Sets the variables in the containers that are to have them.
fn containers(
    spec: &mut Map<String, Value>,
    request: Option<&SidecarRequest>,
    (before, now): (&Record, &Record),
    warnings: &mut Vec<String>,
) {
    for field in ["initContainers", "containers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if name == NAME {
                continue;
            }
            let is_meant =
                |request: &&SidecarRequest| request.containers.as_ref().is_none_or(|all| all.contains(&name));
            let entry = |name: &&str| Some(json!({ "name": name, "value": now.variables.get(*name)? }));
            let wanted = match request.filter(is_meant) {
                Some(_) => VARIABLES.iter().filter_map(entry).collect(),
                None => Vec::new(),
            };
            let asked: Vec<_> = wanted.iter().map(|entry: &Value| entry["name"].clone()).collect();
            let is_ours = |entry: &Value| {
                let value = before.variables.get(entry["name"].as_str().unwrap_or_default());
                value.is_some_and(|value| entry["value"] == **value)
            };
            // In front, so that the variables of the container may refer to them.
            let put = reconcile(container, ("env", "name"), is_ours, wanted, Position::Front);
            let kept: Vec<_> = asked
                .iter()
                .filter_map(Value::as_str)
                .filter(|one| !put.iter().any(|it| it == one))
                .collect();
            if !kept.is_empty() {
                warnings.push(format!(
                    "the container {} sets {} itself, which stays",
                    quote::name(&name),
                    kept.join(", ")
                ));
            }
            if !put.is_empty() && container.contains_key("envFrom") {
                warnings.push(format!(
                    "the container {} has envFrom: {} of the sidecar wins over a variable of that name there",
                    quote::name(&name),
                    put.join(", ")
                ));
            }
        }
    }
}

/// Puts the container in, changes it, or takes it out.
fn put_sidecar(
    spec: &mut Map<String, Value>,
    request: Option<&SidecarRequest>,
    sidecar: &Sidecar,
    (before, now): (&Record, &mut Record),
) {
    let is_ours = |container: &Value| container["name"] == NAME;
    let wanted = request.map(|request| {
        let there = spec
            .get("initContainers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|one| is_ours(one));
        let mut container = there.and_then(Value::as_object).cloned().unwrap_or_default();
        for (key, value) in sidecar.container(request) {
            // What an API server has added to it stays.
            if !container.get(&key).is_some_and(|there| contains(there, &value)) {
                container.insert(key, value);
            }
        }
        let was_put =
            |entry: &Value, names: &[String], key: &str| names.iter().any(|name| entry[key] == **name);
        let env = |entry: &Value| was_put(entry, &before.env, "name");
        now.env = reconcile(&mut container, ("env", "name"), env, sidecar.env(request), Position::Front);
        let mounts = |entry: &Value| was_put(entry, &before.mounts, "mountPath");
        let places = ("volumeMounts", "mountPath");
        now.mounts = reconcile(&mut container, places, mounts, sidecar.mounts(request), Position::Front);
        Value::Object(container)
    });
    // In front: the other init containers can connect, too.
    reconcile(spec, ("initContainers", "name"), is_ours, wanted.into_iter().collect(), Position::Front);
}

/// Sets the label or takes it out. Returns whether it is ours.
fn label(template: &mut Value, wants: bool, was_ours: bool) -> bool {
    let labels = &template["metadata"]["labels"];
    let has = labels.get(LABEL).is_some();
    match (wants, has) {
        (true, false) => {
            template["metadata"]["labels"][LABEL] = json!("true");
            true
        }
        (false, true) if was_ours => {
            remove(template, "labels", LABEL);
            false
        }
        (true, true) => was_ours,
        (false, _) => false,
    }
}

/// Writes down what was put in.
fn note(template: &mut Value, record: Option<&Record>) {
    let name = format!("{PREFIX}{INJECTED}");
    match record.map(|record| json!(record).to_string()) {
        Some(text) => template["metadata"]["annotations"][name] = json!(text),
        None => remove(template, "annotations", &name),
    }
}

fn remove(template: &mut Value, field: &str, key: &str) {
    let Some(metadata) = template["metadata"].as_object_mut() else { return };
    if let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) {
        map.remove(key);
        if map.is_empty() {
            metadata.remove(field);
        }
    }
}

/// Whether a pod is a static pod's mirror, which the kubelet makes and no client may change.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}

/// Whether a template has the sidecar of an earlier run.
pub(crate) fn has_sidecar(template: &Value) -> bool {
    template["metadata"]["annotations"].get(format!("{PREFIX}{INJECTED}")).is_some()
        && entries(&template["spec"], "initContainers").iter().any(|one| one["name"] == NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has another shape than Kubernetes' objects is refused or left as it is.
    #[test]
    fn odd_shapes_do_no_harm() {
        let all = json!({ "pgentra.dev/inject": "true" });
        let defaults = NamespaceDefaults::of_namespace(&json!({ "metadata": {
            "labels": { "pgentra.dev/inject": "true" },
            "annotations": { "pgentra.dev/target": "postgresql://one/" },
        }}));
        let fine = json!({ "containers": [{ "name": "app" }] });
        for (template, works) in [
            (json!({ "spec": fine }), true),
            (json!({ "metadata": null, "spec": fine }), true),
            (json!({ "metadata": { "labels": null, "annotations": null }, "spec": fine }), true),
            (json!({ "metadata": 1, "spec": fine }), false),
            (json!({ "metadata": { "labels": "a" }, "spec": fine }), false),
            (json!({ "metadata": { "annotations": [] }, "spec": fine }), false),
            (json!({ "metadata": { "annotations": all }, "spec": "a" }), false),
            (json!({ "metadata": { "annotations": all } }), false),
            (
                json!({ "spec": { "containers": [1, { "env": "a" }, { "env": [2] }], "initContainers": 3, "volumes": {} } }),
                true,
            ),
        ] {
            let mut changed = template.clone();
            let applied = apply(&mut changed, &defaults, &Sidecar::of_image("pgentra:1"));
            assert_eq!(applied.is_ok(), works, "{template}: {applied:?}");
            if works {
                assert!(changed["metadata"]["labels"][LABEL].is_string(), "{changed}");
            } else {
                assert_eq!(changed, template);
            }
        }
    }
}
