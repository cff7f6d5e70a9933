//! What the configuration asks of the machine that it is read on.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::build::{Files, Variables};
use crate::command;

/// A machine. Tests have one of their own making.
#[derive(Clone)]
pub struct Machine<'a> {
    /// Its name, the default host id.
    pub host_name: String,
    /// The variables of the environment.
    pub variables: Variables<'a>,
    /// The content of its files.
    pub files: Files<'a>,
    /// What stands at a path, if anything does.
    pub look: &'a dyn Fn(&Path) -> Option<Thing>,
    /// This process may run commands as other users.
    pub is_root: bool,
}

/// What stands at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thing {
    /// A folder.
    Folder,
    /// A file that somebody may execute.
    Program,
    /// Something else.
    Other,
}

/// Where programs are looked for when there is no `PATH`.
const PATH: &str = "/usr/bin:/bin";

impl<'a> Machine<'a> {
    /// The one that we run on.
    pub fn this(host_name: String, variables: Variables<'a>, files: Files<'a>) -> Self {
        Machine {
            host_name,
            variables,
            files,
            look: &look,
            is_root: command::is_root(),
        }
    }

    /// Is there a program at this path, or, where it is a bare name, in `PATH`?
    pub fn has_program(&self, name: &str) -> bool {
        let is_program = |path: PathBuf| (self.look)(&path) == Some(Thing::Program);
        if name.contains('/') {
            return is_program(name.into());
        }
        let path = (self.variables)("PATH").unwrap_or_else(|| OsString::from(PATH));
        std::env::split_paths(&path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .any(is_program)
    }
}

/// No file that is read here is larger; an `events.yml` has some kB, a password some bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file that is small, as all that is configuration.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(content)
}

/// The machine's name.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// What stands at a path of this machine.
pub(super) fn look(path: &Path) -> Option<Thing> {
    let found = fs::metadata(path).ok()?;
    Some(match found.is_dir() {
        true => Thing::Folder,
        false if found.is_file() && found.permissions().mode() & 0o111 != 0 => Thing::Program,
        false => Thing::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_the_shell_finds_them() {
        let found = |path: Option<&'static str>| {
            let machine = Machine {
                host_name: String::new(),
                variables: &move |_| path.map(OsString::from),
                files: &|_| Err(io::ErrorKind::NotFound.into()),
                look: &|path| match path.to_str()? {
                    "/bin/sh" | "/usr/bin/bash" | "/opt/own" | "./here" => Some(Thing::Program),
                    "/bin/bash" => Some(Thing::Folder),
                    _ => None,
                },
                is_root: false,
            };
            let names = ["sh", "bash", "own", "here", "/opt/own", "/bin/bash"];
            names.map(|name| machine.has_program(name))
        };
        assert_eq!(found(None), [true, true, false, false, true, false]);
        assert_eq!(
            found(Some("/opt:/bin")),
            [true, false, true, false, true, false]
        );
        assert_eq!(
            found(Some("::.")),
            [false, false, false, false, true, false]
        );
    }

    #[test]
    fn what_stands_on_this_machine() {
        assert_eq!(look(Path::new("/")), Some(Thing::Folder));
        assert_eq!(look(Path::new("/bin/sh")), Some(Thing::Program));
        assert_eq!(look(Path::new("/dev/null")), Some(Thing::Other));
        assert_eq!(look(Path::new("/nothing/of/this/name")), None);
    }

    #[test]
    fn a_huge_file_is_not_read_whole() {
        let error = read_file(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("1 MiB"), "{error}");
    }
}
