//! What Redis and the network answer when they refuse, in words that name the cause and what to do about it.
//!
//! Texts are stable: whatever varies from one attempt to the next (ports, slots, user texts) is left out, so that one cause is logged once.

use std::io;

use redis::{Cmd, ServerError};

use super::StoreError;
use super::link::Trouble;

/// Connecting failed.
pub(super) fn unreachable(url: &str, error: &io::Error) -> StoreError {
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; is redis-server running there?".to_owned()
        }
        io::ErrorKind::NotFound => {
            "there is no such socket; is redis-server running, with that `unixsocket`?".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; see `unixsocketperm` of redis.conf and the groups of this user"
                .to_owned()
        }
        io::ErrorKind::TimedOut => {
            "no answer in time; is the address right, and does a firewall drop packets?".to_owned()
        }
        _ => format!("{error}; is the address right?"),
    };
    StoreError {
        text: format!("failed to connect to Redis `{url}`: {cause}"),
        uncertain: false,
        timed_out: error.kind() == io::ErrorKind::TimedOut,
    }
}

/// An open connection failed.
pub(super) fn broken(url: &str, trouble: &Trouble) -> StoreError {
    let mut timed_out = false;
    let cause = match trouble {
        Trouble::Foreign => {
            "what answers there does not speak Redis's protocol; is the port right, and is it one without TLS?".to_owned()
        }
        Trouble::Io(error) => match error.kind() {
            io::ErrorKind::TimedOut => {
                timed_out = true;
                "no answer in time; is Redis overloaded or stopped?".to_owned()
            }
            // All of these say one thing, and which of them comes is chance.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe => "the connection was closed".to_owned(),
            _ => error.to_string(),
        },
    };
    StoreError {
        text: format!("failed to talk to Redis `{url}`: {cause}"),
        uncertain: false,
        timed_out,
    }
}

/// Redis answered a command with an error.
pub(super) fn refused(url: &str, error: &ServerError, command: &Cmd) -> StoreError {
    let code = error.code();
    let details = error.details().unwrap_or("");
    let name = argument(command, 0);
    let (verb, cause) = match known(code, details) {
        Some((verb, cause)) => (verb, cause.to_owned()),
        None if code == "NOPERM" => (
            "use",
            format!(
                "this user may not do what `{name}` does (NOPERM); its ACL must allow the commands, keys and the channel of the prefix, see ACL SETUSER"
            ),
        ),
        None if code == "WRONGTYPE" => (
            "write",
            format!(
                "the key `{}` held a value of another type (WRONGTYPE); it was deleted, its hosts are reported again",
                argument(command, 1)
            ),
        ),
        None => {
            let details: String = details.chars().take(200).collect();
            (
                "use",
                format!("it answered `{name}` with `{code} {details}`"),
            )
        }
    };
    StoreError {
        text: format!("failed to {verb} Redis `{url}`: {cause}"),
        uncertain: false,
        timed_out: false,
    }
}

