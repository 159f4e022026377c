//! The container that is put in: the same as the chart's `pgentra-proxy.sidecar`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::annotations::SidecarRequest;

/// What all sidecars have in common: settings of the webhook or of the command, not of the pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sidecar {
    /// The image, such as `pgentra:0.1.0`.
    image: String,
    /// `Always`, `IfNotPresent` or `Never`. Default: Kubernetes' own.
    #[serde(default)]
    image_pull_policy: Option<String>,
    /// Requests and limits. Default: those of the chart `pgentra-proxy`.
    #[serde(default)]
    resources: Option<Value>,
    /// Variables of the sidecar, as in a container.
    #[serde(default)]
    env: Vec<Value>,
    /// Volumes that the pod gets too.
    #[serde(default)]
    volumes: Vec<Value>,
    /// Where they are in the sidecar.
    #[serde(default)]
    volume_mounts: Vec<Value>,
    /// Host names that the pod gets too.
    #[serde(default)]
    host_aliases: Vec<Value>,
}

/// Settings of sidecars that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the settings of the sidecar cannot be read")]
pub struct InvalidSidecar(#[source] serde_json::Error);

/// The name of the container.
pub(crate) const NAME: &str = "pgentra";
/// The name of the port of probes and metrics.
const HEALTH: &str = "pgentra-health";

impl Sidecar {
    /// A sidecar of this image, with the defaults for everything else.
    pub fn of_image(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            image_pull_policy: None,
            resources: None,
            env: Vec::new(),
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            host_aliases: Vec::new(),
        }
    }

    /// The same with this pull policy.
    #[must_use]
    pub fn pulled(mut self, policy: Option<String>) -> Self {
        self.image_pull_policy = policy;
        self
    }

    /// Reads the settings of a JSON document: `image`, and optionally `imagePullPolicy`, `resources`, `env`, `volumes`,
    /// `volumeMounts` and `hostAliases`, each as in a pod.
    ///
    /// # Errors
    /// Text that is no such document.
    pub fn from_json(text: &str) -> Result<Self, InvalidSidecar> {
        serde_json::from_str(text).map_err(InvalidSidecar)
    }

    pub(crate) fn volumes(&self) -> &[Value] {
        &self.volumes
    }

    pub(crate) fn host_aliases(&self) -> &[Value] {
        &self.host_aliases
    }

    /// Variables of the container: those of the pod's annotations first, which may replace the common ones.
    pub(crate) fn env(&self, request: &SidecarRequest) -> Vec<Value> {
        let own = request.env.iter().map(|(name, value)| json!({ "name": name, "value": value }));
        let common = self.env.iter().filter(|entry| {
            let name = entry["name"].as_str().unwrap_or_default();
            !request.env.iter().any(|(own, _)| own == name)
        });
        own.chain(common.cloned()).collect()
    }

    pub(crate) fn mounts(&self, request: &SidecarRequest) -> Vec<Value> {
        let own = request.mounts.iter();
        let own = own.map(|(name, path)| json!({ "name": name, "mountPath": path, "readOnly": true }));
        own.chain(self.volume_mounts.iter().cloned()).collect()
    }

    /// The container without its variables and mounts.
    pub(crate) fn container(&self, request: &SidecarRequest) -> Map<String, Value> {
        let probe = |path: &str| json!({ "httpGet": { "path": path, "port": HEALTH } });
        // It ends when the proxy is ready. A probe by HTTP is repeated once a second, and the first comes too early.
        let health = format!("--health=127.0.0.1:{}", request.health_port);
        let startup = json!({
            "exec": { "command": ["/usr/bin/pgentra", "proxy", "wait", health, "--timeout=60s"] },
            "timeoutSeconds": 65,
            "periodSeconds": 1,
            "failureThreshold": 1,
        });
        let default =
            || json!({ "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "memory": "256Mi" } });
        let resources = request.resources.clone().or_else(|| self.resources.clone()).unwrap_or_else(default);
        let container = json!({
            "name": NAME,
            "image": self.image,
            // A native sidecar: it starts before the containers and ends after them.
            "restartPolicy": "Always",
            "args": [
                "proxy",
                format!("--listen=127.0.0.1:{}", request.port),
                format!("--health-listen=0.0.0.0:{}", request.health_port),
                "--log-format=json",
                literal(&request.server.text),
            ],
            "ports": [{ "name": HEALTH, "containerPort": request.health_port }],
            "startupProbe": startup,
            "readinessProbe": probe("/readiness"),
            "livenessProbe": probe("/liveness"),
            "resources": resources,
            "securityContext": {
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "runAsNonRoot": true,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
                // A namespace of the level `restricted` asks for it, and the pod may have it for its containers alone.
                "seccompProfile": { "type": "RuntimeDefault" },
            },
        });
        let Value::Object(mut container) = container else { return Map::new() };
        if let Some(policy) = &self.image_pull_policy {
            container.insert("imagePullPolicy".to_owned(), json!(policy));
        }
        container
    }
}

/// A text of which Kubernetes replaces nothing: `$(NAME)` is a variable in arguments and values, and `$$` is a `$`
/// (k8s.io/kubernetes, `third_party/forked/golang/expansion`).
pub(crate) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}
