//! The audit log: a JSON object per line, with client and role.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::names::{Names, SignIn};

/// Lines that may wait for a slow disk. Further ones are dropped and counted, so that the log does
/// not block a session.
const WAITING: usize = 4096;

/// Time to write the last lines when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Opens the file of an [`AuditLog`]: once in the beginning, and at each [`AuditLog::reopen`].
pub type OpenLog = Box<dyn FnMut() -> io::Result<Box<dyn Write + Send>> + Send>;

/// A log of sessions: JSON, a line for the start of each, one for its end, and one for each client
/// that was refused.
///
/// A separate thread writes it. If that thread is too slow or cannot write, lines are dropped and
/// counted (`pgentra_proxy_audit_lines_lost_total`); sessions go on. The log ends with its last
/// handle; [`AuditLog::flush`] waits until everything is written.
#[derive(Clone, Debug)]
pub struct AuditLog {
    orders: SyncSender<Order>,
    lost: Counter,
}

enum Order {
    Write(Vec<u8>),
    Reopen,
    Flush(oneshot::Sender<()>),
}

impl AuditLog {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or no thread can be started.
    pub fn start(mut open: OpenLog) -> io::Result<Self> {
        let writer = Writer { out: open()?, torn: false, failing: false, lost: Counter::default() };
        let lost = writer.lost.clone();
        let (orders, received) = sync_channel(WAITING);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(open, &received))?;
        Ok(Self { orders, lost })
    }

    /// Opens the file again after it was renamed (log rotation). If that fails, the old file stays
    /// in use.
    pub fn reopen(&self) {
        self.order(Order::Reopen);
    }

    /// Waits until all lines so far are written or dropped, at most for two seconds.
    pub async fn flush(&self) {
        let (sender, written) = oneshot::channel();
        self.order(Order::Flush(sender));
        let _ = tokio::time::timeout(LAST_WORDS, written).await;
    }

    pub(super) fn write(&self, line: &AuditLine<'_>) {
        match serde_json::to_vec(line) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.order(Order::Write(bytes));
            }
            Err(_) => drop(self.lost.inc()),
        }
    }

    /// The number of lines that could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }

    fn order(&self, order: Order) {
        match self.orders.try_send(order) {
            Err(TrySendError::Full(Order::Write(_)) | TrySendError::Disconnected(Order::Write(_))) => {
                self.lost.inc();
            }
            Err(_) => tracing::warn!("the audit log is too slow to be reopened or flushed"),
            Ok(()) => {}
        }
    }
}

struct Writer {
    out: Box<dyn Write + Send>,
    /// The last line may be incomplete.
    torn: bool,
    failing: bool,
    lost: Counter,
}

