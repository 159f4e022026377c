//! The auth proxy as a native sidecar in the pods of Kubernetes, asked for by an annotation.
//!
//! [`inject_object`] puts the sidecar into an object that has a pod template, [`inject_manifest`] into the documents of a
//! YAML file, and [`Review`] answers the question of an API server. All three do the same to a pod: a second run changes
//! nothing, what is there is kept, and what cannot work is refused with a sentence.
//!
//! ```
//! use pgentra_injection::{NamespaceDefaults, Sidecar, inject_object};
//! use serde_json::json;
//!
//! let mut pod = json!({
//!     "apiVersion": "v1", "kind": "Pod",
//!     "metadata": { "name": "app", "annotations": { "pgentra.dev/target": "postgresql://my-app@my-server/app" } },
//!     "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
//! });
//! inject_object(&mut pod, &NamespaceDefaults::default(), &Sidecar::of_image("pgentra:0.1.0"))?;
//! assert_eq!(pod["spec"]["initContainers"][0]["restartPolicy"], "Always");
//! assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "PGHOST");
//! # Ok::<(), pgentra_injection::InjectionError>(())
//! ```

mod annotations;
mod checks;
mod entries;
mod manifest;
mod object;
mod record;
mod refusal;
mod review;
mod sidecar;
mod target;
mod template;

pub use annotations::{ANNOTATIONS, Annotation, NamespaceDefaults, PREFIX};
pub use manifest::{Manifest, ManifestError, inject_manifest};
pub use object::{Injection, ObjectReport, SidecarChange, inject_object};
pub use refusal::{InjectionError, InjectionRefusal, InjectionRefusalKind};
pub use review::{Review, ReviewAnswer, ReviewError, ReviewVerdict};
pub use sidecar::{InvalidSidecar, Sidecar};
