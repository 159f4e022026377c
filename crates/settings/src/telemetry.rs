//! Opens the HTTP listeners and the audit log.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use pgentra_observe::AuditLog;
use pgentra_observe::http::{HttpServer, Observable, Scope};
use pgentra_system::append_private;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{ProblemKind, SettingsError};

/// Telemetry settings. Read once, at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Where the status page is, on the loopback interface. Default: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Where probes and metrics alone are. Default: nowhere.
    pub health_listen: Option<SocketAddr>,
    /// The format of the log, for the program that writes it.
    pub log_format: LogFormat,
    /// Where audit lines go. Default: nowhere.
    pub audit: Option<AuditPlace>,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// Where audit lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditPlace {
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// The telemetry of a running program.
#[derive(Debug)]
pub struct ObservedEndpoints<T> {
    telemetry: T,
    audit: Option<AuditLog>,
    settings: TelemetrySettings,
    lines: Vec<String>,
    /// Stops the HTTP listeners, which stay open during the drain.
    _end: DropGuard,
}

impl<T: Observable> ObservedEndpoints<T> {
    /// Opens the audit log and the HTTP listeners. `telemetry` makes what they show.
    ///
    /// # Errors
    ///
    /// A file or listener that cannot be opened.
    pub async fn open(
        settings: &TelemetrySettings,
        telemetry: impl FnOnce(Option<AuditLog>) -> T,
    ) -> Result<Self, SettingsError> {
        let audit = settings.audit.as_ref().map(open_audit).transpose()?;
        let telemetry = telemetry(audit.clone());
        let end = CancellationToken::new();
        let mut lines = Vec::new();
        for (what, scope, address) in [
            ("admin", Scope::Admin, settings.admin_listen),
            ("health", Scope::Health, settings.health_listen),
        ] {
            let Some(address) = address else { continue };
            let (admin, bound) = bind(address, scope, &telemetry).await.map_err(|error| {
                let message = format!("cannot listen on {address}: {error}");
                let hint = format!("give another address with --{what}-listen");
                SettingsError::one(ProblemKind::Machine, message, hint)
            })?;
            tokio::spawn(admin.serve(end.clone()));
            lines.push(format!("{what} on http://{bound}/"));
        }
        Ok(Self { telemetry, audit, settings: settings.clone(), lines, _end: end.drop_guard() })
    }

    /// The telemetry of the process.
    pub fn telemetry(&self) -> &T {
        &self.telemetry
    }

    /// The addresses and files, a line each.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Reopens the audit log after a log rotation; returns a message about changes in `next` that
    /// need a restart.
    pub fn reload(&self, next: &TelemetrySettings) -> Option<&'static str> {
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
        (self.settings != *next)
            .then_some("admin_listen, health_listen, log_format and audit change at the next start only")
    }

    /// Waits until the audit log is written.
    pub async fn close(self) {
        if let Some(audit) = &self.audit {
            audit.flush().await;
        }
    }
}

async fn bind<T: Observable>(
    address: SocketAddr,
    scope: Scope,
    telemetry: &T,
) -> io::Result<(HttpServer<T>, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((HttpServer::new(listener, scope, telemetry.clone())?, bound))
}

fn open_audit(place: &AuditPlace) -> Result<AuditLog, SettingsError> {
    let to = place.clone();
    let open = move || match &to {
        AuditPlace::Stderr => Ok(Box::new(io::stderr()) as Box<dyn Write + Send>),
        // The audit log names users and roles, so only the program's user may read it.
        AuditPlace::File(path) => append_private(path).map(|file| Box::new(file) as Box<dyn Write + Send>),
    };
    AuditLog::start(Box::new(open)).map_err(|error| {
        let message = format!("cannot open the audit log {place}: {error}");
        let hint = "name a file that this user may write with --audit, or - for stderr";
        SettingsError::one(ProblemKind::Machine, message, hint)
    })
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("write text or json"),
        }
    }
}

impl From<&str> for AuditPlace {
    fn from(text: &str) -> Self {
        match text {
            "-" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }
}

impl fmt::Display for AuditPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use pgentra_observe::Exposition;

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Serving(CancellationToken);

    impl Observable for Serving {
        fn has_started(&self) -> bool {
            true
        }

        async fn readiness(&self) -> Result<String, String> {
            Ok("ready".to_owned())
        }

        fn metrics(&self, _: &str) -> Exposition {
            Exposition { text: String::new(), content_type: "text/plain" }
        }

        fn stop(&self) -> &CancellationToken {
            &self.0
        }
    }

    async fn open(settings: &TelemetrySettings) -> Result<ObservedEndpoints<Serving>, SettingsError> {
        ObservedEndpoints::open(settings, |_| Serving::default()).await
    }

    #[tokio::test]
    async fn the_audit_log_is_private_appended_to_and_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.json");
        let audit = Some(AuditPlace::File(path.clone()));
        let settings = TelemetrySettings { audit, ..TelemetrySettings::default() };
        let seen = open(&settings).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::rename(&path, folder.path().join("audit.1")).unwrap();
        assert_eq!(seen.reload(&settings), None);
        seen.close().await;
        assert!(path.exists(), "a new file is begun");
        fs::write(&path, "kept\n").unwrap();
        open(&settings).await.unwrap().close().await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept\n");

        let nowhere = AuditPlace::File(folder.path().join("none/audit"));
        let problem = open(&TelemetrySettings { audit: Some(nowhere), ..settings }).await.unwrap_err();
        assert!(problem.to_string().contains("none/audit"), "{problem:?}");
    }

    #[tokio::test]
    async fn listeners_are_up_until_the_end_and_what_cannot_change_is_said() {
        let any = "127.0.0.1:0".parse().ok();
        let settings =
            TelemetrySettings { admin_listen: any, health_listen: any, ..TelemetrySettings::default() };
        let seen = open(&settings).await.unwrap();
        let lines = seen.lines().join(" ");
        assert!(
            lines.starts_with("admin on http://127.0.0.1:") && lines.contains("/ health on http://"),
            "{lines}"
        );
        assert!(seen.reload(&TelemetrySettings::default()).unwrap().contains("next start"));
        let taken = lines.split(['/', ' ']).find_map(|word| word.parse().ok());
        let again = TelemetrySettings { admin_listen: taken, ..settings };
        assert!(open(&again).await.unwrap_err().to_string().contains("cannot listen on"));
    }
}
