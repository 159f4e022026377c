//! The command line.

use std::net::SocketAddr;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use pgentra_identity::{Cloud, IdentityOptions};

use crate::servers::ServerPattern;

use crate::webhook::WebhookArguments;

/// pgentra in Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "pgentra-operator", version)]
pub(crate) struct OperatorArguments {
    #[command(subcommand)]
    pub(crate) command: OperatorCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Run in a cluster until SIGTERM.
    Run(Box<RunArguments>),

    /// Print the definition of the resource PostgresRoles.
    Crd,
}

/// What `run` is told.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("parts").required(true).multiple(true)))]
pub(crate) struct RunArguments {
    /// Keep servers as the resources PostgresRoles say.
    #[arg(long, group = "parts", requires = "server")]
    pub(crate) roles: bool,

    #[command(flatten)]
    pub(crate) roles_arguments: RolesArguments,

    /// Address of the probes and of the metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9432")]
    pub(crate) health_listen: SocketAddr,

    /// Form of the log on stderr.
    #[arg(long, value_enum, default_value_t = LineFormat::Text)]
    pub(crate) log_format: LineFormat,

    #[command(flatten)]
    pub(crate) webhook: WebhookArguments,
}

/// What the controller of PostgresRoles is told.
#[derive(Debug, Args)]
pub(crate) struct RolesArguments {
    /// A host that resources may name as their server, or *.DOMAIN; more of them after commas.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) server: Vec<ServerPattern>,

    /// File with the certificates of the authorities of the servers, in PEM; it is read once. Default: those of the
    /// operating system.
    #[arg(long, value_name = "FILE")]
    pub(crate) root_certificates: Option<String>,

    /// The cloud of the servers: public, usgov or china.
    #[arg(long, value_name = "CLOUD", default_value = "public", value_parser = IdentityOptions::parse_cloud)]
    pub(crate) cloud: Cloud,

    /// Name of the Lease that the working replica holds, in the namespace of the pod.
    #[arg(long, value_name = "NAME", default_value = "pgentra-operator")]
    pub(crate) lease: String,

    /// The most servers that are asked at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) concurrency: u16,
}

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LineFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_may_be_alone_and_one_is_needed() {
        let parse = |words: &[&str]| {
            OperatorArguments::try_parse_from([&["pgentra-operator", "run"], words].concat())
        };
        let webhook = [
            "--webhook-listen=0.0.0.0:9443",
            "--webhook-service=a",
            "--webhook-secret=b",
            "--webhook-configuration=c",
            "--sidecar={\"image\":\"pgentra:1\"}",
        ];
        assert!(parse(&webhook).is_ok());
        assert!(parse(&webhook[..4]).is_err(), "no sidecar");
        assert!(parse(&[&webhook[..4], &["--sidecar={}"]].concat()).is_err(), "no image");
        assert!(parse(&["--roles", "--server=one.example"]).is_ok());
        assert!(parse(&[&webhook[..], &["--roles", "--server=one.example"]].concat()).is_ok());
        assert!(parse(&[]).is_err());
    }
}
