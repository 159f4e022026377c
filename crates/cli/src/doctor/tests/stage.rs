//! A local cloud with one fault at a time.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::Parser;
use pgentra_local::{Flavour, Host, LocalCloud};
use pgentra_system::{Clock, Env, Files, Processes, System, SystemClock};
use tempfile::TempDir;

use super::super::report::{Outcome, Report};
use super::super::{Printed, examine, render};
use crate::arguments::{Arguments, Command};
use crate::sql;

/// The expected result: nothing, or one finding as `link: finding`.
pub(super) type Expected = &'static str;

/// A working cloud, and the list of unexpected results.
pub(super) struct Stage {
    pub(super) cloud: LocalCloud,
    pub(super) folder: TempDir,
    faults: Vec<String>,
}

/// One run of doctor, on a machine like a VM of the cloud except for these settings.
pub(super) struct Try {
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
    clock_behind: Duration,
    processes: Processes,
    route: Option<u16>,
}

impl Stage {
    pub(super) async fn new(flavour: Flavour) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let cloud = LocalCloud::builder().folder(folder.path().join("cloud")).flavour(flavour);
        let mut cloud = cloud.start().await.unwrap();
        cloud.create_roles().await.unwrap();
        Stage { cloud, folder, faults: Vec::new() }
    }

    /// A run as a program on this host.
    pub(super) fn on(&self, host: Host) -> Try {
        Try {
            variables: self.cloud.environment(host),
            arguments: Vec::new(),
            clock_behind: Duration::ZERO,
            processes: Processes::none(),
            route: None,
        }
    }

    /// Runs doctor, and records an unexpected result.
    pub(super) async fn check(&mut self, what: &str, one: Try, expected: Expected) -> Report {
        let report = one.examine().await;
        let found: Vec<String> = report
            .lines
            .iter()
            .filter_map(|line| match &line.outcome {
                Outcome::Found(found) => {
                    Some(format!("{}: {}", line.check.link().name(), found.finding.id()))
                }
                _ => None,
            })
            .collect();
        let text = render::text(&report, render::Marks::Ascii, true).render(false);
        if found.join(", ") != expected {
            self.faults.push(format!("{what}: expected `{expected}`, found {found:?}\n{text}"));
        }
        let json = serde_json::to_string(&Printed::of(&report, false)).unwrap();
        if [&text, &json].iter().any(|told| told.contains("eyJ")) {
            self.faults.push(format!("{what}: a token can be read"));
        }
        let reached_again = report
            .lines
            .iter()
            .filter(|line| {
                let link = line.check.link();
                report
                    .first_fatal()
                    .is_some_and(|(fatal, _)| fatal.check < line.check && fatal.check.link() != link)
            })
            .any(|line| !matches!(line.outcome, Outcome::NotReached));
        if reached_again {
            self.faults.push(format!("{what}: something is told of what was not reached\n{text}"));
        }
        report
    }

    /// Runs SQL as the Entra administrator.
    pub(super) async fn administer(&self, sql: &str) {
        let session = self.cloud.connector(Host::Admin, &[]).unwrap().connect().await.unwrap();
        sql::results(&session, sql).await.unwrap();
        session.close().await.unwrap();
    }

    pub(super) async fn end(self) {
        self.cloud.stop().await;
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }
}

impl Try {
    pub(super) fn set(mut self, name: &str, value: impl ToString) -> Try {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    pub(super) fn unset(mut self, name: &str) -> Try {
        self.variables.remove(name);
        self
    }

    pub(super) fn with(mut self, arguments: &[&str]) -> Try {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Uses a server on this port of loopback instead of the cloud's.
    pub(super) fn port(self, port: u16) -> Try {
        self.set("PGPORT", port)
    }

    pub(super) fn clock_behind(mut self, by: Duration) -> Try {
        self.clock_behind = by;
        self
    }

    /// Uses a `--token-command` that prints this text.
    pub(super) fn token(mut self, text: &str) -> Try {
        let text = text.to_owned();
        self.processes = Processes::scripted(move |_| {
            let stdout = text.clone().into_bytes().into();
            Ok(pgentra_system::Finished { code: Some(0), stdout, stderr: Vec::new() })
        });
        self.with(&["--token-command", "print-it"])
    }

    /// Redirects the metadata service's own address to this port of loopback.
    pub(super) fn route_metadata(mut self, port: u16) -> Try {
        self.route = Some(port);
        self
    }

    async fn examine(self) -> Report {
        let words = ["pgentra", "doctor"].map(str::to_owned).into_iter().chain(self.arguments);
        let Command::Doctor(arguments) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("another command");
        };
        let mut system = System::builder()
            .env(Env::from_map(self.variables))
            .files(Files::real())
            .processes(self.processes)
            .clock(Behind(self.clock_behind));
        if let Some(port) = self.route {
            system = system.route("169.254.169.254", 80, ([127, 0, 0, 1], port).into());
        }
        examine(&system.build(), &arguments.connection, &arguments.identity).await.0
    }
}

/// A clock that is behind.
#[derive(Debug)]
struct Behind(Duration);

impl Clock for Behind {
    fn now(&self) -> SystemTime {
        SystemClock.now() - self.0
    }
}