/// Verb and cause of the refusals that have one text each.
fn known(code: &str, details: &str) -> Option<(&'static str, &'static str)> {
    let has = |part: &str| details.contains(part);
    Some(match code {
        "NOAUTH" => (
            "log in to",
            "it wants a password (NOAUTH); give one with --cache-password-file",
        ),
        "WRONGPASS" => (
            "log in to",
            "it refuses the user name or the password (WRONGPASS); check both",
        ),
        "ERR" if has("invalid password") => (
            "log in to",
            "it refuses the user name or the password (WRONGPASS); check both",
        ),
        "ERR" if has("without any password configured") => (
            "log in to",
            "it has no password, but one was given; leave it out, or set `requirepass`",
        ),
        "ERR" if has("max number of clients") => (
            "connect to",
            "it has too many clients; raise `maxclients`, or close some",
        ),
        "ERR" if has("DB index is out of range") || has("invalid DB index") => (
            "use",
            "it has no database of that number; see `databases` of redis.conf",
        ),
        "DENIED" => (
            "use",
            "it is in protected mode and answers only its own machine (DENIED); set a password, or `protected-mode no`",
        ),
        "LOADING" => (
            "use",
            "it still loads its data from disk (LOADING); it will be tried again",
        ),
        "READONLY" => (
            "write",
            "it is a read-only replica (READONLY); give the address of the master",
        ),
        "MASTERDOWN" => (
            "use",
            "it is a replica whose master is down (MASTERDOWN); give the address of the master",
        ),
        "OOM" => (
            "write",
            "it is out of memory (OOM); raise `maxmemory`, or keep other data elsewhere",
        ),
        "MISCONF" => (
            "write",
            "it cannot save its data to disk and refuses writes (MISCONF); free its disk, or set `stop-writes-on-bgsave-error no`",
        ),
        "NOREPLICAS" => (
            "write",
            "it has fewer replicas than `min-replicas-to-write` wants (NOREPLICAS); bring them back, or lower that",
        ),
        "BUSY" => (
            "use",
            "it runs a script that does not end (BUSY); see SCRIPT KILL",
        ),
        "CLUSTERDOWN" | "MOVED" | "ASK" | "CROSSSLOT" | "TRYAGAIN" => (
            "use",
            "it is part of a Redis Cluster, which is not supported; give a single Redis or a master with replicas",
        ),
        _ => return None,
    })
}

/// An argument of a command, as text; the 0th is its name.
pub(super) fn argument(command: &Cmd, index: usize) -> String {
    match command.args_iter().nth(index) {
        Some(redis::Arg::Simple(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::Value;

    fn error(line: &str) -> ServerError {
        let wire = format!("-{line}\r\n");
        match redis::parse_redis_value(wire.as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{line:?} was read as {other:?}"),
        }
    }

    fn text(line: &str) -> String {
        let mut command = redis::cmd("HSET");
        command.arg("docker:hosts:a");
        refused("redis://x:1", &error(line), &command).text
    }

    #[test]
    fn one_cause_has_one_text() {
        assert_eq!(
            text("MOVED 3999 127.0.0.1:6381"),
            text("MOVED 4000 127.0.0.1:6382")
        );
        assert_eq!(
            text("NOPERM this user has no permissions to access the 'a' key"),
            text("NOPERM this user has no permissions to access the 'b' key")
        );
        let url = "redis://x:1";
        let eof = broken(url, &Trouble::Io(io::ErrorKind::UnexpectedEof.into()));
        let reset = broken(url, &Trouble::Io(io::ErrorKind::ConnectionReset.into()));
        assert_eq!(eof, reset);
    }

    #[test]
    fn every_known_refusal_names_its_code_and_a_way_out() {
        for line in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots, but",
            "NOREPLICAS Not enough good replicas to write.",
            "BUSY Redis is busy running a script.",
            "MASTERDOWN Link with MASTER is down",
            "NOPERM this user has no permissions to run the 'multi' command",
            "DENIED Redis is running in protected mode",
        ] {
            let text = text(line);
            let code = line.split(' ').next().unwrap_or_default();
            assert!(text.contains(code), "{text}");
            assert!(!text.contains("it answered"), "{line} is unknown: {text}");
        }
        for (line, word) in [
            ("ERR max number of clients reached", "maxclients"),
            ("CLUSTERDOWN The cluster is down", "Cluster"),
            (
                "ERR AUTH <password> called without any password configured",
                "no password",
            ),
            ("ERR invalid password", "WRONGPASS"),
            ("ERR DB index is out of range", "databases"),
            (
                "WRONGTYPE Operation against a key holding the wrong kind",
                "`docker:hosts:a`",
            ),
        ] {
            assert!(text(line).contains(word), "{}", text(line));
        }
        assert_eq!(
            text("ERR nobody knows"),
            "failed to use Redis `redis://x:1`: it answered `HSET` with `ERR nobody knows`"
        );
    }
}
