//! A systemd of the test's own: the real one, as the first process of namespaces of its own, which knows one service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::TempDir;
use super::agent::Agent;
use super::process::Process;

const PROGRAM: &str = "/lib/systemd/systemd";

/// What the service may write below, as it sees it: nothing else of the machine is there for it.
const SEEN: &str = "/mnt";

/// Prepares the namespaces and becomes systemd. It has its own `/run` and its own tree of control groups, and touches no setting of the kernel. Mounts
/// are shared with the namespaces below it alone: the service's credentials, of which there are none, come that way.
const BOOT: &str = r#"
mount --make-rprivate /
mount --make-rshared /
mount -t tmpfs none /run
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
if [ -d /sys/fs/cgroup/systemd ]; then
    umount -l /sys/fs/cgroup
    mount -t tmpfs none /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd none /sys/fs/cgroup/systemd
else
    umount -l /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
exec env -i container=test PATH="$PATH" SYSTEMD_UNIT_PATH="$1" "$2" --system --unit=docker-cache.service --log-target=null --show-status=0
"#;

/// It ends with all that it started when it is dropped.
pub struct Systemd {
    process: Process,
    folder: TempDir,
}

/// Can there be one here?
pub fn is_here() -> bool {
    let unshare = Command::new("unshare")
        .args(["-mpfiuC", "--mount-proc", "true"])
        .output();
    Path::new(PROGRAM).exists() && unshare.is_ok_and(|output| output.status.success())
}

impl Systemd {
    /// Starts the agent by the unit that is installed, with these arguments. `fault` in its folder is what `DOCKER_CACHE_TEST_FAULT` names.
    pub fn start(args: &[String]) -> Systemd {
        Systemd::start_beside(args, &[])
    }

    /// The same with files that the service sees in [`SEEN`].
    pub fn start_beside(args: &[String], files: &[(&str, &str)]) -> Systemd {
        let folder = TempDir::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        let units = folder.join("units");
        let more = units.join("docker-cache.service.d");
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/docker-cache.service");
        // Only what must be other here: where the program is, what there is to wait for, where the log goes.
        let text = format!(
            "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=\nExecStart={SEEN}/docker-cache {}\nSupplementaryGroups=\n\
             BindPaths={}:{SEEN}\nEnvironment=DOCKER_CACHE_TEST_FAULT={SEEN}/fault\nStandardError=append:{}\n",
            args.join(" "),
            folder.path().display(),
            folder.join("log").display(),
        );
        fs::create_dir_all(&more)
            .and_then(|()| fs::copy(unit, units.join("docker-cache.service")))
            .and_then(|_| fs::write(more.join("test.conf"), text))
            .and_then(|()| fs::copy(Agent::PROGRAM, folder.join("docker-cache")))
            // The service has a user of its own.
            .and_then(|_| fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)))
            .unwrap_or_else(|error| panic!("failed to lay out units: {error}"));
        let mut command = Command::new("unshare");
        command
            .args(["-mpfiuC", "--mount-proc", "--kill-child", "sh", "-ec", BOOT])
            .arg("sh")
            .arg(units)
            .arg(PROGRAM);
        Systemd {
            process: Process::start(&mut command),
            folder,
        }
    }

    /// Writes one of these files anew.
    pub fn write(&self, name: &str, text: &str) {
        self.folder.write(name, text);
    }

    /// `systemctl` with these words: how it ended and what it said.
    pub fn ctl(&self, words: &[&str]) -> (bool, String) {
        // systemd is the one child of what made its namespaces.
        let unshare = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let first = children.unwrap_or_default();
        let output = Command::new("nsenter")
            .args(["-m", "-p", "-t", first.trim(), "systemctl"])
            .args(words)
            .output();
        output.map_or_else(
            |error| (false, error.to_string()),
            |output| {
                let said = [output.stdout, output.stderr].concat();
                (
                    output.status.success(),
                    String::from_utf8_lossy(&said).into_owned(),
                )
            },
        )
    }

    /// All that the service wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// From now on the first thread of this name to work fails so.
    pub fn order(&self, fault: &str) {
        let draft = self.folder.write("draft", fault);
        fs::rename(draft, self.folder.join("fault"))
            .unwrap_or_else(|error| panic!("failed to order `{fault}`: {error}"));
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the service wrote:\n{}---", self.log());
        }
    }
}
