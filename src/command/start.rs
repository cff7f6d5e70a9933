//! The start of a job's shell: what it gets to see, where and as whom it runs, and its pipes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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

    /// The path of a program that was named without one, by the agent's own `PATH`. Were it left to std, that would fork.
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
    pub shell: Child,
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
    let (output, writer) = pipe("output")?;
    let errors = writer
        .try_clone()
        .map_err(|error| format!("failed to make a pipe for the output: {error}"))?;
    // Cannot fail on a pipe. Without it a command that reads its own output through /proc could make a read here block.
    let _ = rustix::io::ioctl_fionbio(&output, true);
    let mut command = Command::new(base.find(program)?);
    command
        .args(arguments)
        .arg(job.entry.command.as_deref().unwrap_or_default())
        .env_clear()
        .envs(base.variables.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .stdout(writer)
        .stderr(errors);
    if let Some(user) = &running.user {
        // These make std fork, and leave all other groups.
        command.uid(user.uid).gid(user.gid).env("HOME", &user.home);
    }
    if let Some(dir) = &running.dir {
        command.current_dir(dir);
    }
    command.envs(variables(job));
    let mut input = Feed::default();
    match job.input.is_empty() {
        true => command.stdin(Stdio::null()),
        false => {
            let (reader, writer) = pipe("input")?;
            let _ = rustix::io::ioctl_fionbio(&writer, true);
            input.pipe = Some(writer);
            // What fits into the pipe is in it before anybody can close its other end, which would cost a SIGPIPE.
            input.write(&job.input);
            command.stdin(reader)
        }
    };
    let shell = command.spawn().map_err(|error| {
        let dir = running.dir.as_ref();
        let dir = dir.map_or(String::new(), |dir| format!(" in `{}`", dir.display()));
        let user = running.user.as_ref();
        let user = user.map_or(String::new(), |user| format!(" as `{}`", user.name));
        format!("failed to start shell `{program}`{dir}{user}: {error}")
    })?;
    Ok(Started {
        shell,
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
