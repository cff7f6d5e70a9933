//! Who belongs to a command: the processes of its group, as `/proc` has them, and those that come to us when their parent ends.

use std::fs;

use rustix::process::{Pid, WaitOptions, getpid, wait};

/// `__WNOTHREAD`: only children of the calling thread.
const OWN_THREAD: WaitOptions = WaitOptions::from_bits_retain(0x2000_0000);

/// Is this process 1, of a container for example? Then every orphan becomes its child, also one that left its command's group.
pub fn is_init() -> bool {
    getpid().is_init()
}

/// Reaps the orphans that ended. To be called on the main thread, to which the kernel gives them. The shells are children of the threads that
/// started them, so their ends are taken from nobody.
pub fn reap_orphans() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG | OWN_THREAD) {}
}

/// Does anybody of this process group live? A zombie that its parent (a careless process 1) does not reap is dead, though a signal still reaches it.
pub(super) fn group_lives(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let is_process = process.file_name().as_encoded_bytes()[0].is_ascii_digit();
        is_process
            && fs::read(process.path().join("stat"))
                .is_ok_and(|stat| is_live_member(&String::from_utf8_lossy(&stat), group))
    })
}

/// Reads a line of `/proc/<pid>/stat`: `pid (name) state parent group …`, where the name may hold anything, brackets and spaces too.
pub(super) fn is_live_member(stat: &str, group: Pid) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = rest.split(' ');
    let state = fields.next();
    !matches!(state, Some("Z" | "X"))
        && fields.nth(1).and_then(|text| text.parse().ok()) == Some(group.as_raw_nonzero().get())
}
