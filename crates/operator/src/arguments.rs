//! The command line.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    Run(RunArguments),
}

/// What `run` is told.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Address of the probes and of the metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9432")]
    pub(crate) health_listen: SocketAddr,

    /// Form of the log on stderr.
    #[arg(long, value_enum, default_value_t = LineFormat::Text)]
    pub(crate) log_format: LineFormat,

    #[command(flatten)]
    pub(crate) webhook: WebhookArguments,
}

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LineFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}
