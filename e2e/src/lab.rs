use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use eventually::{DEADLINE, eventually_blocking, holds};
use rustix::process::Pid;
use tempfile::TempDir;

use crate::run::processes;
use crate::{Cloud, Conversation, Flavour, Proxy, Run, binary, secrecy};

/// The time in which a process that was told to end is gone.
const ENDING: Duration = Duration::from_secs(15);

/// The user who runs the commands of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The user who runs the tests.
    Ours,
    /// A user without privileges: `nobody` if root runs the tests.
    Ordinary,
}

/// The working folder and environment of one test. See the crate's page.
pub struct Lab {
    folder: TempDir,
    /// Words before every command, for example to enter a network namespace.
    prefix: Vec<String>,
    said: Mutex<Vec<(String, String)>>,
    tokens: Mutex<Vec<String>>,
}

impl Lab {
    /// A lab of the user who runs the tests.
    pub fn new() -> Lab {
        Lab::of(User::Ours)
    }

    /// A lab of this user.
    pub fn of(user: User) -> Lab {
        let folder = tempfile::Builder::new().prefix("e2e-").tempdir_in("/tmp").unwrap();
        let mut lab = Lab { folder, prefix: Vec::new(), said: Mutex::default(), tokens: Mutex::default() };
        open(lab.path());
        let folders = ["bin", "home", "temporary"].map(|name| lab.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            open(folder);
        }
        if user == User::Ordinary && rustix::process::geteuid().is_root() {
            // an unprivileged user may not be able to enter the build folder
            fs::copy(binary::pgentra(), folders[0].join("pgentra")).unwrap();
            for folder in &folders[1..] {
                chown(folder, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
            }
            lab.prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
                .map(str::to_owned)
                .to_vec();
        } else {
            std::os::unix::fs::symlink(binary::pgentra(), folders[0].join("pgentra")).unwrap();
        }
        lab
    }

    /// A lab whose commands all have these words before them.
    pub fn behind(words: &[&str]) -> Lab {
        let mut lab = Lab::new();
        lab.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        lab
    }

    /// `pgentra` with these arguments.
    pub fn pgentra(&self, arguments: &[&str]) -> Run<'_> {
        Run::new(self, &[&["pgentra"], arguments].concat())
    }

    /// A shell script, as a person would type it. `pgentra` is on its path.
    pub fn shell(&self, script: &str) -> Run<'_> {
        Run::new(self, &["bash", "-euo", "pipefail", "-c", script])
    }

    /// A program with its arguments.
    pub fn program(&self, words: &[&str]) -> Run<'_> {
        Run::new(self, words)
    }

    /// Starts a program with pipes for its input and output; the caller ends it.
    pub fn spawn(&self, words: &[&str], variables: impl IntoIterator<Item = (String, String)>) -> Child {
        let mut command = self.command(words);
        command.envs(variables).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        command.spawn().unwrap()
    }

    /// Starts a program that reads lines and answers with lines.
    pub fn converse(
        &self,
        words: &[&str],
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Conversation {
        Conversation::new(words.join(" "), self.spawn(words, variables))
    }

    /// The processes of this lab whose command line contains `word`.
    pub fn processes(&self, word: &str) -> Vec<Pid> {
        let found = processes(self.path()).into_iter().filter(|(_, line)| line.contains(word));
        found.filter_map(|(pid, _)| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
    }

    /// Starts `pgentra local up` and waits until it is ready.
    pub fn cloud(&self, flavour: Flavour, arguments: &[&str]) -> Cloud<'_> {
        Cloud::up(self, flavour, arguments)
    }

    /// Starts `pgentra proxy` with these variables and arguments, and waits until it reports that
    /// many listeners.
    pub fn proxy(
        &self,
        variables: impl IntoIterator<Item = (String, String)>,
        arguments: &[&str],
        listeners: usize,
    ) -> Proxy<'_> {
        Proxy::start(self, "proxy", variables, arguments, listeners)
    }

    /// Starts `pgentra gateway` with these arguments, and waits until it reports that many listeners.
    pub fn gateway(&self, arguments: &[&str], listeners: usize) -> Proxy<'_> {
        Proxy::start(self, "gateway", [], arguments, listeners)
    }

    /// The same with these variables, such as those of an identity.
    pub fn gateway_of(
        &self,
        variables: impl IntoIterator<Item = (String, String)>,
        arguments: &[&str],
        listeners: usize,
    ) -> Proxy<'_> {
        Proxy::start(self, "gateway", variables, arguments, listeners)
    }

    /// A folder for the test's files, open to all users.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder for temporary files of programs; it must be empty at the end.
    pub fn temporary(&self) -> PathBuf {
        self.path().join("temporary")
    }

    /// Records a text for the search for tokens.
    pub fn record(&self, who: &str, text: &str) {
        self.said.lock().unwrap().push((who.to_owned(), text.to_owned()));
    }

    /// Records a token, so that parts of it are found.
    pub fn remember(&self, token: &str) {
        self.tokens.lock().unwrap().push(token.to_owned());
    }

    /// Fails if a token is in a recorded text, or in a file below `folder` that is not one of
    /// `except`.
    pub fn assert_no_token(&self, folder: &Path, except: &[PathBuf]) {
        let tokens = self.tokens.lock().unwrap();
        for (who, text) in self.said.lock().unwrap().iter() {
            // not the text itself: the test's own output must not contain a token
            assert_eq!(secrecy::find(text.as_bytes(), &tokens), None, "`{who}` lets a token be read");
        }
        let files = secrecy::files(folder, &tokens, except);
        assert!(files.is_empty(), "a token can be read in {files:?}");
    }

    /// Fails if a file in the folder of temporary files, or a process, is left. What a command has
    /// told to end may take a moment to be gone.
    pub fn assert_nothing_left(&self) {
        eventually_blocking(ENDING, "nothing is left behind", || {
            let files: Vec<_> =
                fs::read_dir(self.temporary()).unwrap().map(|entry| entry.unwrap().path()).collect();
            holds((files, processes(self.path())), |(files, processes)| {
                files.is_empty() && processes.is_empty()
            })
        });
    }

    /// Waits for the end of all processes of this lab.
    pub fn await_processes(&self) {
        eventually_blocking(DEADLINE, "every process ends", || holds(processes(self.path()), Vec::is_empty));
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let own = self.path().join("bin").join(words[0]);
        let program = if own.exists() { own } else { find(words[0]) };
        let prefix = self.prefix.iter().map(PathBuf::from);
        let words: Vec<PathBuf> =
            prefix.chain([program]).chain(words[1..].iter().map(PathBuf::from)).collect();
        let mut command = Command::new(find(words[0].to_str().unwrap()));
        command
            .args(&words[1..])
            .env_clear()
            .env("PATH", format!("{}:{SEARCH_PATH}", self.path().join("bin").display()))
            .env("HOME", self.path().join("home"))
            .env("TMPDIR", self.temporary())
            .env("LANG", "C.UTF-8")
            .env("RUST_BACKTRACE", "1")
            .current_dir(self.path().join("home"));
        command
    }
}

/// Does not show recorded texts or tokens.
impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab")
            .field("folder", &self.path())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Default for Lab {
    fn default() -> Lab {
        Lab::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_no_token(self.path(), &[]);
            self.assert_nothing_left();
        }
    }
}

/// The user id of `nobody` on Linux.
const UNPRIVILEGED: u32 = 65534;
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The path of a program, independent of the PATH that the test sets.
fn find(program: &str) -> PathBuf {
    let places = SEARCH_PATH.split(':').map(|folder| Path::new(folder).join(program));
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| program.into())
}

fn open(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}
