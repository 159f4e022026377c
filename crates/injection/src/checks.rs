//! Pods in which the sidecar cannot work.

use pgentra_connect::quote;
use serde_json::Value;

use crate::annotations::{PREFIX, SidecarRequest};
use crate::entries::entries;
use crate::refusal::InjectionRefusal;
use crate::sidecar::{NAME, Sidecar};

/// Every reason why the sidecar cannot work in a pod or a template; `is_ours` tells that its container `pgentra` is of an earlier run.
pub(crate) fn check(
    template: &Value,
    request: &SidecarRequest,
    sidecar: &Sidecar,
    is_ours: bool,
) -> Vec<InjectionRefusal> {
    let mut refusals = Vec::new();
    let mut refuse = |text: String| refusals.push(InjectionRefusal::pod(text));
    let spec = &template["spec"];
    let is_map = |value: &Value| value.is_null() || value.is_object();
    let metadata = &template["metadata"];
    if !is_map(metadata) || !is_map(&metadata["labels"]) || !is_map(&metadata["annotations"]) {
        refuse("the metadata of the pod, its labels or its annotations are no map".to_owned());
    }
    if spec["hostNetwork"] == true {
        refuse(
            "the pod has hostNetwork, so its 127.0.0.1 is that of the node: each program there could use the identity \
             of the pod"
                .to_owned(),
        );
    }
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        refuse("the pod runs on Windows, and the image of the sidecar is for Linux".to_owned());
    }
    if entries(spec, "containers").is_empty() {
        refuse("the pod has no containers".to_owned());
    }
    for (container, is_init) in containers(spec) {
        let name = container["name"].as_str().unwrap_or_default();
        if is_init && is_ours && name == NAME {
            continue;
        }
        if name == NAME || name.starts_with("pgentra-") {
            refuse(format!(
                "the pod has a container {} of its own: take it out, or set {PREFIX}inject to \"false\"",
                quote::name(name)
            ));
        }
        for port in entries(container, "ports")
            .iter()
            .filter(|port| port["protocol"].as_str().unwrap_or("TCP") == "TCP")
        {
            for (ours, annotation) in [(request.port, "port"), (request.health_port, "health-port")] {
                if port["containerPort"] == ours {
                    refuse(format!(
                        "the container {} uses port {ours}: give the sidecar another one with {PREFIX}{annotation}",
                        quote::name(name)
                    ));
                }
            }
        }
    }
    let is_there = |wanted: &String| containers(spec).any(|(one, _)| one["name"] == *wanted);
    for absent in request.containers.iter().flatten().filter(|name| !is_there(name)) {
        refuse(format!(
            "{PREFIX}containers names {}, and the pod has no such container",
            quote::name(absent)
        ));
    }
    let volumes = || entries(spec, "volumes").iter().chain(sidecar.volumes());
    for (volume, _) in request.mounts.iter().filter(|(name, _)| !volumes().any(|one| one["name"] == *name)) {
        refuse(format!("{PREFIX}mounts names {}, and the pod has no such volume", quote::name(volume)));
    }
    refusals
}

/// All containers of a pod, and whether each is an init container.
fn containers(spec: &Value) -> impl Iterator<Item = (&Value, bool)> {
    let of = |field: &str, is_init| entries(spec, field).iter().map(move |container| (container, is_init));
    of("initContainers", true).chain(of("containers", false))
}
