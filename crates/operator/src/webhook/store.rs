//! Where the certificate is in the cluster: the Secret that the replicas share, and what the API server trusts.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::certificate::Bundle;

/// The keys of a Secret of type `kubernetes.io/tls`, and that of its authorities.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// The objects of the webhook. Its chart makes them: to make them would take rights to more than these.
pub(super) struct WebhookStore {
    secrets: Api<Secret>,
    secret: String,
    configurations: Api<MutatingWebhookConfiguration>,
    configuration: String,
}

/// The Secret as it was read.
pub(super) struct Kept {
    secret: Secret,
    pub(super) bundle: Option<Bundle>,
}

impl WebhookStore {
    pub(super) fn new(client: &Client, secret: String, configuration: String) -> Self {
        let secrets = Api::default_namespaced(client.clone());
        Self { secrets, secret, configurations: Api::all(client.clone()), configuration }
    }

    pub(super) async fn read(&self) -> Result<Kept, kube::Error> {
        let secret = self.secrets.get(&self.secret).await?;
        let text = |key: &str| {
            let bytes = secret.data.as_ref()?.get(key)?;
            String::from_utf8(bytes.0.clone()).ok()
        };
        let bundle = match (text(AUTHORITIES), text(CERTIFICATE), text(KEY)) {
            (Some(authorities), Some(certificate), Some(key)) => {
                Some(Bundle { authorities, certificate, key })
            }
            _ => None,
        };
        Ok(Kept { secret, bundle })
    }

    /// Keeps a new certificate, unless another replica was faster: the Secret has to be as it was read.
    ///
    /// # Errors
    /// Also that another replica was faster (409).
    pub(super) async fn replace(&self, kept: Kept, bundle: &Bundle) -> Result<(), kube::Error> {
        let mut secret = kept.secret;
        let data = secret.data.get_or_insert_default();
        for (key, text) in
            [(CERTIFICATE, &bundle.certificate), (KEY, &bundle.key), (AUTHORITIES, &bundle.authorities)]
        {
            data.insert(key.to_owned(), ByteString(text.clone().into_bytes()));
        }
        self.secrets.replace(&self.secret, &PostParams::default(), &secret).await.map(drop)
    }

    /// Has the API server trust these authorities. Returns whether it did already.
    pub(super) async fn trust(&self, authorities: &str) -> Result<bool, kube::Error> {
        let configuration = self.configurations.get(&self.configuration).await?;
        let bundle = ByteString(authorities.as_bytes().to_vec());
        let mut operations = Vec::new();
        for (at, webhook) in configuration.webhooks.iter().flatten().enumerate() {
            if webhook.client_config.ca_bundle.as_ref() != Some(&bundle) {
                // The name must be the same still: others may have changed the list.
                operations.push(
                    json!({ "op": "test", "path": format!("/webhooks/{at}/name"), "value": webhook.name }),
                );
                let path = format!("/webhooks/{at}/clientConfig/caBundle");
                operations.push(json!({ "op": "add", "path": path, "value": bundle }));
            }
        }
        if operations.is_empty() {
            return Ok(true);
        }
        let patch: json_patch::Patch =
            serde_json::from_value(json!(operations)).map_err(kube::Error::SerdeError)?;
        let name = configuration.name_any();
        self.configurations.patch(&name, &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
        Ok(false)
    }
}
