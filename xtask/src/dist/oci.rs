//! OCI image layouts: a folder of blobs named by their hashes, with an index, in one tar archive.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use anyhow::Result;
use serde_json::{Value, json};

use super::archive::{READ, Tree};
use super::shelf::sha256;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A blob and what it is.
pub(crate) struct Blob {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// One thing that registries keep: an image, or a chart.
pub(crate) struct Artefact {
    pub(crate) config: Blob,
    pub(crate) layer: Blob,
    /// The tag in a registry.
    pub(crate) tag: String,
    pub(crate) annotations: Value,
    /// As in the index. None: it is for no system.
    pub(crate) platform: Option<Value>,
}

/// Writes the layout.
///
/// # Errors
/// It cannot be archived.
pub(crate) fn layout(artefact: &Artefact, epoch: u64) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    let mut keep = |blob: &Blob| {
        let digest = sha256(&blob.bytes);
        tree.file(&format!("blobs/sha256/{digest}"), READ, blob.bytes.clone());
        json!({ "mediaType": blob.media_type, "digest": format!("sha256:{digest}"), "size": blob.bytes.len() })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": keep(&artefact.config),
        "layers": [keep(&artefact.layer)],
        "annotations": artefact.annotations,
    });
    let mut described = keep(&Blob { media_type: MANIFEST, bytes: serde_json::to_vec(&manifest)? });
    described["annotations"] = json!({ "org.opencontainers.image.ref.name": artefact.tag });
    if let Some(platform) = &artefact.platform {
        described["platform"] = platform.clone();
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    });
    tree.file("index.json", READ, serde_json::to_vec(&index)?);
    tree.file("oci-layout", READ, serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?);
    tree.tar(epoch)
}
