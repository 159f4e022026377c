//! Keeps the file up to date: each token is replaced ahead of its expiry.

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use pgentra_identity::{AccessToken, Credential, Refreshed, Resource};
use pgentra_system::System;
use tokio::sync::Notify as Wake;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::entry::Entry;
use super::replace::replace;
use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::service::{Notify, SignalEvent, Signals};
use crate::time::{date, unix};

/// How often the credential is asked for its token: a read of its cache, which starts a refresh when
/// one is due. A new token is in the file no later than this.
const LOOK: Duration = Duration::from_secs(5);
/// The wait after a first failure without a valid token, and the longest one.
const BACK_OFF: Duration = Duration::from_secs(5);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);

/// A file, and where its token comes from.
#[derive(Debug)]
pub(super) struct TokenFile {
    pub(super) credential: Credential,
    pub(super) resource: Resource,
    pub(super) entry: Entry,
    pub(super) path: PathBuf,
}

/// What happened to the file.
#[derive(Debug)]
enum FileEvent {
    /// It has a new token, which is valid until this time.
    Written(SystemTime),
    /// There is no new token; the token in the file is valid until this time.
    Kept(Problem, Option<SystemTime>),
    /// The platform gave the token that the file has already.
    Same,
    /// A new token could not be written.
    NotWritten(Problem),
}

impl TokenFile {
    /// Replaces the file.
    pub(super) fn write(&self, token: &AccessToken) -> Outcome {
        replace(&self.path, self.entry.text(token).as_bytes()).map_err(|error| {
            let message = format!("cannot write {}: {error}", self.path.display());
            Problem::new(Blame::Ours, message)
                .hint("the folder must exist, and this user must be allowed to write into it")
        })
    }

    /// Writes every token of the credential, until the first write fails. `asked` asks for another
    /// token now.
    async fn keep(&self, asked: &Wake, mut told: impl FnMut(FileEvent)) -> Problem {
        let mut held: Option<AccessToken> = None;
        let mut failures = 0;
        // Failed requests that were told.
        let mut known = 0;
        loop {
            let wait = match self.credential.token(&self.resource).await {
                Ok(token) if held.as_ref().is_some_and(|held| held.same_secret(&token)) => {
                    let health = self.credential.health(&self.resource);
                    if let Some(error) = health.last_error.filter(|_| health.failed > known) {
                        told(FileEvent::Kept(error.into(), Some(token.expires_on())));
                    }
                    known = health.failed;
                    failures = 0;
                    self.look(&token)
                }
                Ok(token) => match (self.write(&token), &held) {
                    (Ok(()), _) => {
                        told(FileEvent::Written(token.expires_on()));
                        failures = 0;
                        let wait = self.look(&token);
                        held = Some(token);
                        wait
                    }
                    (Err(problem), None) => return problem,
                    (Err(problem), Some(_)) => {
                        told(FileEvent::NotWritten(problem));
                        back_off(&mut failures)
                    }
                },
                Err(error) => {
                    known = self.credential.health(&self.resource).failed;
                    told(FileEvent::Kept(error.into(), held.as_ref().map(AccessToken::expires_on)));
                    back_off(&mut failures)
                }
            };
            tokio::select! {
                () = asked.notified() => match self.renew(held.as_ref()).await {
                    Some(Ok(Refreshed::Same(_))) => told(FileEvent::Same),
                    // Told above, with the state of the file.
                    Some(Ok(Refreshed::New(_)) | Err(_)) | None => {}
                },
                () = sleep(wait) => {}
            }
        }
    }

    async fn renew(
        &self,
        held: Option<&AccessToken>,
    ) -> Option<Result<Refreshed, pgentra_identity::TokenError>> {
        Some(self.credential.refresh(&self.resource, held?).await)
    }

    /// The wait until the next look: of a token with a short life no more than a quarter of what is
    /// left.
    fn look(&self, token: &AccessToken) -> Duration {
        let left = token.expires_on().duration_since(self.credential.now()).unwrap_or_default();
        LOOK.min(left / 4).max(Duration::from_millis(100))
    }

