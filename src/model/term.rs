//! The words that Docker uses for kinds of objects and for what happens to them. An event has two of them, and a busy engine tells thousands a second.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// In order, so that they are found by halves.
const KNOWN: [&str; 58] = [
    "archive-path",
    "attach",
    "builder",
    "commit",
    "config",
    "connect",
    "container",
    "copy",
    "create",
    "daemon",
    "delete",
    "destroy",
    "detach",
    "die",
    "disable",
    "disconnect",
    "enable",
    "exec_create",
    "exec_detach",
    "exec_die",
    "exec_start",
    "existing",
    "export",
    "extract-to-dir",
    "health_status: healthy",
    "health_status: running",
    "health_status: starting",
    "health_status: unhealthy",
    "image",
    "import",
    "kill",
    "load",
    "mount",
    "network",
    "node",
    "oom",
    "pause",
    "plugin",
    "prune",
    "pull",
    "push",
    "reload",
    "remove",
    "rename",
    "resize",
    "restart",
    "save",
    "secret",
    "service",
    "start",
    "stop",
    "tag",
    "top",
    "unmount",
    "unpause",
    "untag",
    "update",
    "volume",
];

/// A word of Docker's; those that are known take no memory of their own.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Term(Cow<'static, str>);

impl From<&str> for Term {
    fn from(word: &str) -> Self {
        Term(match KNOWN.binary_search(&word) {
            Ok(at) => Cow::Borrowed(KNOWN[at]),
            Err(_) => Cow::Owned(word.to_owned()),
        })
    }
}

impl Deref for Term {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_the_same_whether_they_are_known_or_not() {
        assert!(KNOWN.is_sorted());
        for word in KNOWN
            .into_iter()
            .chain(["", "unpaused", "z", "exec_start: sh"])
        {
            let term = Term::from(word);
            assert_eq!(&*term, word);
            assert_eq!(matches!(term.0, Cow::Borrowed(_)), KNOWN.contains(&word));
        }
    }
}
