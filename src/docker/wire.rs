//! Docker's JSON, from bytes to the domain's plain data: an event's line, what an engine says of itself.
//!
//! Nothing here waits for anything. Unknown fields are passed over, `null` counts as missing, and Podman's dialect comes out in Docker's words.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::json::text;
use super::time;
use crate::model::{Event, Fields, Hello, Scope};

/// The most characters of a bad text that an error quotes.
const QUOTED: usize = 120;

/// Room for the attributes of an event; those of a container with many labels take more.
const ATTRIBUTES: usize = 192;

/// Bytes that are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WireError {
    /// One line: ``failed to decode <noun> `<text, cut>`: <cause>``.
    pub text: String,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for WireError {}

impl WireError {
    fn quoting(noun: &str, bytes: &[u8], cause: impl fmt::Display) -> Self {
        let text = format!("failed to decode {noun} `{}`: {cause}", quote(bytes));
        WireError { text }
    }
}

/// Decodes one line of `/events`. `None`: the line is empty, or the lone separator of a JSON text sequence.
///
/// The old form (`status`, `id`, `from`, seconds) and the newest (`Action`, `Actor`, `timeNano` alone) both do. The command line that an
/// `exec_*` carries is cut off here, and never stands in an error.
pub fn event(line: &[u8]) -> Result<Option<Event>, WireError> {
    let text = text(line);
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{1e}');
    if text.is_empty() {
        return Ok(None);
    }
    let wire: WireEvent = serde_json::from_str(text)
        .map_err(|cause| WireError::quoting("event", text.as_bytes(), place(&cause)))?;
    if wire.action.0.is_empty() && wire.status.0.is_empty() {
        return Err(WireError::quoting(
            "event",
            text.as_bytes(),
            "it has neither `Action` nor `status`",
        ));
    }
    Ok(Some(in_our_words(wire)))
}

/// Decodes the answer to `/info` into a [`Hello`] that knows nothing but that; [`Hello::clock_ns`] is 0 where the engine did not tell the time.
pub fn info(bytes: &[u8]) -> Result<Hello, WireError> {
    let info: WireInfo = serde_json::from_slice(bytes)
        .map_err(|cause| WireError::quoting("answer to `/info`", bytes, place(&cause)))?;
    Ok(Hello {
        engine_id: info.id.0.into_owned(),
        host_name: info.name.0.into_owned(),
        os: info.operating_system.0.into_owned(),
        kernel: info.kernel_version.0.into_owned(),
        architecture: info.architecture.0.into_owned(),
        cpus: info.cpus.and_then(|n| n.try_into().ok()).unwrap_or(0),
        memory: info.memory.and_then(|n| n.try_into().ok()).unwrap_or(0),
        clock_ns: time::rfc3339_ns(&info.system_time.0).unwrap_or(0),
        ..Hello::default()
    })
}

/// Decodes the answer to `/version` into `28.5.2;git-abc1234;go1.24.1`; a part that the engine does not tell is left out.
pub fn version(bytes: &[u8]) -> Result<String, WireError> {
    let version: WireVersion = serde_json::from_slice(bytes)
        .map_err(|cause| WireError::quoting("answer to `/version`", bytes, place(&cause)))?;
    let commit = match &*version.git_commit.0 {
        "" => Cow::Borrowed(""),
        commit => Cow::Owned(format!("git-{commit}")),
    };
    let parts = [&*version.version.0, &*commit, &*version.go_version.0];
    let told: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(told.join(";"))
}

/// What an answer that is an error says: Docker's `message`, else the text itself where it is short and plain. One line, cut.
pub fn message(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        message: Text<'a>,
    }
    let said = match serde_json::from_slice::<Message>(bytes) {
        Ok(said) => said.message.0.into_owned(),
        // A proxy's page of HTML helps nobody.
        Err(_) if bytes.trim_ascii_start().starts_with(b"<") => return None,
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    };
    let words: Vec<&str> = said.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(3 * QUOTED).collect();
    (!line.is_empty()).then_some(line)
}

