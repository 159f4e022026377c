//! A file of YAML documents, or of JSON.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::annotations::NamespaceDefaults;
use crate::object::{self, ObjectReport, SidecarChange};
use crate::refusal::InjectionError;
use crate::sidecar::Sidecar;

/// Larger files are refused.
const LENGTH_LIMIT: usize = 16 * 1024 * 1024;

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file with the sidecars. A document that does not change has its bytes, comments among them; another one has the
    /// keys of each map in the order of the alphabet, and no comments.
    pub text: String,
    /// The documents as JSON, without empty ones.
    pub objects: Vec<Value>,
    /// What became of each object that has a pod template.
    pub reports: Vec<ObjectReport>,
}

impl Manifest {
    /// Several files as one stream of documents.
    pub fn join(manifests: &[Manifest]) -> String {
        let mut text = String::new();
        for manifest in manifests {
            if !text.is_empty() {
                text.push_str(if text.ends_with('\n') { "" } else { "\n" });
                text.push_str(if manifest.text.starts_with("---") { "" } else { "---\n" });
            }
            text.push_str(&manifest.text);
        }
        text
    }
}

/// Why a file is not changed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file is too large.
    #[error("it is larger than {} MiB", LENGTH_LIMIT / 1024 / 1024)]
    TooLarge,
    /// A document is no YAML.
    #[error("document {number} is no YAML: {why}")]
    Unreadable {
        /// Which document of the file, from 1.
        number: usize,
        /// What the parser says, with line and column within the document.
        why: String,
    },
    /// A document is no object of Kubernetes.
    #[error("document {0} is no object of Kubernetes: it has no kind")]
    NoObject(usize),
    /// A pod cannot have the sidecar.
    #[error(transparent)]
    Refused(#[from] InjectionError),
    /// A document cannot be written.
    #[error("document {0} cannot be written as YAML")]
    Unwritable(usize),
}

/// Gives the objects of a file the sidecar where they ask for it. A `Namespace` in the file gives its defaults to the objects
/// that name it.
///
/// # Errors
/// The first document that cannot be read, or object that cannot have the sidecar.
pub fn inject_manifest(text: &str, sidecar: &Sidecar) -> Result<Manifest, ManifestError> {
    if text.len() > LENGTH_LIMIT {
        return Err(ManifestError::TooLarge);
    }
    let parts = split(text);
    let mut documents = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        documents.push(read(part.body).map_err(|why| ManifestError::Unreadable { number: at + 1, why })?);
    }
    let mut namespaces = BTreeMap::new();
    for document in documents.iter().filter(|document| document["kind"] == "Namespace") {
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        namespaces.insert(name.to_owned(), NamespaceDefaults::of_namespace(document));
    }
    let defaults = |namespace: &str| namespaces.get(namespace).cloned().unwrap_or_default();
    let mut manifest = Manifest { text: String::new(), objects: Vec::new(), reports: Vec::new() };
    for (at, (part, mut document)) in parts.into_iter().zip(documents).enumerate() {
        if document.is_null() {
            manifest.text.push_str(part.all);
            continue;
        }
        if !document["kind"].is_string() {
            return Err(ManifestError::NoObject(at + 1));
        }
        let reports = object::each(&mut document, &defaults, sidecar)?;
        let has_changed = reports
            .iter()
            .any(|report| !matches!(report.change, SidecarChange::NotAsked | SidecarChange::Unchanged));
        if has_changed {
            manifest.text.push_str(part.separator());
            manifest.text.push_str(&write(part.body, &document).ok_or(ManifestError::Unwritable(at + 1))?);
        } else {
            manifest.text.push_str(part.all);
        }
        manifest.reports.extend(reports);
        manifest.objects.push(document);
    }
    Ok(manifest)
}

/// A document with the line that separates it from the one before.
struct ManifestPart<'a> {
    all: &'a str,
    body: &'a str,
}

impl ManifestPart<'_> {
    fn separator(&self) -> &'static str {
        if self.all.len() > self.body.len() || self.all.starts_with("---") { "---\n" } else { "" }
    }
}

