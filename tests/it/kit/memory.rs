//! A control group that limits the memory of its members.

use std::path::{Path, PathBuf};

use super::unique;

/// A group of the test's own.
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// With so many bytes; `None` where the machine lets us make none.
    pub fn of(bytes: usize) -> Option<MemoryGroup> {
        // The first is the old tree of groups, the second the new one.
        for (tree, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = MemoryGroup(Path::new(tree).join(unique("dct")));
            let limited = std::fs::create_dir(&group.0)
                .and_then(|()| std::fs::write(group.0.join(limit), bytes.to_string()));
            if limited.is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// What a shell is to do to become a member.
    pub fn enter(&self) -> String {
        format!("echo $$ >{}/cgroup.procs", self.0.display())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It was empty or never made.
        let _ = std::fs::remove_dir(&self.0);
    }
}