/// Turns an event into the form and the words of today's Docker.
fn in_our_words(wire: WireEvent) -> Event {
    let action = first_of(wire.action, wire.status);
    let id = first_of(wire.actor.id, wire.id);
    let kind = match &*wire.kind.0 {
        // Before there was a `Type`, these were the words of images and all others those of containers.
        "" => match &*action {
            "delete" | "import" | "load" | "pull" | "push" | "save" | "tag" | "untag" => "image",
            _ => "container",
        },
        kind => kind,
    };
    // The command line behind the verb may hold secrets.
    let verb = match action.split_once(':') {
        Some((verb, _)) if kind == "container" && action.starts_with("exec_") => verb,
        _ => &*action,
    };
    let mut event = Event {
        kind: kind.into(),
        action: verb.into(),
        id: id.into(),
        attributes: wire.actor.attributes.0,
        time_ns: match wire.time_nano {
            Some(ns) if ns != 0 => ns,
            _ => wire.time.unwrap_or(0).saturating_mul(1_000_000_000),
        },
        scope: match &*wire.scope.0 {
            "swarm" => Scope::Swarm,
            _ => Scope::Local,
        },
    };
    if !wire.from.0.is_empty() && event.attribute("image").is_none() {
        event.attributes.push("image", &wire.from.0);
    }
    match &*event.kind {
        "container" => settle_action(&mut event, &wire.health_status.0),
        // Podman's own id is that of the container; Docker tells it as an attribute.
        "network"
            if matches!(&*event.action, "connect" | "disconnect")
                && event.attribute("container").is_none() =>
        {
            event.attributes.push("container", &event.id);
        }
        _ => {}
    }
    event
}

/// Says in Docker's words what Podman says in its own.
fn settle_action(event: &mut Event, health: &str) {
    match &*event.action {
        "died" => event.action = "die".into(),
        "remove" => event.action = "destroy".into(),
        "health_status" => {
            let told = event.attribute("health_status").unwrap_or(health);
            if !told.is_empty() {
                event.action = format!("health_status: {told}").as_str().into();
            }
        }
        _ => {}
    }
    if &*event.action == "die" && event.attribute("exitCode").is_none() {
        let ours = |(name, value)| match name {
            "containerExitCode" => ("exitCode", value),
            name => (name, value),
        };
        event.attributes = event.attributes.iter().map(ours).collect();
    }
}

fn first_of<'a>(one: Text<'a>, other: Text<'a>) -> Cow<'a, str> {
    if one.0.is_empty() { other.0 } else { one.0 }
}

/// A bad text for a message: printable, cut, and without the command line of an `exec_*`.
fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..4 * QUOTED).unwrap_or(bytes));
    let shown = text
        .split_once("exec_")
        .map_or(&*text, |(before, _)| before);
    let cut = shown.len() < bytes.len() || shown.chars().count() > QUOTED;
    let mut quoted: String = shown
        .chars()
        .take(QUOTED)
        .flat_map(char::escape_debug)
        .collect();
    if cut {
        quoted.push('…');
    }
    quoted
}

/// Where and of what sort a fault is; never what stands there, which may be a secret.
pub(super) fn place(cause: &serde_json::Error) -> String {
    let what = match cause.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a field is missing or of the wrong type",
        _ => "it is not JSON",
    };
    format!("{what} (line {}, column {})", cause.line(), cause.column())
}

