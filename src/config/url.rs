//! URLs of engines and of the cache. A small parser of our own: hosts are ASCII, and no message may show a password.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::{CachePlace, CacheTarget, Mistake};
use crate::model::Address;

/// What is expected wherever an engine's URL is.
pub const EXPECTED_ENGINE: &str =
    "`unix:///var/run/docker.sock`, `tcp://HOST:2375` or `http://HOST:2375`";

/// What is expected wherever the cache's URL is.
pub const EXPECTED_CACHE: &str =
    "`redis://[USER:PASSWORD@]HOST[:6379][/DATABASE]`, `unix:///PATH[?db=DATABASE]` or `none`";

const DOCKER_PORT: u16 = 2375;
const REDIS_PORT: u16 = 6379;

/// A path that is longer does not fit into a socket's address on Linux.
const MAX_SOCKET_PATH: usize = 107;

/// Reads an engine's URL.
pub fn engine(text: &str) -> Result<Address, Mistake> {
    let mistake = |problem: String| Mistake::new(problem, EXPECTED_ENGINE);
    // Without an `@` it has nothing to hide, and shown as it is it helps more.
    let shown = match text.contains('@') {
        true => masked(text),
        false => super::cut(text),
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        let path = text.starts_with('/').then(|| format!("unix://{text}"));
        return Err(mistake(format!("`{shown}` has no scheme")).near(path));
    };
    match &*scheme.to_ascii_lowercase() {
        "unix" => socket_path(rest, &shown)
            .map(Address::Unix)
            .map_err(mistake),
        "tcp" | "http" => {
            let (host, port) = engine_host(rest, &shown).map_err(mistake)?;
            Ok(Address::Tcp { host, port })
        }
        "https" | "ssh" | "npipe" | "fd" => Err(mistake(format!(
            "`{shown}`: engines behind `{scheme}://` are not supported yet"
        ))),
        _ => Err(mistake(format!(
            "`{shown}` has a scheme that no engine answers to"
        ))),
    }
}

fn engine_host(rest: &str, shown: &str) -> Result<(String, u16), String> {
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(format!("`{shown}` has a user, which no engine asks for"));
    }
    if !matches!(tail, "" | "/") {
        return Err(format!("`{shown}` has a path, which is not supported"));
    }
    host_and_port(authority, DOCKER_PORT).map_err(|problem| format!("`{shown}`: {problem}"))
}

/// Reads the cache's URL; `none` is the caller's business.
pub fn cache(text: &str) -> Result<CacheTarget, Mistake> {
    let mistake = |problem: String| Mistake::new(problem, EXPECTED_CACHE);
    let shown = masked(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(mistake(format!("`{shown}` has no scheme")));
    };
    match &*scheme.to_ascii_lowercase() {
        "redis" => redis_over_tcp(rest, &shown).map_err(mistake),
        "unix" | "redis+unix" => redis_over_unix(rest, &shown).map_err(mistake),
        "rediss" => Err(mistake(format!(
            "`{shown}`: TLS to Redis is not supported in this version"
        ))),
        _ => Err(mistake(format!("`{shown}` has a scheme that is not known"))),
    }
}

fn redis_over_tcp(rest: &str, shown: &str) -> Result<CacheTarget, String> {
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match place.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (place, ""),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        // Then what seems to be the host is the first part of a password.
        None if place.contains('@') => {
            return Err(format!(
                "`{shown}` has a `/` or `?` in its user or password, which is written `%2F` or `%3F`"
            ));
        }
        None => (None, authority),
    };
    let (host, port) =
        host_and_port(host, REDIS_PORT).map_err(|problem| format!("`{shown}`: {problem}"))?;
    if let Some(query) = query {
        return Err(match query.strip_prefix("db=") {
            Some(number) if number.parse::<u32>().is_ok() => format!(
                "`{shown}`: the database of a TCP URL is its path, write `/{number}` instead of `?db={number}`"
            ),
            _ => format!("`{shown}` has a query, which means nothing on a TCP URL"),
        });
    }
    let (username, password) = match user {
        Some(user) => credentials(user).map_err(|problem| format!("`{shown}`: {problem}"))?,
        None => (None, None),
    };
    Ok(CacheTarget {
        place: CachePlace::Tcp { host, port },
        database: database(path).map_err(|problem| format!("`{shown}`: {problem}"))?,
        username,
        password,
    })
}