    fn say(&self, event: FileEvent, now: SystemTime) {
        let file = self.path.display();
        match event {
            FileEvent::Written(until) => {
                tracing::info!(%file, until = date(unix(until)), "token written");
                output::say(&format!("{file} has a token that is valid until {}", date(unix(until))));
            }
            FileEvent::Kept(problem, until) => {
                tracing::info!(%file, error = problem.chain(), "no new token");
                output::problem(&problem);
                output::say(&match until {
                    Some(until) if until > now => {
                        format!(
                            "{file} keeps its token, which is valid until {}; trying again",
                            date(unix(until))
                        )
                    }
                    Some(_) => format!("{file} keeps its token, which has expired; trying again"),
                    None => format!("{file} is not written yet; trying again"),
                });
            }
            FileEvent::Same => {
                tracing::info!(%file, "the same token again");
                output::say(&format!(
                    "{file} keeps its token: the platform gave the same one again, as it does until shortly before the expiry"
                ));
            }
            FileEvent::NotWritten(problem) => {
                tracing::info!(%file, error = problem.chain(), "token not written");
                output::problem(&problem);
            }
        }
    }
}

/// Keeps the file up to date until SIGTERM or SIGINT; SIGHUP asks for another token. The service
/// manager learns when the file has its first token.
pub(super) async fn run(system: &System, file: TokenFile) -> Outcome {
    let mut signals = Signals::listen()?;
    let notify = Notify::from_env(system.env());
    let mut beat = notify.beat().map(interval);
    if let Some(beat) = &mut beat {
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let asked = Wake::new();
    let mut kept = pin!(file.keep(&asked, |event| {
        if let FileEvent::Written(until) = &event {
            // A repeated READY changes the status alone.
            notify.ready(&format!("the token is valid until {}", date(unix(*until))));
        }
        file.say(event, system.clock().now());
    }));
    loop {
        let next_beat = async {
            match &mut beat {
                Some(beat) => drop(beat.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            problem = &mut kept => return Err(problem),
            signal = signals.next() => match signal {
                SignalEvent::Reload => asked.notify_one(),
                SignalEvent::Stop => break,
            },
            () = next_beat => notify.alive(),
        }
    }
    notify.stopping("the file stays");
    Ok(())
}

/// The wait after a failure: 5 s, doubling up to a minute.
fn back_off(failures: &mut u32) -> Duration {
    let wait = BACK_OFF.saturating_mul(1 << (*failures).min(10)).min(MAX_BACK_OFF);
    *failures = failures.saturating_add(1);
    wait
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::UNIX_EPOCH;

    use pgentra_system::{Clock, Env, Files, Finished, Processes, RuntimeClock};
    use tempfile::TempDir;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const LIFE: Duration = Duration::from_secs(24 * 3600);

    /// A token source that gives a numbered token with a life of a day, except in these hours.
    struct Stage {
        file: TokenFile,
        system: System,
        start: SystemTime,
        folder: TempDir,
    }

    /// An event, and the content of the file after it, in hours since the start.
    type Told = Arc<Mutex<Vec<(f64, FileEvent, String)>>>;

    impl Stage {
        fn new(fails: std::ops::Range<u64>) -> Self {
            let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let (now, count) = (RuntimeClock::starting_at(start), AtomicU32::new(0));
            let processes = Processes::scripted(move |_| {
                let at = now.now();
                let hours = at.duration_since(start).unwrap().as_secs() / 3600;
                let number = count.fetch_add(1, Ordering::Relaxed);
                let expires = unix(at + LIFE);
                let answer = format!(r#"{{"access_token":"opaque-{number}","expires_on":{expires}}}"#);
                let code = if fails.contains(&hours) { 1 } else { 0 };
                Ok(Finished { code: Some(code), stdout: answer.into_bytes().into(), stderr: b"no".to_vec() })
            });
            let system = System::builder()
                .env(Env::from_map(Vec::<(String, String)>::new()))
                .files(Files::in_memory())
                .processes(processes)
                .clock(RuntimeClock::starting_at(start))
                .build();
            let folder = tempfile::tempdir().unwrap();
            let file = TokenFile {
                credential: Credential::builder(system.clone()).command(["give-token"]).build().unwrap(),
                resource: "https://example".parse().unwrap(),
                entry: Entry::Token,
                path: folder.path().join("password"),
            };
            Self { file, system, start, folder }
        }

        fn hours(&self) -> f64 {
            self.system.clock().now().duration_since(self.start).unwrap().as_secs_f64() / 3600.0
        }

        fn content(&self) -> String {
            std::fs::read_to_string(&self.file.path).unwrap_or_default()
        }

        /// Keeps the file for these hours.
        async fn keep(&self, hours: u32, asked: &Wake, told: &Told) -> Option<Problem> {
            let note = |event| {
                assert!(!format!("{event:?}").contains("opaque-"), "{event:?}");
                told.lock().unwrap().push((self.hours(), event, self.content()));
            };
            tokio::time::timeout(HOUR * hours, self.file.keep(asked, note)).await.ok()
        }
    }

    fn writes(told: &Told) -> Vec<(f64, SystemTime, String)> {
        let told = told.lock().unwrap();
        let written = told.iter().filter_map(|(at, event, content)| match event {
            FileEvent::Written(until) => Some((*at, *until, content.clone())),
            _ => None,
        });
        written.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_token_is_replaced_ahead_of_its_expiry() {
        let stage = Stage::new(0..0);
        let told = Told::default();
        assert!(stage.keep(75, &Wake::new(), &told).await.is_none());
        let writes = writes(&told);
        assert_eq!(told.lock().unwrap().len(), writes.len(), "nothing failed");
        assert_eq!(writes.len(), 7, "{writes:?}");
        for (number, (at, _, content)) in writes.iter().enumerate() {
            assert_eq!(*content, format!("opaque-{number}"), "no line feed, and the token of the moment");
            assert!((at - 12.0 * number as f64).abs() < 0.2, "at half of its life: {writes:?}");
        }
        assert_eq!(std::fs::read_dir(stage.folder.path()).unwrap().count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_keeps_the_file_and_is_told() {
        let stage = Stage::new(10..30);
        let told = Told::default();
        assert!(stage.keep(40, &Wake::new(), &told).await.is_none());
        let writes = writes(&told);
        assert_eq!(writes.len(), 2, "{writes:?}");
        assert!((30.0..30.1).contains(&writes[1].0), "a minute after the source is back: {writes:?}");
        let told = told.lock().unwrap();
        let kept = |valid: bool| {
            told.iter().filter(move |(at, event, content)| {
                matches!(event, FileEvent::Kept(..)) && (*at < 24.0) == valid && content == "opaque-0"
            })
        };
        assert!(kept(true).count() > 10 && kept(false).count() > 10);
        assert_eq!(told.len(), 2 + kept(true).count() + kept(false).count(), "the old file stays");
        let FileEvent::Kept(problem, Some(_)) = &kept(true).next().unwrap().1 else { panic!() };
        assert!(problem.chain().contains("exit code 1"), "{}", problem.chain());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_first_token_it_goes_on_trying() {
        let stage = Stage::new(0..2);
        let told = Told::default();
        assert!(stage.keep(3, &Wake::new(), &told).await.is_none());
        let writes = writes(&told);
        assert!(writes.len() == 1 && (2.0..2.1).contains(&writes[0].0), "{writes:?}");
        assert!(matches!(told.lock().unwrap()[0].1, FileEvent::Kept(_, None)));
    }

    #[tokio::test(start_paused = true)]
    async fn another_token_can_be_asked_for() {
        let stage = Stage::new(0..0);
        let (told, asked) = (Told::default(), Wake::new());
        tokio::join!(stage.keep(2, &asked, &told), async {
            tokio::time::sleep(HOUR).await;
            asked.notify_one();
        });
        let writes = writes(&told);
        assert!(writes.len() == 2 && (1.0..1.01).contains(&writes[1].0), "{writes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_gone_is_told_and_a_first_one_is_fatal() {
        let stage = Stage::new(0..0);
        let (told, asked) = (Told::default(), Wake::new());
        let path = stage.folder.path().to_owned();
        tokio::join!(stage.keep(15, &asked, &told), async {
            tokio::time::sleep(HOUR * 2).await;
            std::fs::remove_dir_all(&path).unwrap();
            tokio::time::sleep(HOUR * 12).await;
            std::fs::create_dir(&path).unwrap();
        });
        let writes = writes(&told);
        assert!(writes.len() == 2 && (14.0..14.1).contains(&writes[1].0), "{writes:?}");
        assert!(told.lock().unwrap().iter().any(|(_, event, _)| matches!(event, FileEvent::NotWritten(_))));
        let nowhere = TokenFile { path: "/no-such-folder/password".into(), ..Stage::new(0..0).file };
        let problem = nowhere.keep(&Wake::new(), |_| panic!()).await;
        assert!(problem.error_text().contains("cannot write /no-such-folder/password"));
    }
}
