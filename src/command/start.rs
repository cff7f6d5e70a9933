//! The start of a job's shell: what it gets to see, where and as whom it runs, and its pipes.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use docker_cache_spawn::{Program, User, spawn};
use rustix::process::Pid;

use crate::model::Job;

/// The kernel's limit for one string of an environment or of a command line, its final NUL included (`MAX_ARG_STRLEN`).
pub(super) const STRING_LIMIT: usize = 128 * 1024;

/// The only variables of the agent's own environment that a command gets to see.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BaseEnvironment {
    pub(super) variables: Vec<(&'static str, OsString)>,
}

impl BaseEnvironment {
    /// Takes `PATH`, `HOME`, `LANG` and `TZ`, those that are set, from this process.
    pub fn of_process() -> Self {
        BaseEnvironment {
            variables: ["PATH", "HOME", "LANG", "TZ"]
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
        }
    }

    /// The path of a program that was named without one, by the agent's own `PATH`.
    fn find(&self, program: &str) -> Result<PathBuf, String> {
        if program.contains('/') {
            return Ok(program.into());
        }
        let path = self.variables.iter().find(|(name, _)| *name == "PATH");
        let path = path.map_or(OsStr::new("/usr/bin:/bin"), |(_, path)| path);
        let runs = |file: &PathBuf| {
            let is_program =
                |data: fs::Metadata| data.is_file() && data.permissions().mode() & 0o111 != 0;
            file.is_absolute() && fs::metadata(file).is_ok_and(is_program)
        };
        std::env::split_paths(path)
            .map(|folder| folder.join(program))
            .find(runs)
            .ok_or_else(|| format!("failed to find shell `{program}` in the agent's PATH"))
    }
}

/// May this process run commands as other users?
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A shell that was started, with our ends of its pipes; neither ever blocks.
pub(super) struct Started {
    /// The shell, and the process group that it leads.
    pub group: Pid,
    /// Where it reads its input from.
    pub input: Feed,
    /// What it writes to its standard output and error.
    pub output: io::PipeReader,
}

/// Starts the shell of a job, or says why that cannot be.
pub(super) fn start(job: &Job, base: &BaseEnvironment) -> Result<Started, String> {
    check_strings(job)?;
    let running = &job.entry.running;
    let Some((program, arguments)) = running.shell.split_first() else {
        return Err("failed to start a shell: `shell` is empty".to_owned());
    };
    let path = c_string(base.find(program)?.as_os_str().as_bytes())?;
    let directory = running.dir.as_ref();
    let directory = directory.map(|dir| c_string(dir.as_os_str().as_bytes()));
    let directory = directory.transpose()?;
    let own = job.entry.command.as_deref().unwrap_or_default();
    let mut words = vec![path.clone()];
    for word in arguments.iter().map(String::as_str).chain([own]) {
        words.push(c_string(word.as_bytes())?);
    }
    let (output, writer) = pipe("output")?;
    // Cannot fail on a pipe. Without it a command that reads its own output through /proc could make a read here block.
    let _ = rustix::io::ioctl_fionbio(&output, true);
    let mut input = Feed::default();
    let reader = match job.input.is_empty() {
        true => File::open("/dev/null")
            .map_err(|error| format!("failed to open `/dev/null` for the input: {error}"))?
            .into(),
        false => {
            let (reader, writer) = pipe("input")?;
            let _ = rustix::io::ioctl_fionbio(&writer, true);
            input.pipe = Some(writer);
            // What fits into the pipe is in it before anybody can close its other end, which would cost a SIGPIPE.
            input.write(&job.input);
            OwnedFd::from(reader)
        }
    };
    let group = spawn(&Program {
        path: &path,
        arguments: &words,
        environment: &environment(job, base)?,
        directory: directory.as_deref(),
        user: running.user.as_ref().map(|user| User {
            user: user.uid,
            group: user.gid,
        }),
        input: reader.as_fd(),
        output: writer.as_fd(),
    })
    .map_err(|error| {
        let dir = running.dir.as_ref();
        let dir = dir.map_or(String::new(), |dir| format!(" in `{}`", dir.display()));
        let user = running.user.as_ref();
        let user = user.map_or(String::new(), |user| format!(" as `{}`", user.name));
        format!("failed to start shell `{program}`{dir}{user}: {error}")
    })?;
    Ok(Started {
        group,
        input,
        output,
    })
}

/// Our end of the pipe for the input.
#[derive(Default)]
pub(super) struct Feed {
    /// Open until the shell has been given all, or has closed its end.
    pub pipe: Option<io::PipeWriter>,
    /// So many bytes are written.
    fed: usize,
}

impl Feed {
    /// Gives it as much of its input as it takes now. After the last byte the pipe is closed.
    pub fn write(&mut self, input: &[u8]) {
        while let Some(pipe) = &mut self.pipe {
            match pipe.write(&input[self.fed..]) {
                Ok(length) => {
                    self.fed += length;
                    if self.fed == input.len() {
                        self.pipe = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It has closed its end: it does not want to know more.
                Err(_) => self.pipe = None,
            }
        }
    }
}

fn pipe(what: &str) -> Result<(io::PipeReader, io::PipeWriter), String> {
    io::pipe().map_err(|error| format!("failed to make a pipe for the {what}: {error}"))
}

/// The whole environment as the kernel wants it, each name once.
fn environment(job: &Job, base: &BaseEnvironment) -> Result<Vec<CString>, String> {
    let base = base.variables.iter();
    let base = base.map(|(name, value)| (*name, value.as_os_str()));
    let home = job.entry.running.user.as_ref();
    let home = home.map(|user| ("HOME", user.home.as_os_str()));
    let own = variables(job).map(|(name, value)| (name, OsStr::new(value)));
    // A later value takes the place of an earlier one.
    let all: BTreeMap<&str, &OsStr> = base.chain(home).chain(own).collect();
    all.into_iter()
        .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect()
}

/// As the kernel wants a text.
fn c_string(bytes: &[u8]) -> Result<CString, String> {
    let text = CString::new(bytes);
    text.map_err(|_| {
        let bytes = String::from_utf8_lossy(bytes);
        format!(
            "failed to start a shell: `{}` holds a NUL byte",
            bytes.escape_default()
        )
    })
}

/// What the entry and the job add to the environment; the job has the last word.
fn variables(job: &Job) -> impl Iterator<Item = (&str, &str)> {
    let entry = job.entry.running.env.iter();
    let entry = entry.map(|(name, value)| (&**name, &**value));
    let own = job.environment.iter();
    entry.chain(own.map(|(name, value)| (&**name, &**value)))
}

/// Refuses what the kernel would refuse, with a text that names the culprit.
fn check_strings(job: &Job) -> Result<(), String> {
    let command = job.entry.command.as_deref().unwrap_or_default();
    let shell = job.entry.running.shell.iter().map(String::as_str);
    for text in shell.chain([command]) {
        if text.len() >= STRING_LIMIT || text.contains('\0') {
            return Err(format!(
                "failed to start a shell: the command holds a NUL byte or is longer than {} bytes",
                STRING_LIMIT - 1
            ));
        }
    }
    for (name, value) in variables(job) {
        if name.contains('\0') || value.contains('\0') {
            return Err(format!(
                "failed to pass variable `{name}`: its value holds a NUL byte"
            ));
        }
        // `NAME=value` and a NUL.
        let length = name.len() + value.len() + 2;
        if length > STRING_LIMIT {
            return Err(format!(
                "failed to pass variable `{name}`: its value is {} bytes long, {} more than the kernel allows",
                value.len(),
                length - STRING_LIMIT
            ));
        }
    }
    Ok(())
}