fn redis_over_unix(rest: &str, shown: &str) -> Result<CacheTarget, String> {
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let database = match query.map(|query| query.strip_prefix("db=")) {
        None => 0,
        Some(Some(number)) => {
            database(number).map_err(|problem| format!("`{shown}`: {problem}"))?
        }
        Some(None) => return Err(format!("`{shown}` has a query other than `?db=DATABASE`")),
    };
    Ok(CacheTarget {
        place: CachePlace::Unix(socket_path(path, shown)?),
        database,
        username: None,
        password: None,
    })
}

fn database(text: &str) -> Result<i64, String> {
    match text {
        "" => Ok(0),
        // Without its text: it may be the end of a password.
        text => text
            .parse::<u32>()
            .map(i64::from)
            .map_err(|_| "the database is not a number".to_owned()),
    }
}

type Credentials = (Option<String>, Option<String>);

fn credentials(text: &str) -> Result<Credentials, String> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, password),
        None => (text, ""),
    };
    let decode = |part: &str, what: &str| {
        match part {
        "" => Ok(None),
        part => percent_decoded(part).map(Some).ok_or(format!(
            "the {what} has a `%` that does not begin the two hex digits of a UTF-8 text's byte; write `%25` for the sign itself"
        )),
    }
    };
    Ok((decode(user, "user")?, decode(password, "password")?))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| (*after.get(at)? as char).to_digit(16);
        let value = digit(0)? * 16 + digit(1)?;
        // Two hex digits are at most 255.
        bytes.push(value as u8);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

fn socket_path(path: &str, shown: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        return Err(format!(
            "`{shown}` has no absolute path: after `unix://` it begins with a third `/`"
        ));
    }
    if path.contains(|c: char| c.is_control()) {
        return Err(format!("`{shown}` has a control character"));
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!(
            "`{shown}` has a path of {} bytes, a socket's has {MAX_SOCKET_PATH} at most",
            path.len()
        ));
    }
    Ok(PathBuf::from(path))
}

/// The messages of this one do not show what they are about: it may be a password that lacks its `@`.
fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), String> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, after) = bracketed
            .split_once(']')
            .ok_or("the bracket of an IPv6 address is not closed")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("what stands in brackets is no IPv6 address".to_owned());
        }
        return match after.strip_prefix(':') {
            Some(digits) => Ok((host.to_owned(), port(digits)?)),
            None if after.is_empty() => Ok((host.to_owned(), default_port)),
            None => Err("after the bracket a `:` and the port are expected".to_owned()),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() || text.matches(':').count() > 1 {
        return Err("an IPv6 address stands in brackets, `[::1]`".to_owned());
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, port(digits)?),
        None => (text, default_port),
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if !host.chars().all(is_host_character) {
        return Err("a host has letters, digits, `.`, `-` and `_` only".to_owned());
    }
    Ok((host.to_owned(), port))
}

fn port(digits: &str) -> Result<u16, String> {
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && !digits.starts_with('+') => Ok(port),
        _ => Err("the port is not a number from 1 to 65535".to_owned()),
    }
}

