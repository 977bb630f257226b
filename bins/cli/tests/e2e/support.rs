//! Starting, asking and killing the programs.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// How long anything may take before the test gives up. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A program of the workspace, built by the same cargo call as this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_skyloom")).with_file_name(name);
    assert!(
        path.exists(),
        "{} is not built: test the whole workspace, or build it first",
        path.display()
    );
    path
}

/// The bootable guest image, made once.
pub(crate) fn guest_image() -> PathBuf {
    made("guest.qcow2", "guest.qcow2", "tools/guest/make-image.sh")
}

/// The folder with the rescue system, made once: `rescue.qcow2`, `vmlinuz`, `initrd.gz`.
pub(crate) fn rescue_files() -> PathBuf {
    made("rescue", "rescue/vmlinuz", "tools/rescue/make-rescue.sh")
}

/// What `script` makes at `what`; it is whole when `last` is there.
fn made(what: &str, last: &str, script: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = Path::new(env!("CARGO_BIN_EXE_skyloom"))
        .ancestors()
        .nth(2)
        .unwrap()
        .join("guest");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let path = dir.join(what);
    if !dir.join(last).exists() {
        let status = Command::new(root.join(script)).arg(&path).status().unwrap();
        assert!(status.success(), "{script} failed");
    }
    path
}

/// A running program; dropped means killed.
pub(crate) struct Process {
    child: Child,
    name: String,
    pub(crate) lines: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(name: &str, args: &[&str], log: &Path) -> Self {
        Self::doomed(name, args, log, "")
    }

    /// A program that dies at the crash points that `failpoints` names.
    pub(crate) fn doomed(name: &str, args: &[&str], log: &Path, failpoints: &str) -> Self {
        let stderr = File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(program(name))
            .args(args)
            // A killed program cannot tidy up: what it leaves goes with the test's own folder.
            .env("TMPDIR", log.parent().unwrap())
            .env_remove("SKYLOOM_ENDPOINT")
            .env_remove("SKYLOOM_TOKEN")
            .env("FAILPOINTS", failpoints)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .for_each(|line| drop(sender.send(line)))
        });
        Self {
            child,
            name: name.to_owned(),
            lines,
            log: log.to_owned(),
        }
    }

    /// Waits for a line of standard output that begins with `start`, and gives the rest of it.
    pub(crate) fn line(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
        panic!(
            "{} never said {start:?}; its log:\n{}",
            self.name,
            self.log_text()
        );
    }

    /// The end of its log.
    pub(crate) fn log_text(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits until it has died by itself of kill -9.
    #[cfg(feature = "failpoints")]
    pub(crate) fn died(mut self, why: &str) {
        let status = until(why, || self.child.try_wait().unwrap());
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{why}: {status}");
    }

    /// Stops it where it stands, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What the kernel tells of it.
    pub(crate) fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.id()))
    }

    /// Asks it to end, and waits.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        self.child.wait().unwrap();
    }

    /// kill -9, and gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.log_text());
        }
    }
}

/// The command line, pointed at one cloud.
pub(crate) struct Sky {
    pub(crate) endpoint: String,
    pub(crate) token: String,
}

impl Sky {
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_skyloom"))
            .args(args)
            .env("SKYLOOM_ENDPOINT", &self.endpoint)
            .env("SKYLOOM_TOKEN", &self.token)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command that must work, with `-o json`.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.try_json(args).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Runs a command with `-o json`, to be asked again when it does not work now.
    pub(crate) fn try_json(&self, args: &[&str]) -> Result<Value, String> {
        let text = self.try_text(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|e| format!("skyloom {args:?}: {e} in {text}"))
    }

    pub(crate) fn text(&self, args: &[&str]) -> String {
        self.try_text(args).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Runs a command, to be asked again when it does not work now.
    pub(crate) fn try_text(&self, args: &[&str]) -> Result<String, String> {
        let output = self.output(args);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("skyloom {args:?}: {:?}\n{stderr}", output.status))
    }

    /// Asks again and again until the answer satisfies.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        until(what, || look(self))
    }

    /// Waits until the task has ended and gives its state.
    pub(crate) fn task_end(&self, id: &str) -> Value {
        self.until("the task's end", |sky| {
            let output = sky.output(&["task", "show", id, "-o", "json"]);
            let task: Value = serde_json::from_slice(&output.stdout).ok()?;
            let task = task.get("task").cloned().unwrap_or(task);
            ["done", "failed", "cancelled", "stuck"]
                .contains(&task["state"].as_str()?)
                .then_some(task)
        })
    }
}

/// A whole cloud in one process, with one host for real guests.
pub(crate) fn dev(data: &Path, log: &Path) -> (Process, Sky) {
    let data = data.to_str().unwrap();
    let process = Process::start(
        "skyloom",
        &["dev", "--data-dir", data, "--listen", "127.0.0.1:0"],
        log,
    );
    let endpoint = process.line("SKYLOOM_ENDPOINT=");
    let token = process.line("SKYLOOM_TOKEN=");
    (process, Sky { endpoint, token })
}

/// Registers an image and waits for its content.
pub(crate) fn import(sky: &Sky, name: &str, format: &str, file: &Path) {
    let file = file.to_str().unwrap();
    sky.json(&[
        "image", "import", "--name", name, "--format", format, "--file", file, "--wait",
    ]);
}

/// Polls an outside process until it satisfies, with patience.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The pids of the QEMU processes whose records lie below `dir`.
pub(crate) fn guests(dir: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.file_name().is_some_and(|n| n == "live.json") {
                let live: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
                found.extend(
                    live["run"]["process"]["pid"]
                        .as_i64()
                        .map(|p| p as i32)
                        .filter(|p| alive(*p)),
                );
            }
        }
    }
    found
}

pub(crate) fn alive(pid: i32) -> bool {
    let dead = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "));
    Pid::from_raw(pid).is_some_and(|p| test_kill_process(p).is_ok()) && !dead
}

/// Kills what a failed test left running.
pub(crate) struct Sweep(pub(crate) PathBuf);

impl Drop for Sweep {
    fn drop(&mut self) {
        for pid in guests(&self.0) {
            let _ = Pid::from_raw(pid).map(|p| kill_process(p, Signal::KILL));
        }
    }
}
