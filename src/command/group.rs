//! Who belongs to a command: the processes of its group, as `/proc` has them, and those that come to us when their parent ends.

use std::fs;
use std::path::Path;

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
            && Stat::read(&process.path())
                .is_some_and(|stat| stat.lives && stat.group == group.as_raw_nonzero().get())
    })
}

/// What `/proc/<pid>/stat` says of where a process belongs.
#[derive(PartialEq, Debug)]
pub(super) struct Stat {
    /// It is no zombie.
    pub lives: bool,
    pub group: i32,
    /// 0 where it began outside our container.
    pub session: i32,
}

impl Stat {
    /// Of the process with this folder.
    pub fn read(process: &Path) -> Option<Stat> {
        let line = fs::read(process.join("stat")).ok()?;
        Stat::parse(&String::from_utf8_lossy(&line))
    }

    /// Reads `pid (name) state parent group session …`, where the name may hold anything, brackets and spaces too.
    pub fn parse(line: &str) -> Option<Stat> {
        let (_, rest) = line.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        Some(Stat {
            lives: !matches!(state, "Z" | "X"),
            group: fields.nth(1)?.parse().ok()?,
            session: fields.next()?.parse().ok()?,
        })
    }
}
