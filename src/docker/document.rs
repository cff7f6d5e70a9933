//! An inspect's bytes -> the document that Redis holds: flattened, masked, digested. No secret passes beyond this file but in a container's labels
//! for core, which are told to commands as the engine's own events tell them, and to nobody else.
//!
//! The text is never turned into a tree of values. It is rid of passwords in URLs, then shown member by member down to the second level; what is
//! masked or left out is cut from it, so that all else stays as Docker wrote it, in Docker's order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::json::{Cuts, Members, check, compact, members, place_in, text, unquoted};
use super::mask::without_passwords;
pub use super::mask::{MASK, Masker};
use super::time;
use super::wire::{WireError, place};
use crate::model::{Document, Fields, Summary, answer_digest, digest, signal_number};

/// Makes an inspect's answer into a document. The error tells where the fault is and quotes nothing, since secrets are not masked yet.
pub fn document(bytes: &[u8], masker: &Masker) -> Result<Document, WireError> {
    let text = text(bytes);
    let masked = match masker.is_off() {
        true => Cow::Borrowed(&*text),
        false => without_passwords(&text),
    };
    check(&masked).map_err(|cause| fault(&place(&cause)))?;
    let sound = masked.trim();
    let mut build = Build::new(sound, masker);
    let compacted;
    if !build.inspect() {
        compacted = compact(sound);
        build = Build::new(&compacted, masker);
        build.inspect();
    }
    // What is masked in URLs is not to be missed by who asks for labels.
    if let Cow::Owned(_) = &masked
        && let Some(labels) = section_member(text.trim(), "Config", "Labels")
    {
        build.summary.labels(labels);
    }
    if build.summary.id.is_empty() {
        return Err(fault("it has no `Id`"));
    }
    let json = build.cuts.done();
    let (fields, shape) = last_of_each(build.fields);
    Ok(Document {
        digest: digest(&json),
        answer: Some(answer_digest(bytes)),
        fields,
        shape,
        json: json.into(),
        summary: build.summary.told(),
    })
}

fn fault(cause: &str) -> WireError {
    WireError {
        text: format!("failed to decode inspect: {cause}"),
    }
}

/// A document in the making, of a sound text.
struct Build<'t> {
    masker: &'t Masker,
    text: &'t str,
    cuts: Cuts<'t>,
    fields: Fields,
    summary: Facts,
}

impl<'t> Build<'t> {
    fn new(text: &'t str, masker: &'t Masker) -> Self {
        Build {
            masker,
            text,
            cuts: Cuts::new(text),
            fields: Fields::with_capacity(160, text.len()),
            summary: Facts::default(),
        }
    }

    /// The first level. Of a text that turns out to have white space between its tokens (Docker's has none) this makes nothing of use, and `false`: it has
    /// to be compacted first.
    fn inspect(&mut self) -> bool {
        let mut begun = false;
        let mut all = members(self.text);
        while let Some(raw_key) = all.name() {
            let key = unquoted(raw_key);
            let section = all.inner().filter(|_| key != "ExecIDs");
            if let Some(mut section) = section {
                self.section(&key, &mut section);
                all.leave(section);
                begun = true;
                continue;
            }
            let Some(raw) = all.value() else { break };
            if key == "ExecIDs" {
                self.leave_out(raw_key, raw, begun);
                continue;
            }
            begun = true;
            self.summary.note("", &key, raw);
            push_field(&mut self.fields, "", &key, raw);
        }
        !all.is_wide()
    }

    /// Cuts a member, with the comma before it or, where nothing stands there, the one behind.
    fn leave_out(&mut self, raw_key: &str, raw: &str, begun: bool) {
        let from = place_in(self.text, raw_key);
        let to = place_in(self.text, raw) + raw.len();
        match begun {
            true => self.cuts.replace(from - 1, to, ""),
            false => {
                let comma = self.text[to..].starts_with(',');
                self.cuts.replace(from, to + usize::from(comma), "");
            }
        }
    }

