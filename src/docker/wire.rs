//! Docker's JSON, from bytes to the domain's plain data: an event's line, a list, what an engine says of itself.
//!
//! Nothing here reads or waits. Unknown fields are passed over, `null` counts as missing, and Podman's dialect comes out in Docker's words.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::model::{ContainerId, Event, Hello, Row};

/// The most characters of a bad text that an error quotes.
const QUOTED: usize = 120;

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
    let text = String::from_utf8_lossy(line);
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

/// Decodes the answer to a list of containers; an empty list may be `null`.
pub fn rows(bytes: &[u8]) -> Result<Vec<Row>, WireError> {
    let rows: Option<Vec<WireRow>> = serde_json::from_slice(bytes)
        .map_err(|cause| WireError::quoting("list of containers", bytes, place(&cause)))?;
    let rows = rows.unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|row| Row {
            id: ContainerId::from(&*row.id),
            // The second line holds the words that only Podman has; `removing` follows an end on both.
            running: !matches!(
                &*row.state.0,
                "created"
                    | "exited"
                    | "dead"
                    | "removing"
                    | "configured"
                    | "initialized"
                    | "stopped"
            ),
        })
        .collect())
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
        clock_ns: rfc3339_ns(&info.system_time.0).unwrap_or(0),
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

/// Reads a time such as `2026-11-22T12:46:07.123456789+01:00` as ns since 1970; `None` where it is none, or not within 1677 to 2262.
pub fn rfc3339_ns(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let mark = |at: usize, marks: &[u8]| bytes.get(at).is_some_and(|byte| marks.contains(byte));
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":")) {
        return None;
    }
    let (fraction, zone) = match text.get(19..)?.strip_prefix('.') {
        None => ("", text.get(19..)?),
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
    };
    let zone_s = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let s = number(zone, 1, 3)? * 3600 + number(zone, 4, 6)? * 60;
            if *sign == b'+' { s } else { -s }
        }
        _ => return None,
    };
    let day = days_since_1970(
        number(text, 0, 4)?,
        number(text, 5, 7)?,
        number(text, 8, 10)?,
    )?;
    let clock = clock_s(
        number(text, 11, 13)?,
        number(text, 14, 16)?,
        number(text, 17, 19)?,
    )?;
    let s = day * 86_400 + clock - zone_s;
    // Digits after the ninth are finer than a ns.
    let ns: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    s.checked_mul(1_000_000_000)?.checked_add(ns.parse().ok()?)
}

/// Reads the time of a `Date` header, `Sun, 22 Nov 2026 12:46:07 GMT`, as ns since 1970.
pub fn http_date_ns(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (_, date) = text.split_once(", ")?;
    let [day, month, year, clock, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let month = (0..12).find(|at| MONTHS.get(at * 3..at * 3 + 3) == Some(month))? as i64 + 1;
    let day = days_since_1970(number(year, 0, 4)?, month, number(day, 0, 2)?)?;
    let clock = clock_s(
        number(clock, 0, 2)?,
        number(clock, 3, 5)?,
        number(clock, 6, 8)?,
    )?;
    (day * 86_400 + clock).checked_mul(1_000_000_000)
}

/// Turns an event into the form and the words of today's Docker.
fn in_our_words(wire: WireEvent) -> Event {
    let action = first_of(wire.action, wire.status);
    let id = first_of(wire.actor.id, wire.id);
    let kind = match &*wire.kind.0 {
        // Before there was a `Type`, these were the words of images and all others those of containers.
        "" => match &*action {
            "delete" | "import" | "load" | "pull" | "push" | "save" | "tag" | "untag" => {
                "image".into()
            }
            _ => "container".into(),
        },
        kind => kind.into(),
    };
    let attributes = wire.actor.attributes.0.into_iter();
    let mut event = Event {
        kind,
        action: action.into(),
        id: id.into(),
        attributes: attributes
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        time_ns: match wire.time_nano {
            Some(ns) if ns != 0 => ns,
            _ => wire.time.unwrap_or(0).saturating_mul(1_000_000_000),
        },
    };
    if !wire.from.0.is_empty() && event.attribute("image").is_none() {
        event.attributes.push(("image".into(), wire.from.0.into()));
    }
    match &*event.kind {
        "container" => settle_action(&mut event, &wire.health_status.0),
        // Podman's own id is that of the container; Docker tells it as an attribute.
        "network" if matches!(&*event.action, "connect" | "disconnect") => {
            if event.attribute("container").is_none() {
                event
                    .attributes
                    .push(("container".into(), event.id.clone()));
            }
        }
        _ => {}
    }
    event
}

/// Cuts command lines off and says in Docker's words what Podman says in its own.
fn settle_action(event: &mut Event, health: &str) {
    match &*event.action {
        "died" => event.action = "die".into(),
        "remove" => event.action = "destroy".into(),
        "health_status" => {
            let told = event.attribute("health_status").unwrap_or(health);
            if !told.is_empty() {
                event.action = format!("health_status: {told}").into();
            }
        }
        action if action.starts_with("exec_") => {
            if let Some((verb, _)) = action.split_once(':') {
                event.action = verb.into();
            }
        }
        _ => {}
    }
    if &*event.action == "die" && event.attribute("exitCode").is_none() {
        let mut attributes = event.attributes.iter_mut();
        if let Some((name, _)) = attributes.find(|(name, _)| &**name == "containerExitCode") {
            *name = "exitCode".into();
        }
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

/// The digits of `text[from..to]` and nothing else.
fn number(text: &str, from: usize, to: usize) -> Option<i64> {
    let digits = text.get(from..to)?;
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok())?
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The year is let begin in March, so that the leap day is its last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let year = if month <= 2 { year - 1 } else { year };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(year * 365 + leap_days + day_of_year - 719_468)
}

/// Seconds since midnight; a leap second is let pass.
fn clock_s(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour <= 23 && minute <= 59 && second <= 60).then(|| hour * 3600 + minute * 60 + second)
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
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts or null")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::with_capacity(8);
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }
            fn visit_unit<E>(self) -> Result<Pairs<'de>, E> {
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
    /// Podman's.
    #[serde(borrow, rename = "HealthStatus")]
    health_status: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireActor<'a> {
    #[serde(borrow, rename = "ID")]
    id: Text<'a>,
    #[serde(borrow, rename = "Attributes")]
    attributes: Pairs<'a>,
}

#[derive(Deserialize)]
struct WireRow<'a> {
    #[serde(borrow, rename = "Id")]
    id: Cow<'a, str>,
    #[serde(borrow, default, rename = "State")]
    state: Text<'a>,
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
