//! `pgentra kubernetes`: manifests of Kubernetes.

mod arguments;

use std::path::Path;

use pgentra_injection::{Manifest, ManifestError, Sidecar, SidecarChange, inject_manifest};
use pgentra_system::System;
use serde_json::{Value, json};

use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::{input, output};

pub(crate) use arguments::KubernetesCommand;
use arguments::ManifestFormat;

/// The largest file that is read.
const FILE_LIMIT: usize = 16 * 1024 * 1024;

/// Runs one of the commands.
pub(crate) async fn run(system: &System, command: KubernetesCommand) -> Outcome {
    let KubernetesCommand::Inject(arguments) = command;
    let sidecar = Sidecar::of_image(arguments.image).pulled(arguments.image_pull_policy);
    let mut manifests = Vec::new();
    for path in arguments.file.iter().chain(&arguments.files) {
        let name = input::called(path);
        let text = read(system, path, &name).await?;
        manifests.push(inject_manifest(&text, &sidecar).map_err(|error| refused(&name, error))?);
    }
    let reports = || manifests.iter().flat_map(|manifest| &manifest.reports);
    for report in reports() {
        if report.change != SidecarChange::NotAsked {
            output::say(&format!("{}: {}", report.object, report.change));
        }
        for warning in &report.warnings {
            output::say(&format!("warning: {}: {warning}", report.object));
        }
    }
    if reports().all(|report| report.change == SidecarChange::NotAsked) {
        output::say(
            "nothing to do: no pod, no pod template and no namespace here has an annotation such as \
             pgentra.dev/target: postgresql://my-app@my-server.postgres.database.azure.com/app",
        );
    }
    match arguments.output {
        ManifestFormat::Yaml => output::exact(&Manifest::join(&manifests)),
        ManifestFormat::Json => {
            let mut objects: Vec<Value> =
                manifests.into_iter().flat_map(|manifest| manifest.objects).collect();
            let one = if objects.len() == 1 { objects.pop() } else { None };
            output::json(
                &one.unwrap_or_else(|| json!({ "apiVersion": "v1", "kind": "List", "items": objects })),
            )
        }
    }
}

async fn read(system: &System, path: &Path, name: &str) -> Outcome<String> {
    input::text(system, path, FILE_LIMIT).await.map_err(|error| {
        Problem::new(Blame::Usage, format!("cannot read {name}: {error}"))
            .hint("-f names a file with manifests of Kubernetes, of 16 MiB at most; - reads standard input")
    })
}

fn refused(name: &str, error: ManifestError) -> Problem {
    let hint = match &error {
        ManifestError::Refused(_) => "what each annotation takes: pgentra kubernetes inject --help",
        ManifestError::Unreadable { .. } | ManifestError::NoObject(_) => {
            "a chart is rendered first: helm template CHART | pgentra kubernetes inject -f -"
        }
        ManifestError::TooLarge | ManifestError::Unwritable(_) => {
            "divide the file, with a smaller file for each -f"
        }
    };
    Problem::new(Blame::Usage, format!("cannot put the proxy into {name}: {error}")).hint(hint)
}
