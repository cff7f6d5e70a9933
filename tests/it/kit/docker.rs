//! Real engines: private ones that may be killed, frozen and restarted, and the machine's own, where a test touches only what it made itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::process::{Process, run, try_run};
use super::{TempDir, unique, wait_until};
use crate::engine::http::Place;

/// An engine as a client sees it.
pub struct Docker {
    /// `unix:///…`
    pub url: String,
    /// An image with busybox in it, made for this helper.
    pub image: String,
    /// Every container of this helper has this label (`name=value`).
    pub label: String,
    /// Every name that this helper gives begins so.
    pub prefix: String,
}

impl Docker {
    fn new(url: &str) -> Docker {
        let prefix = unique("dct");
        Docker {
            url: url.into(),
            image: format!("{prefix}:test"),
            label: format!("docker-cache-test={prefix}"),
            prefix: format!("{prefix}-"),
        }
    }

    /// Runs the Docker client; the test fails when it fails. Answers what it wrote, without the last newline.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs the Docker client.
    pub fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        let all: Vec<&str> = ["-H", &self.url].iter().chain(args).copied().collect();
        try_run("docker", &all).map(|text| text.trim_end().to_owned())
    }

    /// `docker run -d` of busybox, with options before the image: answers the full id. Without a command it sleeps, and ends at once when stopped.
    #[track_caller]
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        let name = format!("{}{name}", self.prefix);
        let mut args = vec!["run", "-d", "--name", &name, "--label", &self.label];
        args.extend(options);
        args.push(&self.image);
        if command.is_empty() {
            args.extend([
                "sh",
                "-c",
                "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done",
            ]);
        }
        args.extend(command);
        self.docker(&args)
    }

    /// What `docker ps` shows of all, full ids.
    #[track_caller]
    pub fn running(&self) -> BTreeSet<String> {
        self.ids(&["ps", "-q", "--no-trunc"])
    }

    /// What `docker ps` shows of this helper's own, full ids.
    #[track_caller]
    pub fn own_running(&self) -> BTreeSet<String> {
        self.ids(&[
            "ps",
            "-q",
            "--no-trunc",
            "--filter",
            &format!("label={}", self.label),
        ])
    }

    /// Where to ask it without the Docker client.
    pub fn place(&self) -> Place {
        Place::parse(&self.url).unwrap_or_else(|| panic!("no place: `{}`", self.url))
    }

    #[track_caller]
    fn ids(&self, args: &[&str]) -> BTreeSet<String> {
        self.docker(args).lines().map(str::to_owned).collect()
    }

    /// Makes the image: a static busybox and links to it.
    #[track_caller]
    fn import(&self) {
        let root = TempDir::new();
        let bin = root.join("bin");
        let made = fs::create_dir(&bin)
            .and_then(|()| fs::copy("/bin/busybox", bin.join("busybox")))
            .and_then(|_| {
                [
                    "sh", "sleep", "true", "false", "echo", "cat", "kill", "test",
                ]
                .iter()
                .try_for_each(|name| std::os::unix::fs::symlink("busybox", bin.join(name)))
            });
        made.unwrap_or_else(|error| panic!("failed to lay out an image: {error}"));
        let script = r#"tar -C "$1" -c . | docker -H "$2" import - "$3""#;
        let root = root.path().to_string_lossy().into_owned();
        run("sh", &["-ec", script, "sh", &root, &self.url, &self.image]);
    }

    fn remove_own(&self) {
        let label = format!("label={}", self.label);
        let containers = self.try_docker(&["ps", "-aq", "--filter", &label]);
        let networks = self.try_docker(&["network", "ls", "-q", "--filter", &label]);
        let remove = |command: &[&str], ids: Result<String, String>| {
            let ids = ids.unwrap_or_default();
            let ids: Vec<&str> = ids.lines().collect();
            if !ids.is_empty() {
                let args: Vec<&str> = command.iter().chain(&ids).copied().collect();
                if let Err(error) = self.try_docker(&args) {
                    eprintln!("--- left behind: {error}");
                }
            }
        };
        remove(&["rm", "-fv"], containers);
        remove(&["network", "rm"], networks);
    }
}

