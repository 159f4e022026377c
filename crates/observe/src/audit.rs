//! An audit log: a JSON object per line.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::oneshot;

/// Lines that may wait for a slow disk. Further ones are dropped and counted, so that the log does
/// not block a session.
const WAITING: usize = 4096;

/// Time to write the last lines when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Opens the file of an [`AuditLog`]: once in the beginning, and at each [`AuditLog::reopen`].
pub type OpenLog = Box<dyn FnMut() -> io::Result<Box<dyn Write + Send>> + Send>;

/// A log of sessions: a JSON object per line.
///
/// A separate thread writes it. If that thread is too slow or cannot write, lines are dropped and
/// counted ([`AuditLog::lost`]); sessions go on. The log ends with its last
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

    /// Writes a line. Never waits: a line that does not fit is dropped.
    pub fn write(&self, line: &impl Serialize) {
        match serde_json::to_vec(line) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.order(Order::Write(bytes));
            }
            Err(_) => drop(self.lost.inc()),
        }
    }

    /// The number of lines that could not be written.
    pub fn lost(&self) -> u64 {
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

/// RFC 3339 in UTC, to the millisecond; empty for a time outside of the calendar.
pub fn rfc3339(time: SystemTime) -> String {
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

    /// A line of 175 bytes without the message.
    fn refusal(message: &str) -> serde_json::Value {
        serde_json::json!({ "message": message, "of": "x".repeat(151) })
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
        assert!(lines[0].starts_with(r#"{"message":"one\n\"quoted\"""#), "{text}");
        // The incomplete line stays a separate line.
        assert!(lines.len() == 3 && lines[2].contains(r#""message":"four""#), "{text}");
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
