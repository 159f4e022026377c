//! Why the process ends.

use std::error::Error;
use std::net::SocketAddr;

use pgentra_identity::ConfigError;

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("PGENTRA_LOG cannot be `{filter}`")]
    LogFilter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot sign in")]
    Identity(#[source] ConfigError),
    #[error("the authorities in {file} cannot be read")]
    Roots {
        file: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the definition of the resource is no YAML")]
    Definition(#[source] serde_saphyr::ser::Error),
    #[error("cannot write to stdout")]
    Output(#[source] std::io::Error),
    #[error("this process knows no API server of Kubernetes")]
    Cluster(#[source] kube::Error),
}

impl OperatorError {
    /// The error with its causes, a line each. A cause that is told already is left out.
    pub(crate) fn told(&self) -> String {
        let mut text = format!("error: {self}\n");
        let mut cause = self.source();
        while let Some(error) = cause {
            let told = error.to_string();
            if !text.contains(&told) {
                text.push_str(&format!("caused by: {told}\n"));
            }
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {hint}\n"));
        }
        text
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::LogFilter { .. } => {
                Some("it takes a level, or a filter such as pgentra_operator=debug,warn")
            }
            Self::Cluster(_) => {
                Some("it runs in a pod with a service account; outside of a cluster KUBECONFIG names a file")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_a_hint() {
        let source = "a=b=c".parse::<tracing_subscriber::filter::Targets>().unwrap_err();
        let told = OperatorError::LogFilter { filter: "a=b=c".to_owned(), source }.told();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "error: PGENTRA_LOG cannot be `a=b=c`");
        assert!(lines[1].starts_with("caused by: "), "{told}");
        assert!(lines.last().unwrap().starts_with("hint: "), "{told}");

        let inner = std::io::Error::other("the disk is full");
        let source = std::io::Error::other(inner);
        assert_eq!(
            OperatorError::Runtime(source).told(),
            "error: cannot start the runtime\ncaused by: the disk is full\n"
        );
    }
}
