use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use pgentra_injection::{ANNOTATIONS, PREFIX};

/// `pgentra kubernetes …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KubernetesCommand {
    /// Put the proxy as a sidecar into the pods of a manifest that ask for it by an annotation.
    #[command(after_help = format!(
        "Every document of the file is printed; a document without such a pod stays as it is, and a changed one loses its comments. A second \
         run changes nothing.\n\nAnnotations of a pod, of a pod template, or of the namespace as defaults:\n{}\n\n\
         Example: pgentra kubernetes inject -f app.yaml | kubectl apply -f -\n         \
         helm template my-chart | pgentra kubernetes inject -f - --image registry.example.com/pgentra:{}",
        annotations(),
        env!("CARGO_PKG_VERSION")
    ))]
    Inject(Inject),
}

/// The annotations with their meanings, a line each.
fn annotations() -> String {
    let line = |name: &str, meaning: &str, default: &str| {
        let default = if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
        format!("  {PREFIX}{name}: {meaning}{default}")
    };
    ANNOTATIONS.map(|one| line(one.name, one.meaning, one.default)).join("\n")
}

/// Arguments of `pgentra kubernetes inject`.
#[derive(Debug, Args)]
pub(crate) struct Inject {
    /// File with manifests, in YAML or JSON; - reads standard input. May be given several times.
    #[arg(short, long, value_name = "FILE", required_unless_present = "files")]
    pub(crate) file: Vec<PathBuf>,
    /// The same without -f.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Image of the sidecar.
    #[arg(long, value_name = "IMAGE", default_value = concat!("pgentra:", env!("CARGO_PKG_VERSION")))]
    pub(crate) image: String,
    /// When the kubelet pulls the image. Default: Kubernetes' own.
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(crate) image_pull_policy: Option<String>,
    /// Form of the result on stdout.
    #[arg(short, long, value_enum, default_value_t = ManifestFormat::Yaml, value_name = "FORMAT", ignore_case = true)]
    pub(crate) output: ManifestFormat,
}

/// Forms of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestFormat {
    /// The documents of the file.
    Yaml,
    /// One object; a List for several.
    Json,
}