    /// The second level: one of the objects of the first, such as `Config`.
    fn section(&mut self, section: &str, members: &mut Members<'t>) {
        let mut prefix = section.to_ascii_lowercase();
        if !prefix.is_empty() {
            prefix.push('_');
        }
        let (mut address, mut networks) = ("null", "");
        for (raw_key, raw) in members {
            let key = unquoted(raw_key);
            self.summary.note(section, &key, raw);
            let value = match (section, &*key) {
                ("State", "Health") => without_log(raw),
                ("Config", "Env") => self.masker.pairs(raw),
                // The places where users write names of their own.
                ("Config", "Labels") => {
                    self.summary.labels(raw);
                    self.masker.members(raw)
                }
                ("HostConfig", "Annotations" | "LogConfig" | "Mounts" | "StorageOpt") => {
                    self.masker.members(raw)
                }
                _ => Cow::Borrowed(raw),
            };
            match (section, &*key) {
                ("NetworkSettings", "Networks") => networks = raw,
                ("NetworkSettings", "IPAddress") => {
                    address = raw;
                    if is_no_text(raw) {
                        continue;
                    }
                }
                _ => {}
            }
            if let Cow::Owned(value) = &value {
                let from = place_in(self.text, raw);
                self.cuts.replace(from, from + raw.len(), value);
            }
            push_field(&mut self.fields, &prefix, &key, &value);
        }
        if is_no_text(address) {
            let elsewhere = first_address(networks).unwrap_or(address);
            push_field(&mut self.fields, &prefix, "IPAddress", elsewhere);
        }
    }
}

/// The facts for core, as raw text until the whole is known to be sound.
#[derive(Default)]
struct Facts {
    id: String,
    name: String,
    image: String,
    started_at: String,
    exit_code: i64,
    runs: bool,
    paused: bool,
    health: String,
    networks: Vec<(Box<str>, Box<str>)>,
    stop_signal: Option<u8>,
    labels: Vec<(Box<str>, Box<str>)>,
}

impl Facts {
    fn note(&mut self, section: &str, key: &str, raw: &str) {
        match (section, key) {
            ("", "Id") => self.id = text_of(raw),
            ("", "Name") => self.name = text_of(raw),
            ("Config", "Image") => self.image = text_of(raw),
            ("Config", "StopSignal") => self.stop_signal = signal_number(&text_of(raw)),
            ("State", "StartedAt") => self.started_at = text_of(raw),
            ("State", "ExitCode") => self.exit_code = raw.parse().unwrap_or(0),
            // Podman's paused containers are not `Running`; Docker's are both.
            ("State", "Running" | "Paused" | "Restarting") => {
                self.runs |= raw == "true";
                self.paused |= key == "Paused" && raw == "true";
            }
            ("State", "Health") => self.health = member(raw, "Status"),
            ("NetworkSettings", "Networks") => {
                let named = |(name, raw)| (unquoted(name).into(), member(raw, "NetworkID").into());
                self.networks = members(raw).map(named).collect();
            }
            _ => {}
        }
    }

    /// The labels in plain. What is no object has none.
    fn labels(&mut self, raw: &str) {
        self.labels = members(raw)
            .map(|(name, value)| (unquoted(name).into(), text_of(value).into()))
            .collect();
    }

    fn told(self) -> Summary {
        let has = |label: &str| self.labels.iter().any(|(name, _)| &**name == label);
        let name = self.name.strip_prefix('/').unwrap_or(&self.name);
        Summary {
            name: Arc::from(name),
            image: self.image.into(),
            running: self.runs,
            paused: self.paused,
            health: self.health.into(),
            networks: self.networks.into(),
            started_ns: time::rfc3339_ns(&self.started_at),
            started_at: self.started_at.into(),
            exit_code: self.exit_code,
            hides_exit_code: has("exitCode"),
            hides_signal: has("signal"),
            stop_signal: self.stop_signal,
            labels: Some(self.labels.into()),
        }
    }
}

/// A member of one of the objects of the first level. The last one of a name counts, as everywhere.
fn section_member<'t>(text: &'t str, section: &str, name: &str) -> Option<&'t str> {
    let last = |text: &'t str, name: &str| {
        let named = members(text).filter(|(raw_key, _)| unquoted(raw_key) == name);
        named.last().map(|(_, raw)| raw)
    };
    last(last(text, section)?, name)
}

/// `State.Health` without its log, which changes with each check and without an event.
fn without_log(raw: &str) -> Cow<'_, str> {
    if !raw.starts_with('{') {
        return Cow::Borrowed(raw);
    }
    let mut kept = String::with_capacity(raw.len());
    for (raw_key, raw) in members(raw) {
        if unquoted(raw_key) != "Log" {
            kept.push(if kept.is_empty() { '{' } else { ',' });
            kept.push_str(raw_key);
            kept.push(':');
            kept.push_str(raw);
        }
    }
    kept.push_str(if kept.is_empty() { "{}" } else { "}" });
    Cow::Owned(kept)
}