/// A text that may also be `null`; borrowed where it holds no escapes.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or null")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Names and values in the order they came; may be `null`.
#[derive(Default)]
struct Pairs(Fields);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts or null")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Fields::with_capacity(0, ATTRIBUTES);
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    pairs.push(&name, &value);
                }
                Ok(Pairs(pairs))
            }
            fn visit_unit<E>(self) -> Result<Pairs, E> {
                Ok(Pairs::default())
            }
        }
        deserializer.deserialize_any(PairsVisitor)
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct WireEvent<'a> {
    #[serde(borrow, rename = "Type")]
    kind: Text<'a>,
    #[serde(borrow, rename = "Action")]
    action: Text<'a>,
    #[serde(borrow, rename = "Actor", deserialize_with = "or_default")]
    actor: WireActor<'a>,
    #[serde(rename = "timeNano")]
    time_nano: Option<i64>,
    time: Option<i64>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    from: Text<'a>,
    #[serde(borrow)]
    scope: Text<'a>,
    /// Podman's.
    #[serde(borrow, rename = "HealthStatus")]
    health_status: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireActor<'a> {
    #[serde(borrow, rename = "ID")]
    id: Text<'a>,
    #[serde(rename = "Attributes")]
    attributes: Pairs,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireInfo<'a> {
    #[serde(borrow, rename = "ID")]
    id: Text<'a>,
    #[serde(borrow, rename = "Name")]
    name: Text<'a>,
    #[serde(borrow, rename = "SystemTime")]
    system_time: Text<'a>,
    #[serde(borrow, rename = "OperatingSystem")]
    operating_system: Text<'a>,
    #[serde(borrow, rename = "KernelVersion")]
    kernel_version: Text<'a>,
    #[serde(borrow, rename = "Architecture")]
    architecture: Text<'a>,
    #[serde(rename = "NCPU")]
    cpus: Option<i64>,
    #[serde(rename = "MemTotal")]
    memory: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireVersion<'a> {
    #[serde(borrow, rename = "Version")]
    version: Text<'a>,
    #[serde(borrow, rename = "GitCommit")]
    git_commit: Text<'a>,
    #[serde(borrow, rename = "GoVersion")]
    go_version: Text<'a>,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As dockerd 20.10.24 sends it.
    const START: &str = r#"{"status":"start","id":"6830810d","from":"web:1","Type":"container","Action":"start","Actor":{"ID":"6830810d","Attributes":{"exitCode":"9","image":"web:1","name":"web-1"}},"scope":"local","time":1795352582,"timeNano":1795352582893254447}"#;
    /// As dockerd sends it since API 1.52.
    const NEWEST: &str = r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"6830810d","Attributes":{"image":"web:1","name":"web-1"}},"scope":"local","timeNano":1795352584000000001}"#;

    fn decoded(line: &str) -> Event {
        let event = event(line.as_bytes());
        event.expect("it decodes").expect("it is no empty line")
    }

    fn attributes(event: &Event) -> Vec<(&str, &str)> {
        event.attributes.iter().collect()
    }

    #[test]
    fn an_event_is_decoded_in_full() {
        let start = decoded(START);
        assert_eq!(
            (&*start.kind, &*start.action, &*start.id),
            ("container", "start", "6830810d")
        );
        assert_eq!(start.time_ns, 1_795_352_582_893_254_447);
        let expected = [("exitCode", "9"), ("image", "web:1"), ("name", "web-1")];
        assert_eq!(attributes(&start), expected);
        let newest = decoded(NEWEST);
        assert_eq!(&*newest.action, "health_status: healthy");
        assert_eq!(newest.time_ns, 1_795_352_584_000_000_001);
        assert_eq!(newest.scope, Scope::Local);
        let service = decoded(r#"{"Type":"service","Action":"create","scope":"swarm"}"#);
        assert_eq!(service.scope, Scope::Swarm);
    }

    #[test]
    fn the_oldest_form_is_understood() {
        let die = decoded(r#"{"status":"die","id":"abc","from":"ubuntu","time":1795352582}"#);
        assert_eq!(
            (&*die.kind, &*die.action, &*die.id),
            ("container", "die", "abc")
        );
        assert_eq!(die.time_ns, 1_795_352_582_000_000_000);
        assert_eq!(attributes(&die), [("image", "ubuntu")]);
        assert_eq!(
            &*decoded(r#"{"status":"pull","id":"ubuntu","time":1}"#).kind,
            "image"
        );
    }

    #[test]
    fn separators_and_empty_lines_are_no_events() {
        for line in ["", "\n", "\r\n", "\u{1e}", "\u{1e}\n", "  "] {
            assert_eq!(event(line.as_bytes()), Ok(None), "{line:?}");
        }
        let marked = format!("\u{1e}{NEWEST}\r");
        assert_eq!(decoded(&marked), decoded(NEWEST));
    }

    #[test]
    fn null_and_unknown_fields_are_passed_over() {
        let line = r#"{"Type":null,"Action":"start","Actor":null,"status":null,"new":{"a":[1]},"time":null,"timeNano":7}"#;
        let event = decoded(line);
        assert_eq!((&*event.kind, event.time_ns), ("container", 7));
        let line = r#"{"Action":"start","Actor":{"ID":null,"Attributes":null},"id":"abc"}"#;
        assert_eq!(&*decoded(line).id, "abc");
    }

    #[test]
    fn the_command_line_of_an_exec_is_cut_off() {
        for form in [
            r#"{"Type":"container","Action":"exec_create: sh -c \"PW=a:hunter2\"","timeNano":1}"#,
            r#"{"status":"exec_create: sh -c hunter2","id":"abc","time":1}"#,
        ] {
            assert_eq!(&*decoded(form).action, "exec_create");
            // Broken anywhere, its error does not tell the command either.
            for end in 0..form.len() {
                if let Err(error) = event(&form.as_bytes()[..end]) {
                    assert!(!error.text.contains("hunter2"), "{}", error.text);
                }
            }
        }
    }

    #[test]
    fn podman_is_put_into_dockers_words() {
        let died = r#"{"Type":"container","Action":"died","Actor":{"ID":"a","Attributes":{"containerExitCode":"3"}}}"#;
        let died = decoded(died);
        assert_eq!(
            (&*died.action, died.attribute("exitCode")),
            ("die", Some("3"))
        );
        let both = r#"{"status":"die","id":"a","Actor":{"Attributes":{"containerExitCode":"0","exitCode":"3"}}}"#;
        assert_eq!(decoded(both).attribute("exitCode"), Some("3"));
        // Every event of older versions has the attribute; it means something only with the end.
        let start = r#"{"Action":"start","Actor":{"Attributes":{"containerExitCode":"0"}}}"#;
        assert_eq!(decoded(start).attribute("exitCode"), None);
        let sick = r#"{"Action":"health_status","HealthStatus":"unhealthy"}"#;
        assert_eq!(&*decoded(sick).action, "health_status: unhealthy");
        let sick =
            r#"{"Action":"health_status","Actor":{"Attributes":{"health_status":"unhealthy"}}}"#;
        assert_eq!(&*decoded(sick).action, "health_status: unhealthy");
        assert_eq!(
            &*decoded(r#"{"Action":"health_status"}"#).action,
            "health_status"
        );
        assert_eq!(
            &*decoded(r#"{"Type":"container","Action":"remove"}"#).action,
            "destroy"
        );
        let net = r#"{"Type":"network","Action":"connect","Actor":{"ID":"c1","Attributes":{"network":"n"}}}"#;
        assert_eq!(decoded(net).container(), Some("c1"));
        let net = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"c1"}}}"#;
        assert_eq!(attributes(&decoded(net)), [("container", "c1")]);
    }

    #[test]
    fn what_is_no_event_is_quoted_and_cut() {
        let error = event(br#"{"Action":7}"#).unwrap_err();
        assert_eq!(
            error.text,
            "failed to decode event `{\\\"Action\\\":7}`: a field is missing or of the wrong type (line 1, column 11)"
        );
        let error = event(br#"{"Type":"container"}"#).unwrap_err();
        assert!(
            error.text.ends_with("it has neither `Action` nor `status`"),
            "{}",
            error.text
        );
        let error = event(&b"\x00\xff".repeat(1 << 20)).unwrap_err();
        assert!(
            error.text.len() < 1000 && !error.text.contains('\0'),
            "{}",
            error.text
        );
    }

    #[test]
    fn an_engine_says_who_it_is_as_far_as_it_does() {
        let said = info(
            br#"{"ID":"Q2","Name":"ubuntu","SystemTime":"2026-11-22T13:03:02.5Z","OperatingSystem":"Debian","KernelVersion":"6.1","Architecture":"x86_64","NCPU":2,"MemTotal":4096,"Swarm":{}}"#,
        );
        let expected = Hello {
            engine_id: "Q2".into(),
            host_name: "ubuntu".into(),
            os: "Debian".into(),
            kernel: "6.1".into(),
            architecture: "x86_64".into(),
            cpus: 2,
            memory: 4096,
            clock_ns: 1_795_352_582_500_000_000,
            ..Hello::default()
        };
        assert_eq!(said, Ok(expected));
        assert_eq!(info(b"{}"), Ok(Hello::default()));
        let nulls = br#"{"ID":null,"NCPU":null,"MemTotal":-1,"SystemTime":""}"#;
        assert_eq!(info(nulls), Ok(Hello::default()));
        assert!(info(b"<html>").is_err());
    }

    #[test]
    fn a_version_has_the_parts_that_are_told() {
        let told =
            br#"{"Version":"28.5.2","GitCommit":"abc1234","GoVersion":"go1.24.1","Os":"linux"}"#;
        assert_eq!(version(told).as_deref(), Ok("28.5.2;git-abc1234;go1.24.1"));
        assert_eq!(version(br#"{"Version":"4.3.1"}"#).as_deref(), Ok("4.3.1"));
        assert_eq!(version(b"{}").as_deref(), Ok(""));
    }

    #[test]
    fn an_errors_message_is_found_in_one_line() {
        let said = |bytes: &[u8]| message(bytes);
        assert_eq!(
            said(b"{\"message\":\"too\\n new\"}\n").as_deref(),
            Some("too new")
        );
        assert_eq!(
            said(b"Client sent HTTP\n").as_deref(),
            Some("Client sent HTTP")
        );
        assert_eq!(said(b" <html><body>403</body>"), None);
        assert_eq!(said(b""), None);
        assert_eq!(said(&b"x".repeat(9000)).map(|line| line.len()), Some(360));
    }

    #[test]
    fn nothing_of_the_corpus_brings_the_decoders_down() {
        for (name, bytes) in crate::corpus::corpus("answers") {
            let _ = (info(&bytes), version(&bytes));
            // Whatever is told of them is short and holds no command line.
            let told = event(&bytes).err().map(|error| error.text);
            for text in told.into_iter().chain(message(&bytes)) {
                assert!(text.chars().count() < 8 * QUOTED, "{name}: {text}");
            }
            let error = event(&bytes)
                .err()
                .map_or(String::new(), |error| error.text);
            assert!(!error.contains("hunter2"), "{name}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_decoders_down(bytes: Vec<u8>) {
            let _ = (event(&bytes), info(&bytes), version(&bytes), message(&bytes));
        }

        #[test]
        fn no_bent_event_brings_the_decoder_down(at in 0..START.len(), byte: u8, cut in 0..START.len()) {
            let mut bent = START.as_bytes().to_vec();
            bent[at] = byte;
            let _ = event(&bent);
            let _ = event(&bent[..cut]);
            prop_assert!(event(&START.as_bytes()[..cut]).map_or(true, |event| event.is_none()));
        }
    }
}
