//! What an earlier run has put in, as an annotation of the pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The entries of a pod that are ours. Everything else is the pod's own, or another webhook's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Record {
    /// Variables in the pod's containers, with their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) variables: BTreeMap<String, String>,
    /// Whether the label of workload identity is ours.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) label: bool,
    /// Names of variables of the sidecar.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<String>,
    /// Paths of mounts in the sidecar.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<String>,
    /// Names of volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<String>,
    /// Addresses of host aliases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hosts: Vec<String>,
}
