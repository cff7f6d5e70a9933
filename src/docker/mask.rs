//! Which parts of an inspect are secrets, and what stands in their place.
//!
//! All of it works on JSON as text, without taking apart what holds no secret.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use memchr::{memchr_iter, memmem};

use super::json::{Cuts, compact, next_string, quoted, unquoted};
use crate::glob::{Case, Globs};

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// So many names are remembered, none longer than so many bytes: 300 kB at most.
const KNOWN: usize = 1024;
const LONG: usize = 200;

/// Knows which values are secrets, by the names they go by.
#[derive(Debug)]
pub struct Masker {
    secrets: Globs,
    /// Containers have most of their names in common, and to ask a dozen globs takes microseconds.
    known: RwLock<HashMap<Box<str>, bool>>,
}

impl Masker {
    /// Reads patterns (globs, without regard to case). With none at all nothing is masked, passwords in URLs neither. The error is one line for
    /// each pattern that is none.
    pub fn new(patterns: &[String]) -> Result<Masker, String> {
        let fault = |pattern: &String| {
            let cause = Globs::new([pattern.as_str()], Case::Ignored).err()?;
            Some(format!("failed to read pattern `{pattern}`: {cause}"))
        };
        let faults: Vec<String> = patterns.iter().filter_map(fault).collect();
        match faults.is_empty() {
            true => {
                let secrets = Globs::new(patterns.iter().map(String::as_str), Case::Ignored)?;
                Ok(Masker {
                    secrets,
                    known: RwLock::default(),
                })
            }
            false => Err(faults.join("\n")),
        }
    }

    /// No value goes by any name as a secret, and URLs may keep their passwords.
    pub(super) fn is_off(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Is what goes by this name a secret?
    fn is_secret(&self, name: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = known.get(name) {
            return *secret;
        }
        drop(known);
        let secret = self.secrets.fit(name);
        if name.len() <= LONG {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KNOWN {
                known.clear();
            }
            known.insert(name.into(), secret);
        }
        secret
    }

    /// A label's value, for people.
    pub fn shown(&self, name: &str, value: &str) -> String {
        match self.is_secret(name) {
            _ if self.is_off() => value.to_owned(),
            true if !value.is_empty() => MASK.to_owned(),
            _ => without_passwords(value).into_owned(),
        }
    }

    /// `["NAME=value", …]` with the secret values masked, also those inside of a value that is JSON itself.
    pub(super) fn pairs<'a>(&self, raw: &'a str) -> Cow<'a, str> {
        let mut cuts = Cuts::new(raw);
        let mut at = 0;
        while let Some((open, close)) = next_string(raw, at) {
            at = close;
            let pair = unquoted(&raw[open..close]);
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            if self.is_secret(name) && !value.is_empty() {
                cuts.replace(open, close, &quoted(&format!("{name}={MASK}")));
            } else if value.starts_with(['{', '['])
                && let Cow::Owned(masked) = self.members(&compact(value))
            {
                cuts.replace(open, close, &quoted(&format!("{name}={masked}")));
            }
        }
        cuts.done()
    }

    /// An object, of any depth, with the texts masked that stand under a secret's name.
    pub(super) fn members<'a>(&self, raw: &'a str) -> Cow<'a, str> {
        let mut cuts = Cuts::new(raw);
        let mut at = 0;
        while let Some((open, close)) = next_string(raw, at) {
            at = close;
            // The text is compact: a name is a string with a colon behind it, and its value comes at once.
            if raw.get(close..close + 2) != Some(":\"") {
                continue;
            }
            let Some((from, to)) = next_string(raw, close) else {
                break;
            };
            at = to;
            if to - from > 2 && self.is_secret(&unquoted(&raw[open..close])) {
                cuts.replace(from, to, &quoted(MASK));
            }
        }
        cuts.done()
    }
}

/// Masks the password of each `scheme://user:password@host` and each `user:password@tcp(host)` in a JSON text.
pub(super) fn without_passwords(text: &str) -> Cow<'_, str> {
    match without_url_passwords(text) {
        Cow::Borrowed(text) => without_dsn_passwords(text),
        Cow::Owned(text) => Cow::Owned(without_dsn_passwords(&text).into_owned()),
    }
}