/// The text of an object's member; empty where there is none.
fn member(raw: &str, name: &str) -> String {
    let mut named = members(raw).filter(|(key, _)| unquoted(key) == name);
    let found = named.next().filter(|(_, raw)| *raw != "null");
    found.map_or_else(String::new, |(_, raw)| text_of(raw))
}

/// The first address in `NetworkSettings.Networks`: newer engines keep addresses there alone, and readers have always found one in `IPAddress`.
fn first_address(networks: &str) -> Option<&str> {
    members(networks).find_map(|(_, network)| {
        let (_, address) = members(network).find(|(key, _)| *key == "\"IPAddress\"")?;
        (!is_no_text(address)).then_some(address)
    })
}

fn is_no_text(raw: &str) -> bool {
    matches!(raw, "null" | r#""""#)
}

/// Adds a value's field: a scalar as plain text, anything else as JSON, nothing for `null`. Docker's own names are ASCII.
fn push_field(fields: &mut Fields, prefix: &str, key: &str, raw: &str) {
    if raw == "null" {
        return;
    }
    let value = match raw.starts_with('"') {
        true => unquoted(raw),
        false => Cow::Borrowed(raw),
    };
    fields.push_lower(prefix, key, &value);
}

/// Names that differ only in case, or in where a `_` comes from, are one field: the last one stands. And the digest of all names.
fn last_of_each(fields: Fields) -> (Fields, u64) {
    // Almost always each name stands there once, and its digest tells that sooner than a map.
    let mut digests: Vec<u64> = fields.iter().map(|(name, _)| digest(name)).collect();
    digests.sort_unstable();
    digests.dedup();
    let shape = digests.iter().fold(0, |sum: u64, it| sum.wrapping_add(*it));
    if digests.len() == fields.len() {
        return (fields, shape);
    }
    let mut last: HashMap<&str, usize> = HashMap::with_capacity(fields.len());
    for (at, (name, _)) in fields.iter().enumerate() {
        last.insert(name, at);
    }
    let stays = |(at, (name, _)): &(usize, (&str, &str))| last.get(name) == Some(at);
    let kept = fields.iter().enumerate().filter(stays);
    (kept.map(|(_, field)| field).collect(), shape)
}

/// A scalar's plain text; of anything else the JSON.
fn text_of(raw: &str) -> String {
    if raw.starts_with('"') {
        unquoted(raw).into_owned()
    } else {
        raw.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// dockerd 20.10.24, shortened.
    const INSPECT: &str = r#"{"Id":"6830810d","Created":"2026-11-22T13:03:02.496301405Z","Args":["1000"],"State":{"Status":"running","Running":true,"Paused":false,"Pid":19639,"ExitCode":0,"Error":"","StartedAt":"2026-11-22T13:03:02.893254447Z","Health":{"Status":"healthy","FailingStreak":0,"Log":[{"End":"2026","ExitCode":0,"Output":"{"}]}},"Name":"/web-1","RestartCount":0,"ExecIDs":["b2c4"],"HostConfig":{"Binds":null,"LogConfig":{"Type":"splunk","Config":{"splunk-token":"hunter2","tag":"x"}},"Memory":9007199254740993,"CpuQuota":1e3},"GraphDriver":{},"Mounts":[],"Config":{"Hostname":"6830810d2164","Env":["URL=postgres://u:pa$$w@db:5432/x?a=<b>&c","JSON={\"a\":\"b\\\\c\"}","DB_PASSWORD=hunter2","EMPTY_TOKEN=","TOKEN"],"Cmd":["/bin/sleep","1000"],"Image":"web:1","Labels":{"exitCode":"9","web.token":"a\"b","x":"{\"u\":\"http://me:secret@h/\"}"}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostPort":"32768"}]},"IPAddress":"172.17.0.2","Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}
"#;

    fn masker() -> &'static Masker {
        static MASKER: LazyLock<Masker> = LazyLock::new(|| {
            let patterns = crate::model::DEFAULT_SECRETS.split(',').map(str::to_owned);
            Masker::new(&patterns.collect::<Vec<_>>()).expect("the patterns are sound")
        });
        &MASKER
    }

    fn decoded(text: &str) -> Document {
        document(text.as_bytes(), masker()).expect("it decodes")
    }

    fn label(name: &str, value: &str) -> (Box<str>, Box<str>) {
        (name.into(), value.into())
    }

    fn field<'a>(document: &'a Document, name: &str) -> Option<&'a str> {
        document.fields.get(name)
    }

    #[test]
    fn an_inspect_is_flattened_masked_and_kept_in_order() {
        let document = decoded(INSPECT);
        let expected = [
            ("id", "6830810d"),
            ("created", "2026-11-22T13:03:02.496301405Z"),
            ("args", r#"["1000"]"#),
            ("state_status", "running"),
            ("state_running", "true"),
            ("state_paused", "false"),
            ("state_pid", "19639"),
            ("state_exitcode", "0"),
            ("state_error", ""),
            ("state_startedat", "2026-11-22T13:03:02.893254447Z"),
            ("state_health", r#"{"Status":"healthy","FailingStreak":0}"#),
            ("name", "/web-1"),
            ("restartcount", "0"),
            (
                "hostconfig_logconfig",
                r#"{"Type":"splunk","Config":{"splunk-token":"***","tag":"x"}}"#,
            ),
            ("hostconfig_memory", "9007199254740993"),
            ("hostconfig_cpuquota", "1e3"),
            ("mounts", "[]"),
            ("config_hostname", "6830810d2164"),
            (
                "config_env",
                r#"["URL=postgres://u:***@db:5432/x?a=<b>&c","JSON={\"a\":\"b\\\\c\"}","DB_PASSWORD=***","EMPTY_TOKEN=","TOKEN"]"#,
            ),
            ("config_cmd", r#"["/bin/sleep","1000"]"#),
            ("config_image", "web:1"),
            (
                "config_labels",
                r#"{"exitCode":"9","web.token":"***","x":"{\"u\":\"http://me:***@h/\"}"}"#,
            ),
            (
                "networksettings_ports",
                r#"{"80/tcp":[{"HostPort":"32768"}]}"#,
            ),
            ("networksettings_ipaddress", "172.17.0.2"),
            (
                "networksettings_networks",
                r#"{"bridge":{"IPAddress":"172.17.0.2"}}"#,
            ),
        ];
        let fields = document.fields.iter();
        let fields: Vec<_> = fields.collect();
        assert_eq!(fields, expected);
        let summary = Summary {
            name: "web-1".into(),
            image: "web:1".into(),
            running: true,
            paused: false,
            health: "healthy".into(),
            networks: [("bridge".into(), "".into())].into(),
            started_at: "2026-11-22T13:03:02.893254447Z".into(),
            started_ns: Some(1_795_352_582_893_254_447),
            exit_code: 0,
            hides_exit_code: true,
            hides_signal: false,
            stop_signal: None,
            labels: Some(
                [
                    label("exitCode", "9"),
                    label("web.token", "a\"b"),
                    label("x", r#"{"u":"http://me:secret@h/"}"#),
                ]
                .into(),
            ),
        };
        assert_eq!(document.summary, summary);
    }

    #[test]
    fn the_json_is_the_answer_but_for_what_is_masked_and_volatile() {
        let expected = INSPECT
            .trim_end()
            .replace(r#","Log":[{"End":"2026","ExitCode":0,"Output":"{"}]"#, "")
            .replace(r#","ExecIDs":["b2c4"]"#, "")
            .replace("hunter2", "***")
            .replace("pa$$w", "***")
            .replace(r#"a\"b"#, "***")
            .replace("me:secret@", "me:***@");
        assert_eq!(&*decoded(INSPECT).json, expected);
    }

    #[test]
    fn without_patterns_nothing_is_masked() {
        let open = Masker::new(&[]).expect("none is wrong");
        let document = document(INSPECT.as_bytes(), &open).expect("it decodes");
        for secret in ["DB_PASSWORD=hunter2", "u:pa$$w@db", r#""web.token":"a\"b""#] {
            assert!(document.json.contains(secret), "{secret}");
        }
    }

    #[test]
    fn the_shape_is_that_of_the_names() {
        let shape = |text: &str| decoded(text).shape;
        let before = r#"{"Id":"a","State":{"Pid":1,"Error":""},"Path":"x"}"#;
        for same in [
            r#"{"Id":"b","State":{"Pid":2,"Error":"x"},"Path":""}"#,
            r#"{"Path":"x","State":{"Error":"","Pid":1},"Id":"a"}"#,
            r#"{"Id":"a","State":{"Pid":1,"Error":"","pid":2},"Path":"x"}"#,
        ] {
            assert_eq!(shape(before), shape(same), "{same}");
        }
        for other in [
            r#"{"Id":"a","State":{"Pid":1,"Error":null},"Path":"x"}"#,
            r#"{"Id":"a","State":{"Pid":1},"Path":"x","Error":""}"#,
            r#"{"Id":"a","State":{"Pid":1,"Error":""},"Path":"x","Args":[]}"#,
        ] {
            assert_ne!(shape(before), shape(other), "{other}");
        }
    }

    #[test]
    fn checks_and_execs_do_not_change_the_digest_and_all_else_does() {
        let digest = |text: &str| decoded(text).digest;
        let checked = INSPECT.replace(r#""Output":"{""#, r#""Output":"fine""#);
        assert_eq!(
            digest(INSPECT),
            digest(&checked.replace(r#"["b2c4"]"#, "null"))
        );
        assert_ne!(digest(INSPECT), digest(&INSPECT.replace("19639", "19640")));
        assert_ne!(
            digest(INSPECT),
            digest(&INSPECT.replace("\"healthy", "\"unhealthy"))
        );
    }

    #[test]
    fn execs_are_left_out_wherever_they_stand() {
        for (text, json) in [
            (r#"{"ExecIDs":null,"Id":"a"}"#, r#"{"Id":"a"}"#),
            (r#"{"Id":"a","ExecIDs":["b"],"Z":1}"#, r#"{"Id":"a","Z":1}"#),
            (r#"{"Id":"a", "ExecIDs": ["b"] }"#, r#"{"Id":"a"}"#),
            (
                r#"{"ExecIDs":[],"ExecIDs":{},"Id":"a","ExecIDs":1,"ExecIDs":2}"#,
                r#"{"Id":"a"}"#,
            ),
        ] {
            assert_eq!(&*decoded(text).json, json, "{text}");
        }
    }

    #[test]
    fn white_space_between_tokens_does_not_count() {
        let value: serde_json::Value = serde_json::from_str(INSPECT).expect("it is JSON");
        let wide = serde_json::to_string_pretty(&value).expect("it is a value");
        let narrow = value.to_string();
        let of_no_answer = |text: &str| Document {
            answer: None,
            ..decoded(text)
        };
        assert_eq!(of_no_answer(&wide), of_no_answer(&narrow));
    }

    #[test]
    fn the_address_is_found_where_newer_engines_keep_it() {
        let with =
            |settings: &str| decoded(&format!(r#"{{"Id":"a","NetworkSettings":{settings}}}"#));
        let networks = r#""Networks":{"a":{"IPAddress":""},"b":null,"c":{"IPAddress":"10.0.0.2"},"d":{"IPAddress":"10.0.0.3"}}"#;
        for top in ["", r#""IPAddress":"","#, r#""IPAddress":null,"#] {
            let document = with(&format!("{{{top}{networks}}}"));
            assert_eq!(
                field(&document, "networksettings_ipaddress"),
                Some("10.0.0.2"),
                "{top}"
            );
            assert_eq!(
                document.json.contains(r#""IPAddress":"","#),
                !top.is_empty() && !top.contains("null")
            );
        }
        let late = with(&format!(r#"{{{networks},"IPAddress":"","Z":""}}"#));
        assert_eq!(field(&late, "networksettings_ipaddress"), Some("10.0.0.2"));
        assert_eq!(field(&late, "networksettings_z"), Some(""));
        let own = with(&format!(r#"{{"IPAddress":"10.9.9.9",{networks}}}"#));
        assert_eq!(field(&own, "networksettings_ipaddress"), Some("10.9.9.9"));
        let none = with(r#"{"Networks":{"host":{"IPAddress":""}}}"#);
        assert_eq!(field(&none, "networksettings_ipaddress"), None);
        let odd = with(r#"{"IPAddress":"","Networks":[1]}"#);
        assert_eq!(field(&odd, "networksettings_ipaddress"), Some(""));
    }

    #[test]
    fn a_name_stands_once_with_its_last_value() {
        let document = decoded(r#"{"Id":"a","A_B":1,"a":{"b":2,"B":3},"":{"C":5},"C":4,"Id":"b"}"#);
        let expected = [("a_b", "3"), ("c", "4"), ("id", "b")];
        let fields = document.fields.iter();
        let fields: Vec<_> = fields.collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_runs_is_what_docker_lists() {
        for (state, runs) in [
            (r#"{"Running":true,"Paused":true}"#, true),
            (r#"{"Running":false,"Paused":true}"#, true),
            (r#"{"Running":false,"Restarting":true}"#, true),
            (r#"{"Running":false,"Dead":true,"ExitCode":137}"#, false),
            ("null", false),
        ] {
            let document = decoded(&format!(r#"{{"Id":"a","State":{state}}}"#));
            assert_eq!(document.summary.running, runs, "{state}");
            assert_eq!(
                document.summary.exit_code,
                if state.contains("137") { 137 } else { 0 }
            );
            assert!(!document.summary.hides_exit_code);
        }
    }

    #[test]
    fn a_stop_signal_and_labels_are_told_in_any_form() {
        let with = |config: &str| decoded(&format!(r#"{{"Id":"a","Config":{config}}}"#)).summary;
        let stop_signal = |config: &str| with(config).stop_signal;
        assert_eq!(stop_signal(r#"{"StopSignal":"SIGQUIT"}"#), Some(3));
        assert_eq!(stop_signal(r#"{"StopSignal":"37"}"#), Some(37));
        assert_eq!(stop_signal(r#"{"StopSignal":10}"#), Some(10));
        assert_eq!(stop_signal(r#"{"StopSignal":"no"}"#), None);
        assert!(with(r#"{"Labels":{"signal":"9"}}"#).hides_signal);
        for none in ["null", "[]", "{}", "7"] {
            let labels = with(&format!(r#"{{"Labels":{none}}}"#)).labels;
            assert_eq!(labels.as_deref(), Some(&[][..]), "{none}");
        }
    }

    #[test]
    fn what_is_no_inspect_is_told_without_its_content() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"Id":"a","Name":"hunter2""#,
            r#"{"Id":"a"} hunter2"#,
        ] {
            let error = document(text.as_bytes(), masker()).unwrap_err();
            assert!(
                error.text.starts_with("failed to decode inspect: "),
                "{error}"
            );
            assert!(!error.text.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let text = format!(
            r#"{{"Id":"a","HostConfig":{{"LogConfig":{deep}}},"Config":{{"Env":{deep}}}}}"#
        );
        assert_eq!(&*decoded(&text).json, text);
    }

    #[test]
    fn nothing_of_the_corpus_brings_it_down() {
        for (name, bytes) in crate::corpus::corpus("answers") {
            if let Ok(document) = document(&bytes, masker()) {
                let read: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&document.json);
                // Depth is no fault of ours, but one of who reads it.
                let fits = read.is_ok() || name.starts_with("deep");
                assert!(fits, "{name}: {}", document.json);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes: Vec<u8>) {
            let _ = document(&bytes, masker());
        }

        #[test]
        fn no_bent_inspect_brings_it_down(at in 0..INSPECT.len(), byte: u8, cut in 0..INSPECT.len()) {
            let mut bent = INSPECT.as_bytes().to_vec();
            bent[at] = byte;
            let masker = masker();
            let _ = document(&bent[..cut], masker);
            if let Ok(document) = document(&bent, masker) {
                let read: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&document.json);
                prop_assert!(read.is_ok(), "{}", document.json);
            }
        }

        /// Whatever a secret consists of, none of it passes.
        #[test]
        fn no_secret_passes(secret in "\\PC{0,12}", tail in "[^*\\\\]{1,3}") {
            let secret = format!("S3CR{secret}{tail}");
            let quoted = serde_json::json!({"Id": "a", "Config": {
                "Env": [format!("DB_PASSWORD={secret}")],
                "Labels": {"my.token": &secret, "z": ""},
            }});
            let document = decoded(&quoted.to_string());
            prop_assert!(!document.json.contains("S3CR"), "{}", document.json);
            let env = field(&document, "config_env");
            prop_assert_eq!(env, Some("[\"DB_PASSWORD=***\"]"));
        }

    }
}
