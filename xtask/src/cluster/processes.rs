//! The processes of a cluster. One process holds its namespaces; when that ends, the kernel ends all others.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The namespaces: one of processes for the cluster, and one of mounts and one of the network for the control plane and
/// for each node.
pub(crate) struct Namespaces {
    /// The process that made them. It is the parent of the first process in them.
    keeper: u32,
    /// That first process, by its id outside.
    first: u32,
    run: PathBuf,
}

/// Folders in which programs of Kubernetes write whatever they are told. In a namespace they are empty.
const HIDDEN: &str = "for folder in /run /var/lib/kubelet /var/log /var/lib/cni; do
  mkdir -p $folder && mount -t tmpfs none $folder
done
mount --make-rshared /
ip link set lo up";

/// Settings of the kernel that a kubelet changes for the whole machine (`setupKernelTunables` of Kubernetes'
/// `container_manager_linux.go`). Here it changes a file that lies over each.
const SETTINGS: &str = "cd /proc/sys
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
  mkdir -p /run/settings/${setting%/*}
  cat $setting >/run/settings/$setting
  mount --bind /run/settings/$setting $setting
done";

impl Namespaces {
    /// Makes the namespaces of a new run.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new(run: &Path) -> Result<Self> {
        // The shell is the first process, and takes the exit status of each orphan.
        let script =
            format!("set -e\n{HIDDEN}\ntouch \"$0\"\nsleep infinity & while :; do wait -n || :; done");
        let ready = run.join("ready");
        let child = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=KILL",
                "--mount-proc",
                "bash",
                "-c",
                &script,
            ])
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(run.join("keeper.log"))?)
            .process_group(0)
            .spawn()
            .context("cannot run unshare")?;
        let keeper = child.id();
        until("the namespaces are there", || ready.exists())?;
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
        let first = children.split_whitespace().next().context("unshare has a child")?.parse()?;
        super::control_groups::name(run, keeper)?;
        fs::write(run.join("keeper"), format!("{keeper} {} {first}", started(keeper)?))?;
        Ok(Self { keeper, first, run: run.to_owned() })
    }

    /// Those of the cluster that runs.
    ///
    /// # Errors
    /// None runs.
    pub(crate) fn running(run: &Path) -> Result<Self> {
        let text = fs::read_to_string(run.join("keeper")).context("no cluster runs")?;
        let [keeper, start, first] = text.split(' ').collect::<Vec<_>>()[..] else {
            bail!("{} has another form", run.join("keeper").display());
        };
        let keeper = keeper.parse()?;
        // The id may be that of another process by now.
        ensure!(started(keeper).is_ok_and(|now| now == start), "no cluster runs");
        Ok(Self { keeper, first: first.parse()?, run: run.to_owned() })
    }

    /// Ends every process in them, and waits for that.
    ///
    /// # Errors
    /// One does not end.
    pub(crate) fn end(&self) -> Result<()> {
        let first = started(self.first).ok();
        super::parts::checked(Command::new("kill").args(["-KILL", &self.keeper.to_string()]))?;
        // The kernel ends the first process of a namespace last.
        until("every process of the cluster ends", || first.is_none() || started(self.first).ok() != first)
    }

    /// The words before a command that shall run in the namespaces of the control plane.
    pub(crate) fn control_plane(&self) -> Vec<String> {
        let first = self.first.to_string();
        ["nsenter", "--target", &first, "--pid", "--mount", "--net", "--"].map(str::to_owned).to_vec()
    }

    /// The words before a command that shall run in the network of a node, with the machine's files and processes.
    pub(crate) fn on(&self, node: &str) -> Vec<String> {
        let inside = fs::read_to_string(self.run.join(node).join("keeper.pid")).unwrap_or_default();
        let network = format!("--net=/proc/{}/root/proc/{}/ns/net", self.first, inside.trim());
        vec!["nsenter".to_owned(), network, "--".to_owned()]
    }

    /// The words before a command that shall run in all namespaces of a node.
    pub(crate) fn node(&self, node: &str) -> Vec<String> {
        let mut words = self.control_plane();
        let inside = fs::read_to_string(self.run.join(node).join("keeper.pid")).unwrap_or_default();
        words.extend(["nsenter", "--target", inside.trim(), "--mount", "--net", "--"].map(str::to_owned));
        words
    }

    /// Makes the namespaces of a node, and returns the id of the process that holds them, in the namespace of processes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new_node(&self, folder: &Path) -> Result<String> {
        let script = format!("set -e\n{HIDDEN}\n{SETTINGS}\ntouch \"$0\"\nexec sleep infinity");
        let ready = folder.join("ready");
        let words = ["unshare", "--net", "--mount", "bash", "-c", &script, &ready.display().to_string()];
        self.start(&self.control_plane(), folder, "keeper", &words)?;
        until("the namespaces of a node are there", || ready.exists())?;
        Ok(fs::read_to_string(folder.join("keeper.pid"))?.trim().to_owned())
    }

    /// Starts a program behind these words. Its id in the namespace of processes is in `FOLDER/NAME.pid`, its output in
    /// `FOLDER/NAME.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&self, behind: &[String], folder: &Path, name: &str, words: &[&str]) -> Result<()> {
        let file = |extension: &str| folder.join(format!("{name}.{extension}"));
        let output = File::create(file("log"))?;
        // In the background of a shell that ends: its parent is then the first process, which takes its exit status.
        let script = "(echo $BASHPID >\"$0\"; exec \"$@\") &";
        let pid = file("pid").display().to_string();
        let all = [&["bash", "-c", script, &pid], words].concat();
        let started = self
            .command(behind, &all)?
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in this terminal does not reach it.
            .process_group(0)
            .status()
            .with_context(|| format!("cannot start {name}"))?;
        ensure!(started.success(), "cannot start {name} ({started}): see {}", file("log").display());
        Ok(())
    }

    /// Runs a program behind these words to its end, and returns what it wrote to standard output.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn run(&self, behind: &[String], words: &[&str]) -> Result<String> {
        let said = self.command(behind, words)?.output().with_context(|| format!("cannot run {words:?}"))?;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.success(), "{words:?} failed ({}): {error}", said.status);
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }

    fn command(&self, behind: &[String], words: &[&str]) -> Result<Command> {
        let (program, rest) = behind.split_first().context("a command has a program")?;
        let debian = self.run.with_file_name("debian");
        let debian = debian.display();
        let mut command = Command::new(program);
        command.args(rest).args(words).current_dir(&self.run).env_clear();
        // containerd runs runc and its own shim by name; kubelet and kube-proxy run mount and iptables.
        command.env("PATH", format!("{debian}/usr/bin:{debian}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"));
        Ok(command)
    }
}

/// When a process was started, in ticks since the boot: its 22nd field (proc(5)). The name before may contain spaces.
fn started(pid: u32) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("a process has a name")?;
    let mut fields = fields.split_whitespace();
    // A zombie is a process that has ended.
    ensure!(fields.next() != Some("Z"), "it has ended");
    Ok(fields.nth(18).context("a process has a start")?.to_owned())
}

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// A minute of pauses, and longer if an attempt takes long.
const ATTEMPTS: usize = 600;

/// Waits until something holds.
///
/// # Errors
/// It does not within a minute.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..ATTEMPTS {
        if holds() {
            return Ok(());
        }
        std::thread::park_timeout(PAUSE);
    }
    bail!("not within a minute: {what}")
}
