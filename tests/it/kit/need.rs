//! What a test needs of its machine. What is not there is said, by the test's name, and the test passes without having tested anything; where it must be
//! there (`CI=true`, `DOCKER_CACHE_TESTS=required`) the test fails instead.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Returns from the test unless the machine has all of these: `need!(redis, docker)`.
macro_rules! need {
    ($($what:ident),+) => {
        $(if !$crate::kit::need::$what() { return; })+
    };
}
pub(crate) use need;

/// A `redis-server` to start.
pub fn redis() -> bool {
    met(
        has("redis-server"),
        "no redis-server in the PATH (apt-get install redis-server)",
    )
}

/// The machine's own engine answers us, and there is a busybox to make an image of.
pub fn docker() -> bool {
    met(
        succeeds("docker", &["version"]),
        "no Docker engine answers (apt-get install docker.io, and root or the group docker)",
    ) && busybox()
}

/// Engines of our own can be started.
pub fn dockerd() -> bool {
    let root = rustix::process::geteuid().is_root();
    met(root, "a private dockerd needs root")
        && met(
            has("dockerd") && has("docker"),
            "no dockerd and docker in the PATH (apt-get install docker.io)",
        )
        && busybox()
}

/// Podman can serve the Docker API.
pub fn podman() -> bool {
    let root = rustix::process::geteuid().is_root();
    met(
        root && has("podman"),
        "no podman in the PATH, or not root (apt-get install podman)",
    ) && busybox()
}

/// The load balancer of the README's use case, and what reads JSON there.
pub fn haproxy() -> bool {
    met(
        has("haproxy") && has("jq"),
        "no haproxy and jq in the PATH (apt-get install haproxy jq)",
    )
}

/// A systemd of the test's own can be started, in namespaces of its own.
pub fn systemd() -> bool {
    met(
        super::systemd::is_here(),
        "no systemd can be started in namespaces (apt-get install systemd; root; a kernel or container that allows `unshare`)",
    )
}

/// A control group with a limit of memory can be made.
pub fn memory_group() -> bool {
    met(
        super::memory::MemoryGroup::of(64 << 20).is_some(),
        "no control group with a limit of memory can be made (root, and a writable /sys/fs/cgroup)",
    )
}

/// A static busybox.
fn busybox() -> bool {
    met(
        Path::new("/bin/busybox").exists(),
        "no static /bin/busybox (apt-get install busybox-static)",
    )
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn met(met: bool, why: &str) -> bool {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    if met {
        return true;
    }
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    assert!(
        !is("CI", "true") && !is("DOCKER_CACHE_TESTS", "required"),
        "this test must run here, but: {why}"
    );
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let current = std::thread::current();
    let test = current.name().unwrap_or("a test");
    // Straight to stderr: what goes through the test harness is shown of failed tests only.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {test}: {why} ({count} skipped so far)"
    );
    false
}
