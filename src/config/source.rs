//! Where the configuration comes from: all of it at the start, and `events.yml` again whenever it is asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::Refused;
use super::build::{Built, build_on};
use super::machine::{Machine, host_name, read_file};
use crate::args::Typed;

/// A command line with what it stood in when the process began.
pub struct Source {
    typed: Typed,
    host_name: String,
    /// What was read beside `events.yml`. A password that is there no more is none that changed.
    kept: RefCell<HashMap<PathBuf, Vec<u8>>>,
}

impl Source {
    /// Reads nothing yet.
    pub fn new(typed: Typed) -> Self {
        Source {
            typed,
            host_name: host_name(),
            kept: RefCell::default(),
        }
    }

    /// `events.yml`, if one was given.
    pub fn file(&self) -> Option<&Path> {
        self.typed.file.as_deref()
    }

    /// The configuration as it is now.
    ///
    /// # Errors
    /// All mistakes, and the warnings.
    pub fn read(&self) -> Result<Built, Refused> {
        let variables = |name: &str| std::env::var_os(name);
        let files = |path: &Path| self.content(path);
        let machine = Machine::this(self.host_name.clone(), &variables, &files);
        build_on(&machine, self.typed.clone())
    }

    fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = read_file(path);
        if self.file() == Some(path) {
            return read;
        }
        let mut kept = self.kept.borrow_mut();
        match (read, kept.get(path)) {
            (Ok(content), _) => {
                kept.insert(path.to_owned(), content.clone());
                Ok(content)
            }
            (Err(_), Some(content)) => Ok(content.clone()),
            (Err(error), None) => Err(error),
        }
    }
}

impl fmt::Debug for Source {
    /// A URL and a file may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_again_and_a_password_that_is_gone_is_remembered() {
        let folder = std::env::temp_dir().join(format!("dc-source-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (file, password) = (folder.join("events.yml"), folder.join("password"));
        let write = |path: &Path, text: &str| std::fs::write(path, text).expect("a file");
        write(&file, "events: []\n");
        write(&password, "secret\n");
        let mut typed = Typed {
            file: Some(file.clone()),
            ..Typed::default()
        };
        typed.options.id = Some("h".into());
        typed.options.cache = Some("redis://localhost:6379".into());
        typed.options.cache_password_file = Some(password.display().to_string());
        let source = Source::new(typed);
        let entries = || {
            let built = source.read().expect("nothing is wrong");
            let cache = built.config.cache.expect("there is a cache");
            assert_eq!(cache.target.password.as_deref(), Some("secret"));
            built.config.handlers.map(|handlers| handlers.entries.len())
        };
        assert_eq!(entries(), Some(0));
        write(&file, "events: [{type: die, log: x}]\n");
        std::fs::remove_file(&password).expect("it was there");
        assert_eq!(entries(), Some(1));
        std::fs::remove_file(&file).expect("it was there");
        assert!(source.read().is_err());
        let _ = std::fs::remove_dir_all(&folder);
    }
}