impl Writer {
    fn run(mut self, mut open: OpenLog, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Write(line) => self.write(&line),
                Order::Reopen => match open() {
                    Ok(out) => {
                        self.out = out;
                        self.torn = false;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the audit log cannot be reopened; the old file stays in use")
                    }
                },
                Order::Flush(done) => {
                    let _ = self.out.flush();
                    let _ = done.send(());
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        let begin: &[u8] = if self.torn { b"\n" } else { b"" };
        let written = self.out.write_all(begin).and_then(|()| self.out.write_all(line));
        match written.and_then(|()| self.out.flush()) {
            Ok(()) => (self.torn, self.failing) = (false, false),
            Err(error) => {
                self.lost.inc();
                // Logged once for each time that writing begins to fail.
                if !self.failing {
                    tracing::error!(%error, "the audit log cannot be written; its lines are lost");
                }
                (self.torn, self.failing) = (true, true);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event {
    Start,
    End,
    Refused,
}

/// One line. Unknown values, and values of other events, are left out.
#[derive(Debug, Serialize)]
pub(super) struct AuditLine<'a> {
    pub(super) time: String,
    pub(super) event: Event,
    /// Identifies the process: sessions are numbered from 1 in each.
    pub(super) instance: Uuid,
    pub(super) target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<u64>,
    pub(super) client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) application_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backend_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sqlstate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_to_server: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_to_client: Option<u64>,
}

impl<'a> AuditLine<'a> {
    pub(super) fn new(
        (time, instance): (SystemTime, Uuid),
        event: Event,
        target: &'a str,
        client: &'a str,
        names: &'a Names,
    ) -> Self {
        Self {
            time: rfc3339(time),
            event,
            instance,
            target,
            session: None,
            client,
            client_role: names.client_role.as_deref(),
            role: names.role.as_deref(),
            database: names.database.as_deref(),
            application_name: names.application_name.as_deref(),
            tenant: None,
            object_id: None,
            client_id: None,
            backend_pid: None,
            sqlstate: None,
            message: None,
            ended_by: None,
            seconds: None,
            bytes_to_server: None,
            bytes_to_client: None,
        }
    }

    pub(super) fn signed_in(mut self, sign_in: &'a SignIn) -> Self {
        let identity = sign_in.identity.as_ref();
        self.tenant = identity.and_then(|identity| identity.tenant());
        self.object_id = identity.and_then(|identity| identity.object_id());
        self.client_id = identity.and_then(|identity| identity.client_id());
        self.backend_pid = sign_in.backend_pid;
        self
    }
}

/// RFC 3339 in UTC, to the millisecond; empty for a time outside of the calendar.
pub(super) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A file with room for so many bytes.
    #[derive(Clone, Default)]
    struct Disk {
        written: Arc<Mutex<Vec<u8>>>,
        room: Arc<Mutex<usize>>,
    }

    impl Disk {
        fn of(room: usize) -> Self {
            Self { room: Arc::new(Mutex::new(room)), ..Self::default() }
        }

        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let taken = bytes.len().min(*room);
            if taken == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= taken;
            self.written.lock().unwrap().extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn refusal(message: &str) -> AuditLine<'_> {
        static NAMES: Names = Names { client_role: None, role: None, database: None, application_name: None };
        let line = AuditLine::new((SystemTime::UNIX_EPOCH, Uuid::nil()), Event::Refused, "t", "c", &NAMES);
        AuditLine { sqlstate: Some("28000"), message: Some(message), ..line }
    }

    #[tokio::test]
    async fn a_full_disk_loses_lines_and_nothing_else() {
        let disk = Disk::of(210);
        let mut handles = vec![disk.clone()];
        let log = AuditLog::start(Box::new(move || Ok(Box::new(handles.pop().unwrap())))).unwrap();
        log.write(&refusal("one\n\"quoted\""));
        log.write(&refusal("two"));
        log.write(&refusal("three"));
        log.flush().await;
        assert_eq!(log.lost(), 2);
        *disk.room.lock().unwrap() = 1000;
        log.write(&refusal("four"));
        log.flush().await;
        let text = disk.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"time":"1970-01-01T00:00:00.000Z","event":"refused","instance":"00000000-0000-0000-0000-000000000000","target":"t","client":"c","sqlstate":"28000","message":"one\n\"quoted\""}"#
        );
        // The incomplete line stays a separate line.
        assert!(lines.len() == 3 && lines[2].ends_with(r#""message":"four"}"#), "{text}");
        assert_eq!(log.lost(), 2);
    }

    #[tokio::test]
    async fn it_is_opened_anew_or_stays() {
        let (first, second) = (Disk::of(1000), Disk::of(1000));
        let mut handles = vec![Some(second.clone()), None, Some(first.clone())];
        let open = move || -> io::Result<Box<dyn Write + Send>> {
            match handles.pop() {
                Some(Some(disk)) => Ok(Box::new(disk)),
                _ => Err(io::ErrorKind::PermissionDenied.into()),
            }
        };
        let log = AuditLog::start(Box::new(open)).unwrap();
        for message in ["one", "two", "three"] {
            log.write(&refusal(message));
            log.reopen();
        }
        log.flush().await;
        assert!(first.text().contains("one") && first.text().contains("two"), "{}", first.text());
        assert!(second.text().contains("three"), "{}", second.text());
    }

    /// A disk that does not answer while the lock is held.
    struct Hung(Arc<Mutex<()>>);

    impl Write for Hung {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _answers = self.0.lock().unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_loses_what_does_not_fit_into_memory_and_holds_nobody_up() {
        let answers = Arc::new(Mutex::new(()));
        let disk = Arc::clone(&answers);
        let log = AuditLog::start(Box::new(move || Ok(Box::new(Hung(Arc::clone(&disk)))))).unwrap();
        let hung = answers.lock().unwrap();
        for _ in 0..WAITING + 10 {
            log.write(&refusal("x"));
        }
        // One line may be written to the disk already.
        assert!((9..=10).contains(&log.lost()), "{}", log.lost());
        drop(hung);
        log.flush().await;
        assert!(log.lost() <= 10);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error() {
        assert!(AuditLog::start(Box::new(|| Err(io::ErrorKind::NotFound.into()))).is_err());
    }
}