/// The documents of a stream. A line that begins with `---` begins one wherever it stands, in a block of text too (YAML 1.2.2,
/// 9.1.2).
fn split(text: &str) -> Vec<ManifestPart<'_>> {
    let is_marker = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if at > 0 && is_marker(line) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let parts = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]);
    let body = |all: &str| {
        let line = all.split_inclusive('\n').next().unwrap_or_default();
        // What stands behind the marker belongs to the document.
        let is_bare = is_marker(line) && line["---".len()..].trim().is_empty();
        if is_bare { line.len() } else { 0 }
    };
    parts.map(|all| ManifestPart { all, body: &all[body(all)..] }).collect()
}

/// A document as JSON; null for an empty one.
fn read(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    if is_json(text)
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// A document in the form that it had.
fn write(before: &str, document: &Value) -> Option<String> {
    if is_json(before) {
        return serde_json::to_string_pretty(document).ok().map(|text| text + "\n");
    }
    // What is read again must be what was written: the writer leaves the quotation marks of a blank at the end away.
    let attempt = |quote_all: bool| {
        let text = serde_saphyr::to_string_with_options(
            document,
            serde_saphyr::ser_options! { quote_all: quote_all },
        )
        .ok()?;
        let is_same = read(&text).is_ok_and(|again| again == *document);
        is_same.then(|| if text.ends_with('\n') { text } else { text + "\n" })
    };
    (!has_old_number(document)).then(|| attempt(false)).flatten().or_else(|| attempt(true))
}

/// Whether a string of a document is a number, a date or a sign in YAML 1.1, which some readers still speak, and which the
/// writer writes without quotation marks: `1:30` is 90 there.
fn has_old_number(value: &Value) -> bool {
    let is_old = |text: &str| {
        let is_number = text.chars().all(|char| matches!(char, '0'..='9' | ':' | '_' | '.' | '+' | '-'));
        let is_date =
            || text.len() >= "2001-1-1".len() && text.chars().take(4).all(|char| char.is_ascii_digit());
        let date = text.chars().nth(4) == Some('-') && is_date();
        matches!(text, "=" | "<<") || date || is_number && text.contains([':', '_'])
    };
    match value {
        Value::String(text) => is_old(text),
        Value::Array(list) => list.iter().any(has_old_number),
        Value::Object(map) => map.iter().any(|(key, value)| is_old(key) || has_old_number(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_all_of_its_parts() {
        for (text, bodies) in [
            ("a: 1\n", &["a: 1\n"][..]),
            ("---\na: 1\n---\nb: 2", &["a: 1\n", "b: 2"]),
            ("# first\n---\na: 1\n--- # second\nb: 2\n", &["# first\n", "a: 1\n", "--- # second\nb: 2\n"]),
            ("a: |\n  ---\n  x\n---\r\nb: 2\r\n", &["a: |\n  ---\n  x\n", "b: 2\r\n"]),
            ("----\na: 1", &["----\na: 1"]),
            ("", &[""]),
        ] {
            let parts = split(text);
            assert_eq!(parts.iter().map(|part| part.body).collect::<Vec<_>>(), bodies, "{text:?}");
            assert_eq!(parts.iter().map(|part| part.all).collect::<String>(), text);
        }
    }

    /// kubectl reads YAML 1.1, in which more words are no strings.
    #[test]
    fn strings_stay_strings_for_kubectl() {
        for text in [
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "n",
            "true",
            "null",
            "~",
            "0777",
            "0x1F",
            "1e3",
            "1_000",
            "1:30",
            "3.0",
            ".5",
            "",
            " a",
            "a: b",
            "#c",
            "2001-01-01",
            "+1",
            "0o17",
            "0b1",
            "=",
            "<<",
            "line\nline\n",
            "tab\t",
            "'",
            "\"",
        ] {
            let written = write("", &serde_json::json!({ "a": text })).unwrap();
            let plain = written.trim_start_matches("a:").trim();
            assert!(plain.starts_with(['\'', '"', '|', '>']), "{text:?} is written as {plain}");
        }
    }
}
