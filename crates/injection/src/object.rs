//! Objects that have a pod template.

use std::fmt;

use pgentra_connect::quote;
use serde_json::Value;

use crate::annotations::{self, NamespaceDefaults, PREFIX};
use crate::refusal::{InjectionError, InjectionRefusal};
use crate::sidecar::Sidecar;
use crate::template;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarChange {
    /// It asks for no sidecar, and has none.
    NotAsked,
    /// It has the sidecar now.
    Added,
    /// Its sidecar, or what belongs to it, is another one now.
    Updated,
    /// It had all it asks for.
    Unchanged,
    /// It does not ask for the sidecar any more.
    Removed,
}

/// What became of one object, or of one item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectReport {
    /// Kind and name, such as `deployment/my-app`.
    pub object: String,
    /// What was done.
    pub change: SidecarChange,
    /// What works, and may not be what was meant; each a sentence.
    pub warnings: Vec<String>,
}

/// The reports of an object; several for a list.
pub type Injection = Vec<ObjectReport>;

impl fmt::Display for SidecarChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked => "no sidecar is asked for",
            Self::Added => "sidecar added",
            Self::Updated => "sidecar updated",
            Self::Unchanged => "unchanged",
            Self::Removed => "sidecar removed",
        })
    }
}

/// Gives an object the sidecar if its annotations, or the defaults of its namespace, ask for it. Objects of other kinds than
/// pods and those that have a pod template stay as they are.
///
/// # Errors
/// Every reason why the sidecar cannot work; the object is as it was.
pub fn inject_object(
    object: &mut Value,
    defaults: &NamespaceDefaults,
    sidecar: &Sidecar,
) -> Result<Injection, InjectionError> {
    let mut changed = object.clone();
    let reports = each(&mut changed, &|_| defaults.clone(), sidecar)?;
    *object = changed;
    Ok(reports)
}

/// The same with the defaults of the namespace that each object names.
pub(crate) fn each(
    object: &mut Value,
    defaults: &dyn Fn(&str) -> NamespaceDefaults,
    sidecar: &Sidecar,
) -> Result<Injection, InjectionError> {
    if is_list(object) {
        let items = object["items"].as_array_mut().into_iter().flatten();
        let mut reports = Injection::new();
        for item in items {
            // A list in a list is no object of Kubernetes.
            if !is_list(item) {
                reports.extend(each(item, defaults, sidecar)?);
            }
        }
        return Ok(reports);
    }
    let Some(path) = template_path(object) else { return Ok(Vec::new()) };
    let name = named(object);
    let fail = |refusals| InjectionError { object: name.clone(), refusals };
    let is_misplaced = !path.is_empty() && annotations::asks(&object["metadata"]);
    if is_misplaced {
        return Err(fail(vec![InjectionRefusal::annotation(misplaced(path))]));
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let Some(place) = object.pointer_mut(path).filter(|template| template.is_object()) else {
        return Ok(Vec::new());
    };
    let (before, had) = (place.clone(), template::has_sidecar(place));
    let mut changed = place.clone();
    let applied = template::apply(&mut changed, &defaults(&namespace), sidecar).map_err(fail)?;
    *place = changed;
    let change = match (had, applied.has_sidecar) {
        _ if *place == before && applied.has_sidecar => SidecarChange::Unchanged,
        (true, true) => SidecarChange::Updated,
        (false, true) => SidecarChange::Added,
        _ if *place == before => SidecarChange::NotAsked,
        (_, false) => SidecarChange::Removed,
    };
    Ok(vec![ObjectReport { object: name, change, warnings: applied.warnings }])
}

/// That annotations of ours are on an object, and not on its pod template.
pub(crate) fn misplaced(path: &str) -> String {
    let place = path.trim_start_matches('/').replace('/', ".");
    format!(
        "the annotations {PREFIX}… are on the object itself: they belong to its pods, in {place}.metadata.annotations"
    )
}

fn is_list(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array()
}

/// Where the pod template of an object is, as a JSON pointer; empty for a pod itself.
pub(crate) fn template_path(object: &Value) -> Option<&'static str> {
    let version = object["apiVersion"].as_str()?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, object["kind"].as_str()?) {
        ("", "Pod") => Some(""),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Kind and name, as kubectl writes them.
pub(crate) fn named(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("object").to_ascii_lowercase();
    let name = |field: &str| object["metadata"][field].as_str();
    let name = name("name").or_else(|| name("generateName")).unwrap_or("without a name");
    quote::line(&format!("{kind}/{name}"))
}
