use std::fmt;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::secret::SecretBuffer;
use crate::{Env, Files, span};

/// No command prints more than this of a token and its surroundings.
const MAX_OUTPUT: u64 = 1024 * 1024;

/// Where programs are run: on this machine, nowhere, or in a function. Cheap to clone.
#[derive(Clone)]
pub struct Processes(Backend);

#[derive(Clone)]
enum Backend {
    System,
    Scripted(Arc<Responder>),
}

type Responder = dyn Fn(&Invocation) -> io::Result<Finished> + Send + Sync;

/// A program to run, with its arguments; no shell is involved. `Debug` shows the program alone: arguments may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The program, found on the `PATH`.
    pub program: String,
    /// The arguments after the program name.
    pub arguments: Vec<String>,
    /// Variables set for it beside the environment's.
    pub variables: Vec<(String, String)>,
    /// The folder it runs in; default: the current one.
    pub folder: Option<String>,
}

/// Exit code and output of a program.
#[derive(Clone)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output. Overwritten when dropped.
    pub stdout: Zeroizing<Vec<u8>>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl Processes {
    /// Runs the programs that are installed on this machine.
    pub fn real() -> Self {
        Self(Backend::System)
    }

    /// Reports every program as not installed; for tests.
    pub fn none() -> Self {
        Self::scripted(|_| Err(io::ErrorKind::NotFound.into()))
    }

    /// Every call is answered by this function.
    pub fn scripted(answer: impl Fn(&Invocation) -> io::Result<Finished> + Send + Sync + 'static) -> Self {
        Self(Backend::Scripted(Arc::new(answer)))
    }

    /// Is this program installed? On this machine: is a file of that name in a folder of the `PATH`? Nothing is started.
    pub fn has(&self, program: &str, env: &Env, files: &Files) -> bool {
        match &self.0 {
            Backend::Scripted(answer) => {
                let call = Invocation {
                    program: program.to_owned(),
                    arguments: Vec::new(),
                    variables: Vec::new(),
                    folder: None,
                };
                !answer(&call).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            }
            Backend::System => {
                let path = env.get("PATH").unwrap_or_default();
                let names = [program.to_owned(), format!("{program}.exe")];
                std::env::split_paths(&path)
                    .any(|folder| names.iter().any(|name| files.is_file(folder.join(name))))
            }
        }
    }

    /// Runs a program without standard input and waits for its end. Dropping the future kills it.
    ///
    /// # Errors
    /// `NotFound` if it is not installed, `TimedOut` if it takes longer than `limit` (it is then killed), `FileTooLarge`
    /// if it writes more than 1 MiB, and others of the system.
    pub async fn run(&self, call: &Invocation, env: &Env, limit: Duration) -> io::Result<Finished> {
        match &self.0 {
            Backend::Scripted(answer) => answer(call),
            Backend::System => match timeout(limit, run(call, env)).await {
                Ok(result) => result,
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it did not end within {}", span::shown(limit)),
                )),
            },
        }
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Backend::System => "Processes(system)",
            Backend::Scripted(_) => "Processes(scripted)",
        })
    }
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invocation({}, {} arguments)", self.program, self.arguments.len())
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finished({:?}, {} bytes)", self.code, self.stdout.len())
    }
}

async fn run(call: &Invocation, env: &Env) -> io::Result<Finished> {
    let mut command = Command::new(&call.program);
    if let Some(variables) = env.for_child() {
        command.env_clear().envs(variables);
    }
    if let Some(folder) = &call.folder {
        command.current_dir(folder);
    }
    command.args(&call.arguments).envs(call.variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = futures_util::future::try_join(read(stdout), read(stderr)).await?;
    let status = child.wait().await?;
    Ok(Finished { code: status.code(), stdout, stderr: stderr.to_vec() })
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut read = SecretBuffer::new();
    let Some(stream) = stream else { return Ok(read.into_bytes()) };
    // Reads one byte more than the limit: then a longer output is detected.
    let length = read.read(&mut stream.take(MAX_OUTPUT + 1)).await?;
    if length as u64 > MAX_OUTPUT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it writes more than 1 MiB"));
    }
    Ok(read.into_bytes())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
    async fn sh(script: &str, variables: &[(&str, &str)], limit: Duration) -> io::Result<Finished> {
        let call = Invocation {
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            variables: vec![("EXTRA".to_owned(), "extra".to_owned())],
            folder: Some("/".to_owned()),
        };
        let path = Env::real().get("PATH").unwrap();
        let env = Env::from_map([("PATH", path.as_str())].into_iter().chain(variables.iter().copied()));
        Processes::real().run(&call, &env, limit).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_program_sees_our_variables_and_no_others() {
        let finished =
            sh("echo $EXTRA-$GIVEN-$CARGO_PKG_NAME-$PWD; exit 3", &[("GIVEN", "given")], LONG).await.unwrap();
        assert_eq!((finished.code, finished.stdout.as_slice()), (Some(3), b"extra-given--/\n".as_slice()));
    }

    #[tokio::test]
    async fn what_a_program_can_do_to_us_is_bounded() {
        let endless =
            sh("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", &[], LONG).await.unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::FileTooLarge);
        let slow = sh("exec sleep 1000", &[], Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(slow.kind(), io::ErrorKind::TimedOut);
        let stdin = sh("cat", &[], LONG).await.unwrap();
        assert_eq!((stdin.code, stdin.stdout.len()), (Some(0), 0));
    }

    #[test]
    fn an_installed_program_is_found_without_being_run() {
        let (env, files) = (Env::real(), Files::real());
        for processes in [Processes::real(), Processes::none()] {
            assert!(!processes.has("no-such-program-here", &env, &files));
        }
        assert!(Processes::real().has("sh", &env, &files));
        assert!(!Processes::real().has("sh", &Env::from_map([("PATH", "/no-such-folder")]), &files));
    }

    #[tokio::test]
    async fn a_missing_program_is_said_to_be_missing() {
        let call = Invocation {
            program: "no-such-program-here".to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            folder: None,
        };
        let error = Processes::real().run(&call, &Env::real(), LONG).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
