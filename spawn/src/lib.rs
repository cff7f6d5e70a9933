//! Starts a program as `posix_spawn` does: by a child that shares the memory of its parent, whose thread waits until the child is another program.
//!
//! Why not `posix_spawn`: musl's holds a lock of the whole process until then. A directory or a shell on a network that hangs would keep all other
//! commands from starting, and on a busy machine those that wait for the lock leave a processor idle. Nor can `posix_spawn` change the user; std forks
//! for that, which takes 50 ms in a large process.
//!
//! A package of its own, since the agent's has no unsafe code.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

// On machines of 32 bits the plain ones know 16 bits of a number.
#[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
use libc::{SYS_setgid as SYS_SETGID, SYS_setgroups as SYS_SETGROUPS, SYS_setuid as SYS_SETUID};
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
use libc::{
    SYS_setgid32 as SYS_SETGID, SYS_setgroups32 as SYS_SETGROUPS, SYS_setuid32 as SYS_SETUID,
};

/// What the child's few calls need, many times over; in units of 16 bytes, to which a stack is aligned.
const STACK: usize = 1024;

/// A program, and what it is started with. All other descriptors must be closed by `exec`, as those of std are.
#[derive(Debug)]
pub struct Program<'a> {
    /// Where it stands; nothing is searched for. A relative path is relative to `directory`.
    pub path: &'a CStr,
    /// The first is the name that it is told of itself.
    pub arguments: &'a [CString],
    /// `NAME=value`, all of them.
    pub environment: &'a [CString],
    /// Where it runs, if not where its parent does.
    pub directory: Option<&'a CStr>,
    /// As whom it runs, if not as its parent.
    pub user: Option<User>,
    /// Its standard input; like `output` none of the first three descriptors, which it takes the place of.
    pub input: BorrowedFd<'a>,
    /// Its standard output and its standard error.
    pub output: BorrowedFd<'a>,
}

/// A user and a group by their numbers; no other group goes with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// The user's.
    pub user: u32,
    /// The group's.
    pub group: u32,
}

/// Starts a program in a process group of its own, which has its number. No signal is blocked in it, and none ignored that its parent does not ignore
/// (SIGPIPE, which every program of Rust ignores, is not). Whoever calls this has to wait for it, and has installed its handlers of signals before the
/// first call.
///
/// # Errors
/// It could not be started: any of the steps to it failed, and nothing runs.
pub fn spawn(program: &Program<'_>) -> io::Result<Pid> {
    let arguments = pointers(program.arguments);
    let environment = pointers(program.environment);
    let mut start = Start {
        path: program.path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        directory: program.directory.map_or(ptr::null(), CStr::as_ptr),
        user: program.user,
        streams: [&program.input, &program.output, &program.output].map(AsRawFd::as_raw_fd),
        signals: signals_to_reset(),
        error: 0,
    };
    debug_assert!(start.streams.iter().all(|stream| *stream > 2));
    let mut stack = Box::<[u128]>::new_uninit_slice(STACK);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let blocked = block_signals();
    // SAFETY: the stack grows downwards from its end. It, `start` and all that `start` points to live until this thread goes on, which is when the child
    // has left this memory by `execve` or `_exit`. `child` does only what may be done in there, and meets no handler of a signal: they are blocked, but
    // for SIGCHLD, which has none.
    let pid = unsafe {
        let top = stack.as_mut_ptr_range().end;
        libc::clone(child, top.cast(), flags, (&raw mut start).cast())
    };
    let failure = io::Error::last_os_error();
    unblock_signals(&blocked);
    let pid = Pid::from_raw(pid.max(0)).ok_or(failure)?;
    if start.error != 0 {
        // It has ended, or is about to.
        let interrupted =
            || waitpid(Some(pid), WaitOptions::empty()).is_err_and(|it| it == Errno::INTR);
        while interrupted() {}
        return Err(io::Error::from_raw_os_error(start.error));
    }
    Ok(pid)
}

/// What the child reads of its parent's memory, and writes there.
struct Start {
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// Null: where the parent is.
    directory: *const c_char,
    user: Option<User>,
    streams: [c_int; 3],
    /// To be reset.
    signals: &'static [c_int],
    /// Why it did not become the program; 0 as long as nothing failed.
    error: c_int,
}

/// As `execve` wants a list.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let texts = texts.iter().map(|text| text.as_ptr());
    texts.chain([ptr::null()]).collect()
}