/// Masks the password of each `user:password@protocol(address)`, as Go's database drivers write it. It reaches from the first colon of the word to
/// the last `@` before the protocol.
fn without_dsn_passwords(text: &str) -> Cow<'_, str> {
    let mut cuts = Cuts::new(text);
    let mut done = 0;
    for at in memchr_iter(b'@', text.as_bytes()) {
        let protocol = text[at + 1..].find(|c: char| !c.is_ascii_alphanumeric());
        let Some(length) = protocol.filter(|length| *length > 0) else {
            continue;
        };
        if !text[at + 1 + length..].starts_with('(') {
            continue;
        }
        let word = &text[done..at];
        let from = word.rfind(['"', '\'', '`', ' ']).map_or(0, |end| end + 1);
        if let Some(colon) = word[from..].find(':')
            && from + colon + 1 < word.len()
            && !word[from + colon..].starts_with("://")
        {
            cuts.replace(done + from + colon + 1, at, MASK);
        }
        done = at;
    }
    cuts.done()
}

/// Masks the password of each `scheme://user:password@host` in a JSON text.
///
/// The user's part ends at the last `@` before the path. Some passwords hold a `/`, `?` or `#` that should have been escaped: they give
/// themselves away by what follows the colon being no port, and then the last `@` of the whole word counts.
fn without_url_passwords(text: &str) -> Cow<'_, str> {
    let mut cuts = Cuts::new(text);
    let mut at = 0;
    while let Some(found) = memmem::find(&text.as_bytes()[at..], b"://") {
        let from = at + found + 3;
        let word = &text[from..from + url_length(&text[from..])];
        at = from;
        let authority = word.find(['/', '?', '#']).map_or(word, |end| &word[..end]);
        let port = authority.split_once(':').map_or("", |(_, port)| port);
        let user_end = authority.rfind('@').or_else(|| {
            let odd = !authority.starts_with('[') && port.bytes().any(|b| !b.is_ascii_digit());
            odd.then(|| word.rfind('@')).flatten()
        });
        let Some(user_end) = user_end else { continue };
        if let Some(colon) = word[..user_end].find(':')
            && colon + 1 < user_end
        {
            cuts.replace(from + colon + 1, from + user_end, MASK);
        }
        at = from + user_end;
    }
    cuts.done()
}

