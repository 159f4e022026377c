//! The question of an API server, and the answer (`AdmissionReview` of `admission.k8s.io/v1`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::annotations::{self, NamespaceDefaults};
use crate::object::{misplaced, template_path};
use crate::refusal::{InjectionRefusal, InjectionRefusalKind, joined};
use crate::sidecar::Sidecar;
use crate::template;

/// What an API server asks: an object that is about to be made.
#[derive(Clone, Debug)]
pub struct Review {
    uid: String,
    namespace: String,
    object: Value,
}

/// A request that is no question for this webhook.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is no JSON.
    #[error("the request is no JSON")]
    Unreadable(#[source] serde_json::Error),
    /// It is something else, or of another version.
    #[error("the request is no AdmissionReview of admission.k8s.io/v1 with a uid and an object")]
    NoReview,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewVerdict {
    /// The pod gets the sidecar, or has it.
    Injected,
    /// The pod asks for no sidecar.
    NotAsked,
    /// The pod cannot have it.
    Refused,
    /// A workload, which is only looked at.
    Looked,
}

/// The answer to an API server.
#[derive(Clone, Debug)]
pub struct ReviewAnswer {
    /// The `AdmissionReview` to send.
    pub review: Value,
    /// What it says.
    pub verdict: ReviewVerdict,
}

impl Review {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// A body that is no question.
    pub fn read(body: &[u8]) -> Result<Self, ReviewError> {
        let mut review: Value = serde_json::from_slice(body).map_err(ReviewError::Unreadable)?;
        let is_review = review["apiVersion"] == "admission.k8s.io/v1" && review["kind"] == "AdmissionReview";
        let request = review.get_mut("request").map(Value::take).unwrap_or_default();
        let text = |field: &str| request[field].as_str().map(str::to_owned);
        match (text("uid"), &request["object"]) {
            (Some(uid), object @ Value::Object(_)) if is_review && !uid.is_empty() => {
                Ok(Self { uid, namespace: text("namespace").unwrap_or_default(), object: object.clone() })
            }
            _ => Err(ReviewError::NoReview),
        }
    }

    /// The namespace whose defaults the answer needs.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Answers. A pod gets the sidecar by a JSON patch (RFC 6902). A workload is allowed as it is, with a warning where its
    /// pods would be refused: a tool that applies manifests would find a change of it each time.
    pub fn answer(&self, defaults: &NamespaceDefaults, sidecar: &Sidecar) -> ReviewAnswer {
        match template_path(&self.object) {
            Some("") if template::is_mirror(&self.object) => {
                let warning = "a static pod gets no sidecar: the kubelet starts it without asking".to_owned();
                self.allowed(ReviewVerdict::NotAsked, None, &[warning])
            }
            Some("") => self.of_pod(defaults, sidecar),
            Some(path) => self.of_workload(path, defaults, sidecar),
            None => self.allowed(ReviewVerdict::NotAsked, None, &[]),
        }
    }

    fn of_pod(&self, defaults: &NamespaceDefaults, sidecar: &Sidecar) -> ReviewAnswer {
        let mut pod = self.object.clone();
        match template::apply(&mut pod, defaults, sidecar) {
            Ok(applied) => {
                let verdict =
                    if applied.has_sidecar { ReviewVerdict::Injected } else { ReviewVerdict::NotAsked };
                let patch = json_patch::diff(&self.object, &pod);
                self.allowed(verdict, (!patch.0.is_empty()).then(|| json!(patch)), &applied.warnings)
            }
            Err(refusals) => self.refused(&refusals),
        }
    }

    fn of_workload(&self, path: &str, defaults: &NamespaceDefaults, sidecar: &Sidecar) -> ReviewAnswer {
        let mut warnings = Vec::new();
        if annotations::asks(&self.object["metadata"]) {
            warnings.push(format!("pgentra: {}", misplaced(path)));
        }
        let template = self.object.pointer(path).filter(|template| template.is_object());
        if let Some(mut template) = template.cloned() {
            match template::apply(&mut template, defaults, sidecar) {
                Ok(applied) => {
                    warnings.extend(applied.warnings.into_iter().map(|text| format!("pgentra: {text}")))
                }
                Err(refusals) => {
                    let why =
                        |refusal: &InjectionRefusal| format!("pgentra: its pods will be refused: {refusal}");
                    warnings.extend(refusals.iter().map(why));
                }
            }
        }
        self.allowed(ReviewVerdict::Looked, None, &warnings)
    }

    fn allowed(&self, verdict: ReviewVerdict, patch: Option<Value>, warnings: &[String]) -> ReviewAnswer {
        let mut response = json!({ "uid": self.uid, "allowed": true });
        if let Some(patch) = patch {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(patch.to_string()));
        }
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        ReviewAnswer { review: of(&response), verdict }
    }

    fn refused(&self, refusals: &[InjectionRefusal]) -> ReviewAnswer {
        let is_annotation = refusals.iter().any(|refusal| refusal.kind() == InjectionRefusalKind::Annotation);
        // Annotations that cannot be read are a bad request; the others are an object that cannot be processed.
        let code = if is_annotation { 400 } else { 422 };
        let response = json!({
            "uid": self.uid,
            "allowed": false,
            "status": { "code": code, "message": joined(refusals) },
        });
        ReviewAnswer { review: of(&response), verdict: ReviewVerdict::Refused }
    }
}

fn of(response: &Value) -> Value {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_question_is_refused() {
        let review = |request: &str| {
            format!("{{\"apiVersion\": \"admission.k8s.io/v1\", \"kind\": \"AdmissionReview\"{request}}}")
        };
        for body in [
            "".to_owned(),
            "5".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            review(""),
            review(", \"request\": 5"),
            review(", \"request\": {\"uid\": \"\", \"object\": {}}"),
            review(", \"request\": {\"uid\": \"a\", \"object\": 5}"),
            review(", \"request\": {\"uid\": \"a\", \"object\": {}}").replace("/v1", "/v1beta1"),
        ] {
            assert!(Review::read(body.as_bytes()).is_err(), "{body}");
        }
        let other =
            Review::read(review(", \"request\": {\"uid\": \"a\", \"object\": {}}").as_bytes()).unwrap();
        let answer = other.answer(&NamespaceDefaults::default(), &Sidecar::of_image("pgentra:1"));
        assert_eq!(
            (answer.verdict, &answer.review["response"]["allowed"]),
            (ReviewVerdict::NotAsked, &json!(true))
        );
    }
}