/// Blocks all signals but SIGCHLD for this thread; returns those that were blocked before.
///
/// The parent does nothing about SIGCHLD, so the kernel throws it away; unless the thread whose child has ended blocks it, for then it wakes another
/// thread and interrupts what that one waits for.
fn block_signals() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: the sets are ours to write, and the first is filled before it is read. None of these calls fails for what it is given here.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigdelset(all.as_mut_ptr(), libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn unblock_signals(before: &libc::sigset_t) {
    // SAFETY: a set that the system wrote.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) };
}

/// The child's life, in its parent's memory: no allocation, no lock, no panic, and nothing of libc that does more than its system call.
extern "C" fn child(start: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its `Start`, which nobody else touches meanwhile.
    unsafe {
        let start = &mut *start.cast::<Start>();
        // Of what follows only a failure returns.
        become_program(start);
        start.error = *libc::__errno_location();
        libc::_exit(127)
    }
}

/// # Safety
/// To be called by the child alone.
unsafe fn become_program(start: &Start) {
    let fails = |result: c_int| result < 0;
    // SAFETY: all pointers are of `Start`, and alive; the set of signals is written before it is read.
    unsafe {
        reset_signals(start.signals);
        if fails(libc::setpgid(0, 0)) {
            return;
        }
        for (stream, descriptor) in (0..).zip(start.streams) {
            if fails(libc::dup2(descriptor, stream)) {
                return;
            }
        }
        if let Some(User { user, group }) = start.user {
            // Those of libc change all threads, which here are the parent's. Linux now lets nobody but root look into this memory (it is not
            // "dumpable", see proc(5)), which stays so and keeps that user from the parent's.
            let none = ptr::null::<libc::gid_t>();
            // Who has no right to that and stays who it is keeps its groups, as with std.
            let stays = libc::geteuid() == user && libc::getegid() == group;
            if libc::syscall(SYS_SETGROUPS, 0, none) < 0
                && !(stays && *libc::__errno_location() == libc::EPERM)
            {
                return;
            }
            if libc::syscall(SYS_SETGID, group) < 0 || libc::syscall(SYS_SETUID, user) < 0 {
                return;
            }
        }
        if !start.directory.is_null() && fails(libc::chdir(start.directory)) {
            return;
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve(start.path, start.arguments, start.environment);
    }
}

/// A handler of the parent's must not run in here once signals are let through. `execve` does the rest.
///
/// # Safety
/// To be called by the child alone.
unsafe fn reset_signals(signals: &[c_int]) {
    for signal in signals {
        // SAFETY: an action of zeros is a whole one (SIG_DFL, no flags, an empty mask), and nothing is written here.
        unsafe {
            let own = MaybeUninit::<libc::sigaction>::zeroed();
            libc::sigaction(*signal, own.as_ptr(), ptr::null_mut());
        }
    }
}

/// The signals that a child must not leave as they are: those with a handler, and SIGPIPE. To ask for all of them took 17 to 20 us of each child's start,
/// so it is done once.
fn signals_to_reset() -> &'static [c_int] {
    static SIGNALS: OnceLock<Vec<c_int>> = OnceLock::new();
    let is_handled = |signal: &c_int| {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: the action is read only where the call says that it was written.
        unsafe {
            libc::sigaction(*signal, ptr::null(), action.as_mut_ptr()) == 0
                && !matches!(
                    action.assume_init_ref().sa_sigaction,
                    libc::SIG_DFL | libc::SIG_IGN
                )
        }
    };
    SIGNALS.get_or_init(|| {
        // libc takes a lock to set SIGABRT's action, and nobody handles it.
        let all = (1..=64).filter(|signal| *signal != libc::SIGABRT);
        all.filter(|signal| *signal == libc::SIGPIPE || is_handled(signal))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::thread;

    use rustix::process::WaitStatus;

    use super::*;

    fn text(text: &str) -> CString {
        CString::new(text).expect("no NUL")
    }

    fn wait(pid: Pid) -> WaitStatus {
        let ended = waitpid(Some(pid), WaitOptions::empty()).expect("it is ours");
        ended.expect("it was waited for").1
    }

    /// Runs a shell's command, and tells what it wrote.
    fn run(command: &str, change: impl FnOnce(&mut Program<'_>)) -> io::Result<String> {
        let null = File::open("/dev/null").expect("it is there");
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut program = Program {
            path: c"/bin/sh",
            arguments: &["/bin/sh", "-c", command].map(text),
            environment: &["PATH=/usr/bin:/bin", "GREETING=good day"].map(text),
            directory: None,
            user: None,
            input: null.as_fd(),
            output: writer.as_fd(),
        };
        change(&mut program);
        let pid = spawn(&program)?;
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).expect("it is text");
        assert_eq!(wait(pid).exit_status(), Some(0), "{output}");
        Ok(output)
    }

    fn no_change(_: &mut Program<'_>) {}

    #[test]
    fn it_gets_what_it_is_given_and_nothing_else() {
        let said = run("echo \"$GREETING\"; echo errors >&2; cat", no_change);
        assert_eq!(said.expect("it starts"), "good day\nerrors\n");
        let said = run("cat /proc/$$/environ; :", no_change).expect("it starts");
        assert_eq!(said, "PATH=/usr/bin:/bin\0GREETING=good day\0");
        let said = run("pwd", |program| program.directory = Some(c"/usr/bin"));
        assert_eq!(said.expect("it starts"), "/usr/bin\n");
    }

    #[test]
    fn signals_with_a_handler_are_reset_and_sigpipe() {
        // The runtime of Rust handles these two, to tell of a stack that is full.
        let expected = [libc::SIGBUS, libc::SIGSEGV, libc::SIGPIPE];
        assert_eq!(signals_to_reset(), expected);
    }

    #[test]
    fn it_leads_a_group_of_its_own_and_no_signal_is_blocked_or_ignored() {
        let said = run("exec cat /proc/self/stat", no_change).expect("it starts");
        let fields: Vec<&str> = said.split(' ').collect();
        assert_eq!(fields[0], fields[4], "{said}");
        let said = run("exec cat /proc/self/status", no_change).expect("it starts");
        let ours = std::fs::read_to_string("/proc/self/status").expect("a status");
        let pipe = 1 << (libc::SIGPIPE - 1);
        assert_ne!(signals(&ours, "SigIgn:") & pipe, 0);
        assert_eq!(signals(&said, "SigIgn:"), signals(&ours, "SigIgn:") & !pipe);
        assert_eq!(signals(&said, "SigBlk:"), 0);
    }

    /// A set of signals in a `/proc/<pid>/status`, the first in the lowest bit.
    fn signals(status: &str, set: &str) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        u64::from_str_radix(line.expect("a line").trim(), 16).expect("a number")
    }

    #[test]
    fn the_caller_blocks_what_it_blocked_before() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status");
            signals(&status.expect("a status"), "SigBlk:")
        };
        let before = blocked();
        run(":", no_change).expect("it starts");
        run(":", |program| program.path = c"/nowhere").expect_err("no such program");
        assert_eq!(blocked(), before);
    }

    #[test]
    fn what_cannot_be_started_is_an_error_and_leaves_no_child() {
        let kind =
            |change: fn(&mut Program<'_>)| run(":", change).expect_err("no such thing").kind();
        let nowhere = kind(|program| program.path = c"/nowhere");
        assert_eq!(nowhere, io::ErrorKind::NotFound);
        let folder = kind(|program| program.directory = Some(c"/nowhere"));
        assert_eq!(folder, io::ErrorKind::NotFound);
        let no_program = kind(|program| program.path = c"/etc/passwd");
        assert_eq!(no_program, io::ErrorKind::PermissionDenied);
        // `__WNOTHREAD`: only children of this thread.
        let own = WaitOptions::NOHANG | WaitOptions::from_bits_retain(0x2000_0000);
        assert_eq!(waitpid(None, own).err(), Some(Errno::CHILD));
    }

    #[test]
    fn many_threads_start_programs_at_once() {
        thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for round in 0..50 {
                        let said = run(&format!("echo {thread} {round}"), no_change);
                        assert_eq!(said.expect("it starts"), format!("{thread} {round}\n"));
                    }
                });
            }
        });
    }

    #[test]
    fn another_user_has_its_group_and_no_other() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let user = User {
            user: 65_534,
            group: 65_533,
        };
        let said = run("id -u; id -G; id -u -r", |program| {
            program.user = Some(user)
        });
        assert_eq!(said.expect("it starts"), "65534\n65533\n65534\n");
    }
}