/// The machine's own engine. Only containers with this helper's label are ever touched; they go with it, and its image too.
pub struct Machine {
    /// The client's side.
    pub docker: Docker,
}

impl Machine {
    /// What `DOCKER_HOST` names, else the usual socket.
    #[track_caller]
    pub fn get() -> Machine {
        let url = std::env::var("DOCKER_HOST")
            .ok()
            .filter(|url| !url.is_empty());
        let docker = Docker::new(&url.unwrap_or("unix:///var/run/docker.sock".into()));
        docker.import();
        Machine { docker }
    }

    /// The filter that makes an agent see only this helper's containers: `--filter label=…`.
    pub fn filter(&self) -> String {
        format!("label={}", self.docker.label)
    }

    /// A network of one's own; it goes with the helper.
    #[track_caller]
    pub fn network(&self, name: &str) -> String {
        let name = format!("{}{name}", self.docker.prefix);
        self.docker
            .docker(&["network", "create", "--label", &self.docker.label, &name]);
        name
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.docker.remove_own();
        if let Err(error) = self.docker.try_docker(&["rmi", "-f", &self.docker.image]) {
            eprintln!("--- left behind: {error}");
        }
    }
}

/// A private `dockerd`: no bridge, no iptables, its own containerd and a network namespace of its own, since a dockerd without a bridge removes the
/// machine's `docker0` when it starts. Run its containers with `--net none` (that is the default here).
pub struct Dockerd {
    /// The client's side.
    pub docker: Docker,
    /// `None` while it is down.
    process: Option<Process>,
    program: PathBuf,
    folder: TempDir,
}

impl Dockerd {
    /// Starts the machine's dockerd, whose containers die with it.
    #[track_caller]
    pub fn start() -> Dockerd {
        Dockerd::start_with(Path::new("dockerd"), false)
    }

    /// Starts the machine's dockerd, whose containers outlive it.
    #[track_caller]
    pub fn live_restore() -> Dockerd {
        Dockerd::start_with(Path::new("dockerd"), true)
    }

    /// Starts this dockerd.
    #[track_caller]
    pub fn start_with(program: &Path, live_restore: bool) -> Dockerd {
        let folder = TempDir::new();
        let config = json!({
            // The storage that the machine's own engine uses works here; the default may not (overlay on overlay).
            "storage-driver": storage_driver(),
            "live-restore": live_restore,
            "data-root": folder.join("data"),
            "exec-root": folder.join("exec"),
            "pidfile": folder.join("pid"),
            "hosts": [format!("unix://{}", folder.join("d").display())],
            "bridge": "none",
            "iptables": false,
            "ip6tables": false,
            "shutdown-timeout": 2,
        });
        folder.write("config.json", &config.to_string());
        let docker = Docker::new(&format!("unix://{}", folder.join("d").display()));
        let mut dockerd = Dockerd {
            docker,
            process: None,
            program: program.into(),
            folder,
        };
        dockerd.restart();
        dockerd.docker.import();
        dockerd
    }