fn is_host_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// The URL for messages, whatever is wrong with it: user and password become `***`, and so does everything that could be a part of a password for all we know.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        let harmless =
            |part: &str| part.starts_with('/') || host_and_port(part, REDIS_PORT).is_ok();
        return match url.is_empty() || harmless(url) {
            true => super::cut(url),
            false => "***".to_owned(),
        };
    };
    let scheme = match scheme
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '+')
    {
        true => scheme,
        false => "***",
    };
    let (user, place) = match rest.rsplit_once('@') {
        Some((_, place)) => ("***@", place),
        None => ("", rest),
    };
    let (authority, tail) = place.split_at(place.find(['/', '?', '#']).unwrap_or(place.len()));
    if !authority.is_empty() && host_and_port(authority, REDIS_PORT).is_err() {
        return format!("{scheme}://{user}***");
    }
    let tail = match tail.split_once('?') {
        Some((path, query)) => match query.strip_prefix("db=") {
            Some(number) if number.parse::<u32>().is_ok() => format!("{path}?{query}"),
            _ => format!("{path}?***"),
        },
        None => tail.to_owned(),
    };
    super::cut(&format!("{scheme}://{user}{authority}{tail}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn engines() {
        for (url, address) in [
            (
                "unix:///var/run/docker.sock",
                Address::Unix("/var/run/docker.sock".into()),
            ),
            ("tcp://192.168.59.103:2375", tcp("192.168.59.103", 2375)),
            ("tcp://node_1.example", tcp("node_1.example", 2375)),
            ("TCP://host:1/", tcp("host", 1)),
            ("http://host:8080", tcp("host", 8080)),
            ("tcp://[::1]:2376", tcp("::1", 2376)),
            ("tcp://[fe80::2]", tcp("fe80::2", 2375)),
        ] {
            assert_eq!(engine(url).unwrap(), address, "{url}");
        }
    }

    #[test]
    fn engines_that_are_refused() {
        for (url, problem) in [
            ("", "`` has no scheme"),
            ("/run/docker.sock", "`/run/docker.sock` has no scheme"),
            ("host:2375", "`host:2375` has no scheme"),
            (
                "ssh://host",
                "`ssh://host`: engines behind `ssh://` are not supported yet",
            ),
            (
                "https://host",
                "`https://host`: engines behind `https://` are not supported yet",
            ),
            (
                "fd://",
                "`fd://`: engines behind `fd://` are not supported yet",
            ),
            (
                "npipe:////./pipe/docker",
                "`npipe:////./pipe/docker`: engines behind `npipe://` are not supported yet",
            ),
            (
                "redis://host",
                "`redis://host` has a scheme that no engine answers to",
            ),
            ("tcp://", "`tcp://`: the host is missing"),
            ("tcp://:2375", "`tcp://:2375`: the host is missing"),
            (
                "tcp://host:",
                "`tcp://host:`: the port is not a number from 1 to 65535",
            ),
            (
                "tcp://host:0",
                "`tcp://host:0`: the port is not a number from 1 to 65535",
            ),
            (
                "tcp://host:65536",
                "`tcp://host:65536`: the port is not a number from 1 to 65535",
            ),
            (
                "tcp://host:+1",
                "`tcp://host:+1`: the port is not a number from 1 to 65535",
            ),
            (
                "tcp://hö",
                "`tcp://hö`: a host has letters, digits, `.`, `-` and `_` only",
            ),
            (
                "tcp://::1:2375",
                "`tcp://::1:2375`: an IPv6 address stands in brackets, `[::1]`",
            ),
            (
                "tcp://[::1",
                "`tcp://[::1`: the bracket of an IPv6 address is not closed",
            ),
            (
                "tcp://[host]",
                "`tcp://[host]`: what stands in brackets is no IPv6 address",
            ),
            (
                "tcp://[::1]2375",
                "`tcp://[::1]2375`: after the bracket a `:` and the port are expected",
            ),
            (
                "tcp://host:2375/v1.41",
                "`tcp://host:2375/v1.41` has a path, which is not supported",
            ),
            (
                "tcp://me:pw@host",
                "`tcp://***@host` has a user, which no engine asks for",
            ),
            (
                "unix://run/docker.sock",
                "`unix://run/docker.sock` has no absolute path: after `unix://` it begins with a third `/`",
            ),
            ("unix:///a\nb", "`unix:///a…` has a control character"),
        ] {
            assert_eq!(engine(url).unwrap_err().problem, problem, "{url}");
        }
        let near = engine("/run/docker.sock").unwrap_err().nearest;
        assert_eq!(near.as_deref(), Some("unix:///run/docker.sock"));
        let long = format!("unix:///{}", "x".repeat(107));
        let problem = engine(&long).unwrap_err().problem;
        assert!(problem.contains("108 bytes"), "{problem}");
    }

    #[test]
    fn caches() {
        let target = |place, database, username: &str, password: &str| CacheTarget {
            place,
            database,
            username: Some(username.to_owned()).filter(|text| !text.is_empty()),
            password: Some(password.to_owned()).filter(|text| !text.is_empty()),
        };
        let tcp = |host: &str, port| CachePlace::Tcp {
            host: host.to_owned(),
            port,
        };
        let unix = || CachePlace::Unix("/run/redis.sock".into());
        for (url, expected) in [
            (
                "redis://localhost",
                target(tcp("localhost", 6379), 0, "", ""),
            ),
            (
                "redis://localhost:6379/",
                target(tcp("localhost", 6379), 0, "", ""),
            ),
            ("redis://[::1]:7000/3", target(tcp("::1", 7000), 3, "", "")),
            (
                "redis://:secret@host",
                target(tcp("host", 6379), 0, "", "secret"),
            ),
            (
                "redis://me:a%2fb%40:c@d@host/15",
                target(tcp("host", 6379), 15, "me", "a/b@:c@d"),
            ),
            ("redis://me@host", target(tcp("host", 6379), 0, "me", "")),
            ("unix:///run/redis.sock", target(unix(), 0, "", "")),
            (
                "redis+unix:///run/redis.sock?db=2",
                target(unix(), 2, "", ""),
            ),
        ] {
            assert_eq!(cache(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn caches_that_are_refused() {
        for (url, problem) in [
            ("localhost:6379", "`localhost:6379` has no scheme"),
            (
                "memcached://host",
                "`memcached://host` has a scheme that is not known",
            ),
            (
                "rediss://u:pw@host",
                "`rediss://***@host`: TLS to Redis is not supported in this version",
            ),
            (
                "redis://host/x",
                "`redis://host/x`: the database is not a number",
            ),
            (
                "redis://host/-1",
                "`redis://host/-1`: the database is not a number",
            ),
            (
                "redis://u:pw@host:1/?db=3",
                "`redis://***@host:1/?db=3`: the database of a TCP URL is its path, write `/3` instead of `?db=3`",
            ),
            (
                "redis://host?timeout=3",
                "`redis://host?***` has a query, which means nothing on a TCP URL",
            ),
            (
                "redis://:p%zz@host",
                "`redis://***@host`: the password has a `%` that does not begin the two hex digits of a UTF-8 text's byte; write `%25` for the sign itself",
            ),
            (
                "redis://:%ff@host",
                "`redis://***@host`: the password has a `%` that does not begin the two hex digits of a UTF-8 text's byte; write `%25` for the sign itself",
            ),
            (
                "redis://:pa/ss@host",
                "`redis://***@host` has a `/` or `?` in its user or password, which is written `%2F` or `%3F`",
            ),
            (
                "redis://:secret",
                "`redis://***`: the port is not a number from 1 to 65535",
            ),
            (
                "unix:///run/redis.sock?x=1",
                "`unix:///run/redis.sock?***` has a query other than `?db=DATABASE`",
            ),
            (
                "unix:///run/redis.sock?db=x",
                "`unix:///run/redis.sock?***`: the database is not a number",
            ),
        ] {
            assert_eq!(cache(url).unwrap_err().problem, problem, "{url}");
        }
    }

    proptest! {
        #[test]
        fn a_password_is_never_shown(
            scheme in "redis|rediss|redis\\+unix|unix|tcp|http|wrong|",
            user in "[a-z]{0,4}",
            password in "Hush[#?%/:@\\PC]{0,8}Hush",
            host in "(host|\\[::1\\]|h ost|)(:[0-9]{1,6}|)",
            tail in "(/[0-9a-z]{0,3})?(\\?db=[0-9x]{1,2})?",
        ) {
            let url = format!("{scheme}://{user}:{password}@{host}{tail}");
            prop_assert!(!masked(&url).contains("Hush"), "{}", masked(&url));
            for mistake in [engine(&url).err(), cache(&url).err()].into_iter().flatten() {
                prop_assert!(!format!("{mistake:?}").contains("Hush"), "{mistake:?}");
            }
        }

        #[test]
        fn nothing_makes_it_panic(url in "(redis|tcp|unix)?(://)?(\\[|\\]|@|%|:|/|\\?|[0-9a-f]|\\PC){0,20}") {
            let _ = (engine(&url), cache(&url), masked(&url));
        }
    }
}
