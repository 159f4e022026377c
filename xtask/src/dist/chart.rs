//! The Helm charts: each packaged as `helm package` does, and as the OCI artefact that `helm push` makes.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::archive::{READ, Tree};
use super::oci::{Artefact, Blob, layout};
use super::release::Release;
use super::shelf::Shelf;
use crate::tree;

const CHARTS: [&str; 4] = [
    "deploy/helm/pgentra-proxy",
    "deploy/helm/pgentra-gateway",
    "deploy/helm/pgentra-operator",
    "deploy/helm/pgentra-local",
];

/// Makes the archives and the layouts.
///
/// # Errors
/// A file of a chart cannot be read, or a chart has another version than the binary.
pub(crate) fn make(release: &Release, shelf: &mut Shelf) -> Result<()> {
    CHARTS.iter().try_for_each(|folder| make_one(release, shelf, folder))
}

fn make_one(release: &Release, shelf: &mut Shelf, folder: &str) -> Result<()> {
    let mut files = Tree::default();
    for path in tree::files(&release.root)?.iter().filter(|path| path.starts_with(folder)) {
        let below = path.strip_prefix(folder)?.to_str().context("a chart's file is not UTF-8")?;
        files.copy(below, READ, &release.root.join(path))?;
    }
    let chart = std::fs::read_to_string(release.root.join(folder).join("Chart.yaml"))?;
    let described = described(&chart)?;
    let text = |key: &str| described.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    for key in ["version", "appVersion"] {
        ensure!(
            text(key) == release.version,
            "{folder}/Chart.yaml has {key} {:?}; the binary is {}",
            text(key),
            release.version
        );
    }
    let name = text("name");
    let archive = files.below(&name).tar_gz(release.epoch)?;
    shelf.put(&format!("{name}-{}.tgz", release.version), &archive, "as `helm package` makes it")?;
    let artefact = Artefact {
        config: Blob {
            media_type: "application/vnd.cncf.helm.config.v1+json",
            bytes: serde_json::to_vec(&described)?,
        },
        layer: Blob { media_type: "application/vnd.cncf.helm.chart.content.v1.tar+gzip", bytes: archive },
        tag: release.version.clone(),
        annotations: json!({
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.description": text("description"),
            "org.opencontainers.image.version": release.version,
            "org.opencontainers.image.created": release.time()?,
        }),
        platform: None,
    };
    let file = format!("{name}-{}-chart.tar", release.version);
    shelf.put(&file, &layout(&artefact, release.epoch)?, "OCI layout with Helm's media types")
}

/// Chart.yaml as JSON. Each of its lines is a key and a text, or a key and a list of words in brackets.
fn described(chart: &str) -> Result<Value> {
    let mut map = Map::new();
    for line in chart.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (key, value) =
            line.split_once(": ").with_context(|| format!("Chart.yaml: {line:?} is not `key: value`"))?;
        let value = value.trim();
        let read = match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(words) => words.split(',').map(|word| Value::from(word.trim())).collect(),
            None => Value::from(value.trim_matches('"')),
        };
        ensure!(!key.starts_with([' ', '-']), "Chart.yaml: {line:?} is nested");
        map.insert(key.to_owned(), read);
    }
    Ok(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_read_as_json() {
        let read = described("name: a\nkubeVersion: \">=1.29.0-0\"\nkeywords: [one, two]\n").unwrap();
        assert_eq!(read, json!({ "name": "a", "kubeVersion": ">=1.29.0-0", "keywords": ["one", "two"] }));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(described("dependencies:\n  - name: x\n").is_err());
    }
}