    /// `docker run -d --net none` of busybox; see [`Docker::run`].
    #[track_caller]
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        let all: Vec<&str> = ["--net", "none"].iter().chain(options).copied().collect();
        self.docker.run(name, &all, command)
    }

    /// Starts it again after [`Dockerd::stop`] or [`Dockerd::kill9`]; or stops it first.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        // In a network of its own: an engine without a bridge deletes `docker0`, whosever it is.
        // It replaces itself by dockerd: the process stays the one that is signalled.
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--"])
            .arg(&self.program)
            .arg("--config-file")
            .arg(self.folder.join("config.json"));
        let process = self.process.insert(Process::start(&mut command));
        let mut last = String::new();
        let docker = &self.docker;
        wait_until(Duration::from_secs(60), "dockerd answers", || {
            if let Some(status) = process.exited() {
                panic!("dockerd ended ({status}):\n{}", process.log());
            }
            last = docker.try_docker(&["version"]).err().unwrap_or_default();
            last.is_empty().then_some(()).ok_or(last.clone())
        });
    }

    /// Stops it as systemd does.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Duration::from_secs(20));
        }
    }

    /// Kills it, and its containerd with it; its containers run on until it is started again.
    pub fn kill9(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        process.kill9();
        // The kernel ends containerd when dockerd is killed; the next dockerd must not find it half dead.
        let file = self.folder.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(file).unwrap_or_default();
        let Ok(pid) = pid.trim().parse::<i32>() else {
            return;
        };
        let folder = self.folder.path().to_string_lossy().into_owned();
        if read_process(pid).is_some_and(|process| process.command.contains(&folder)) {
            kill(pid);
        }
        wait_until(Duration::from_secs(10), "containerd is gone", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
    }

    /// Stops its time: it accepts and does not answer.
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.signal(Signal::STOP);
        }
    }

    /// Lets its time go on.
    pub fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.signal(Signal::CONT);
        }
    }

    /// What dockerd wrote.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or(String::new(), Process::log)
    }

    /// The process of one of its containers; to be asked while dockerd is there.
    #[track_caller]
    pub fn pid_of(&self, id: &str) -> i32 {
        let text = self
            .docker
            .docker(&["inspect", "--format", "{{.State.Pid}}", id]);
        text.parse()
            .unwrap_or_else(|error| panic!("no process: `{text}`: {error}"))
    }

    /// Kills a container's process, which the engine need not be there to see.
    pub fn kill_container(&self, pid: i32) {
        assert!(pid > 1, "process {pid} is none of a container");
        kill(pid);
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.thaw();
        if self.process.is_some() {
            self.docker.remove_own();
        }
        self.stop();
        // What outlived it: shims (their command names our folder), what they started, and a containerd whose dockerd was killed.
        let folder = self.folder.path().to_string_lossy().into_owned();
        let ours = |process: &Proc| process.command.contains(&folder);
        let all = processes();
        let mut pids: Vec<i32> = all
            .iter()
            .filter(|process| ours(process))
            .map(|process| process.pid)
            .collect();
        for process in &all {
            if pids.contains(&process.parent) && !pids.contains(&process.pid) {
                pids.push(process.pid);
            }
        }
        pids.into_iter().for_each(kill);
        wait_until(
            Duration::from_secs(10),
            "what dockerd started is gone",
            || !processes().iter().any(ours),
        );
        for mount in mounts_below(&folder) {
            if let Err(error) = try_run("umount", &["-l", &mount]) {
                eprintln!("--- left behind: {error}");
            }
        }
    }
}

struct Proc {
    pid: i32,
    parent: i32,
    command: String,
}

/// All processes but this one.
fn processes() -> Vec<Proc> {
    let own = std::process::id() as i32;
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter_map(read_process)
        .collect()
}

fn read_process(pid: i32) -> Option<Proc> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    // A zombie is over; whoever started it will see to it.
    if fields.next()? == "Z" {
        return None;
    }
    Some(Proc {
        pid,
        parent: fields.next()?.parse().ok()?,
        command: fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .replace('\0', " "),
    })
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Mounts below a folder, the innermost first.
fn mounts_below(folder: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut mounts: Vec<String> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| path.starts_with(folder))
        .map(str::to_owned)
        .collect();
    mounts.sort_by_key(|path| std::cmp::Reverse(path.len()));
    mounts
}

fn storage_driver() -> String {
    let told = fs::read_to_string("/etc/docker/daemon.json")
        .ok()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .and_then(|config| Some(config.get("storage-driver")?.as_str()?.to_owned()));
    let asked = || {
        let text = try_run("docker", &["info", "--format", "{{.Driver}}"]).ok()?;
        Some(text.trim().to_owned()).filter(|driver| !driver.is_empty())
    };
    told.or_else(asked).unwrap_or("vfs".into())
}