/// How far a URL may reach in a JSON text: to white space, a quotation mark, a bracket that is none of its own, or an escape that stands for one
/// of these.
fn url_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => match bytes.get(at + 1) {
                Some(b'\\') => at += 2,
                // Go writes `&`, `<` and `>` so.
                Some(b'u') if text.get(at + 2..at + 6).is_some() => at += 6,
                _ => break,
            },
            b'"' | b'\'' | b'`' | b'<' | b'>' | 0..=b' ' => break,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masker() -> Masker {
        let patterns = crate::model::DEFAULT_SECRETS.split(',').map(str::to_owned);
        Masker::new(&patterns.collect::<Vec<_>>()).expect("the patterns are sound")
    }

    #[test]
    fn names_of_secrets_are_known_in_any_spelling() {
        let masker = masker();
        for name in [
            "MYSQL_ROOT_PASSWORD",
            "password",
            "DbPasswd",
            "AWS_SECRET_ACCESS_KEY",
            "api-key",
            "apikey",
            "ssl.key",
            "GITHUB_TOKEN",
            "splunk-token",
            "SMTP_PASS",
            "MYSQL_PWD",
            "CREDENTIALS_FILE",
            "traefik.http.middlewares.a.basicauth.users",
        ] {
            assert!(masker.is_secret(name), "{name}");
        }
        for name in [
            "PATH",
            "PWD",
            "KEYMAP",
            "MONKEY",
            "COMPASS",
            "maintainer",
            "AUTHOR",
            "",
        ] {
            assert!(!masker.is_secret(name), "{name}");
        }
    }

    #[test]
    fn bad_patterns_are_all_named() {
        let patterns = ["ok*", "[", "{a"].map(String::from);
        let error = Masker::new(&patterns).unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert!(
            lines[0].starts_with("failed to read pattern `[`: "),
            "{error}"
        );
        assert!(
            lines[1].starts_with("failed to read pattern `{a`: "),
            "{error}"
        );
    }

    #[test]
    fn passwords_in_urls_are_masked_and_nothing_else() {
        for (text, masked) in [
            ("redis://:pw@h", "redis://:***@h"),
            ("a=amqp://u:p@ss@h/v b", "a=amqp://u:***@h/v b"),
            (
                "redis://:p1@h1,redis://:p2@h2",
                "redis://:***@h1,redis://:***@h2",
            ),
            (
                "mongodb://u:p@h1:1,h2:2/d?x=y@z",
                "mongodb://u:***@h1:1,h2:2/d?x=y@z",
            ),
            ("amqp://u:p/w@h", "amqp://u:***@h"),
            ("amqp://u:p#w?@h/x", "amqp://u:***@h/x"),
            (r"http://u:p\u0026w@h", "http://u:***@h"),
            (r"http://u:p\\w@h", "http://u:***@h"),
            (r#"\"http://h\",\"a:b@c\""#, r#"\"http://h\",\"a:b@c\""#),
            (r"http://h\na:b@c", r"http://h\na:b@c"),
            ("http://h:80/a:b@c", "http://h:80/a:b@c"),
            ("http://[::1]:80/a@c", "http://[::1]:80/a@c"),
            ("http://h/a:b@c", "http://h/a:b@c"),
            ("ssh://git@h:o/r", "ssh://git@h:o/r"),
            ("http://u:@h", "http://u:@h"),
            ("image@sha256:abc://", "image@sha256:abc://"),
            ("http://ü:ä@ö", "http://ü:***@ö"),
            ("u:p@h", "u:p@h"),
            ("u:p@tcp(h:3306)/db", "u:***@tcp(h:3306)/db"),
            (
                r#""DSN=u:p@s=s:/w@unix(/s)/db""#,
                r#""DSN=u:***@unix(/s)/db""#,
            ),
            (
                r#""u:p@tcp(h)/a x:y@tcp(h)/b""#,
                r#""u:***@tcp(h)/a x:***@tcp(h)/b""#,
            ),
            (r"a:b\nu:p\u0026@tcp(h)", r"a:***@tcp(h)"),
            ("mysql://u:p@tcp(h)/db", "mysql://u:***@tcp(h)/db"),
            ("u@tcp(h)/db", "u@tcp(h)/db"),
            ("u:@tcp(h)/db", "u:@tcp(h)/db"),
            ("a:b@(c)", "a:b@(c)"),
        ] {
            assert_eq!(without_passwords(text), masked, "{text}");
        }
    }

    #[test]
    fn secrets_inside_of_a_variable_that_is_json_are_masked() {
        let masker = masker();
        let masked = |text: &str| {
            let pairs = serde_json::json!([text]).to_string();
            let masked = masker.pairs(&pairs).into_owned();
            let read: Vec<String> = serde_json::from_str(&masked).expect("it stays JSON");
            read[0].clone()
        };
        for (text, expected) in [
            (
                r#"C={"db": {"password": "p", "user": "u"}}"#,
                r#"C={"db":{"password":"***","user":"u"}}"#,
            ),
            (r#"C=[{"api_key":"k\"k"}]"#, r#"C=[{"api_key":"***"}]"#),
            (r#"C={"user": "u"}"#, r#"C={"user": "u"}"#),
            (r#"C={"password"#, r#"C={"password"#),
            ("C={", "C={"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    proptest! {
        #[test]
        fn urls_of_any_sort_do_no_harm(text in "(://|@t\\(|[:@/?#\"\\\\u\\PC0a ]){0,20}") {
            let quoted = serde_json::json!({"Id": &text, "Z": "z"}).to_string();
            let masked = without_passwords(&quoted);
            let read: serde_json::Value = serde_json::from_str(&masked).expect("it stays JSON");
            prop_assert_eq!(&read["Z"], "z");
        }
    }
}
