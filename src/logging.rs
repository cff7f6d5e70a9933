//! The log: one line a message on standard error, in the words of old, for journald, or as JSON.
//!
//! A message may quote what strangers wrote (names, labels, output of commands). Control characters in it are escaped here, so nobody can forge a
//! line or steer a terminal. Standard error that is closed, broken or not read is no reason to stop: the line is lost, nothing else.

mod patient;

use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};
use rustix::fs::fstat;
use serde::Serialize;
use tz::{DateTime, TimeZone};

use crate::config::LogFormat;
use patient::Patient;

/// Sets up the log of this process, once: its form, and the levels that `RUST_LOG` asks for (`info` unless set).
///
/// # Errors
/// There is a log already.
pub fn start(format: LogFormat) -> Result<(), log::SetLoggerError> {
    let form = match format {
        LogFormat::Json => Form::Json,
        LogFormat::Text if is_journal(env::var("JOURNAL_STREAM").ok().as_deref()) => Form::Journal,
        LogFormat::Text => Form::Text(local_zone(env::var("TZ").ok().as_deref())),
    };
    let filters = env::var("RUST_LOG").unwrap_or_default();
    let form = Arc::new(form);
    let told = form.clone();
    let stderr = Patient::new(io::stderr(), move |lost| missed(&told, lost));
    builder(form, &filters)
        .target(Target::Pipe(Box::new(stderr)))
        .try_init()
}

/// Says what the end of this process is about. Threads that still run have no more to say after it.
pub fn last_words(message: fmt::Arguments<'_>) {
    log::set_max_level(LevelFilter::Off);
    let mut record = Record::builder();
    let record = record.level(Level::Error).target(module_path!());
    log::logger().log(&record.args(message).build());
}

/// A text for one line of a terminal or a log: control characters, and those that end a line or turn its direction, are escaped as in Rust.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                escaped.extend(character.escape_unicode());
            }
            _ if character.is_control() => escaped.extend(character.escape_default()),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// The time of day in the zone that the log uses, for events.
#[derive(Debug)]
pub struct Clock(TimeZone);

impl Clock {
    /// In this process's zone.
    pub fn of_process() -> Clock {
        Clock(local_zone(env::var("TZ").ok().as_deref()))
    }

    /// In UTC.
    pub fn utc() -> Clock {
        Clock(TimeZone::utc())
    }

    /// `16:30:32`, for ns since 1970.
    pub fn time_of_day(&self, ns: i64) -> String {
        let since = Duration::from_nanos(u64::try_from(ns).unwrap_or(0));
        let time = local_time(UNIX_EPOCH + since, &self.0);
        time.split(' ').next_back().unwrap_or("").to_owned()
    }
}

/// How a line looks.
#[derive(Debug)]
enum Form {
    /// `2013/12/27 16:30:32 warning: …`, in this zone's time.
    Text(TimeZone),
    /// `<4>warning: …`: journald reads the priority and has a time of its own.
    Journal,
    /// `{"time":"2013-12-27T15:30:32.123Z","level":"warning","message":"…","thread":"core"}`
    Json,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: &'a str,
    level: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<&'a str>,
}

fn builder(form: Arc<Form>, filters: &str) -> Builder {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info);
    builder.parse_filters(filters);
    builder.format(move |out, record| writeln!(out, "{}", line(&form, SystemTime::now(), record)));
    builder
}

/// The line that stands in place of those that nobody read.
fn missed(form: &Form, lost: u64) -> String {
    let text = format_args!("{lost} lines of the log are lost: whoever reads it had stopped");
    let mut record = Record::builder();
    line(
        form,
        SystemTime::now(),
        &record.level(Level::Warn).args(text).build(),
    ) + "\n"
}

/// One line, without its end.
fn line(form: &Form, now: SystemTime, record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let level = word(record.level());
    let mut line = String::with_capacity(message.len() + 40);
    match form {
        Form::Text(zone) => {
            line.push_str(&local_time(now, zone));
            line.push(' ');
        }
        // Writing to a String cannot fail.
        Form::Journal => drop(write!(line, "<{}>", priority(record.level()))),
        Form::Json => {
            let thread = thread::current();
            let object = JsonLine {
                time: &rfc3339(now),
                level,
                message: &message,
                thread: thread.name(),
            };
            return serde_json::to_string(&object)
                .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        }
    }
    if record.level() != Level::Info {
        line.push_str(level);
        line.push_str(": ");
    }
    line.push_str(&escape(&message));
    line
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The level as syslog counts: 3 is an error, 7 is for those who look for faults.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The zone that `TZ` names, else the machine's; UTC where neither is known, as in an empty container.
fn local_zone(tz: Option<&str>) -> TimeZone {
    let zone = match tz {
        None => TimeZone::local(),
        Some("") => Ok(TimeZone::utc()),
        Some(name) => TimeZone::from_posix_tz(name),
    };
    zone.unwrap_or_else(|_| TimeZone::utc())
}

/// `2013/12/27 16:30:32`
fn local_time(now: SystemTime, zone: &TimeZone) -> String {
    date_time(now, zone).map_or_else(String::new, |time| {
        format!(
            "{:04}/{:02}/{:02} {:02}:{:02}:{:02}",
            time.year(),
            time.month(),
            time.month_day(),
            time.hour(),
            time.minute(),
            time.second(),
        )
    })
}

/// `2013-12-27T15:30:32.123Z`
fn rfc3339(now: SystemTime) -> String {
    date_time(now, &TimeZone::utc()).map_or_else(String::new, |time| {
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            time.year(),
            time.month(),
            time.month_day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.nanoseconds() / 1_000_000,
        )
    })
}

/// `None` only for a clock that is off by more years than a date can hold.
fn date_time(now: SystemTime, zone: &TimeZone) -> Option<DateTime> {
    // A clock before 1970 is unset; which second before matters to nobody.
    let since: Duration = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).ok()?;
    DateTime::from_timespec(seconds, since.subsec_nanos(), zone.as_ref()).ok()
}

/// Does `JOURNAL_STREAM` (`device:inode`) name our standard error? It is inherited, so alone it proves nothing.
fn is_journal(journal_stream: Option<&str>) -> bool {
    let Ok(stat) = fstat(io::stderr()) else {
        return false;
    };
    journal_stream == Some(&format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use log::Log;

    use super::*;

    /// 2013-12-27 15:30:32.123456 UTC
    fn then() -> SystemTime {
        UNIX_EPOCH + Duration::new(1_388_158_232, 123_456_000)
    }

    fn shown(form: &Form, level: Level, message: &str) -> String {
        let arguments = format_args!("{message}").to_string();
        line(
            form,
            then(),
            &Record::builder()
                .level(level)
                .args(format_args!("{arguments}"))
                .build(),
        )
    }

    #[test]
    fn text_has_the_local_time_and_a_word_for_what_is_not_info() {
        let form = Form::Text(local_zone(Some("CET-1")));
        assert_eq!(
            shown(
                &form,
                Level::Info,
                "Started monitoring Docker events (ubuntu)"
            ),
            "2013/12/27 16:30:32 Started monitoring Docker events (ubuntu)"
        );
        assert_eq!(
            shown(&form, Level::Warn, "redis is down"),
            "2013/12/27 16:30:32 warning: redis is down"
        );
        let form = Form::Text(local_zone(Some("")));
        assert_eq!(
            shown(&form, Level::Error, "no"),
            "2013/12/27 15:30:32 error: no"
        );
    }

    #[test]
    fn a_zone_comes_from_a_rule_or_is_utc() {
        let summer = UNIX_EPOCH + Duration::from_secs(1_404_144_000); // 2014-06-30 16:00 UTC
        let berlin = local_zone(Some("CET-1CEST,M3.5.0,M10.5.0/3"));
        assert_eq!(local_time(summer, &berlin), "2014/06/30 18:00:00");
        assert_eq!(local_time(then(), &berlin), "2013/12/27 16:30:32");
        let unknown = local_zone(Some("No/Such_Zone"));
        assert_eq!(local_time(then(), &unknown), "2013/12/27 15:30:32");
        assert_eq!(
            local_time(UNIX_EPOCH - Duration::from_secs(9), &unknown),
            "1970/01/01 00:00:00"
        );
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let cases = [
            (Level::Error, "<3>error: m"),
            (Level::Warn, "<4>warning: m"),
            (Level::Info, "<6>m"),
            (Level::Debug, "<7>debug: m"),
            (Level::Trace, "<7>trace: m"),
        ];
        for (level, line) in cases {
            assert_eq!(shown(&Form::Journal, level, "m"), line);
        }
    }

    #[test]
    fn json_is_one_object_a_line() {
        let message = "a \"name\"\n\u{1b}[31m";
        let line = shown(&Form::Json, Level::Warn, message);
        assert!(!line.contains(['\n', '\u{1b}']), "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(object["time"], "2013-12-27T15:30:32.123Z");
        assert_eq!(object["level"], "warning");
        assert_eq!(object["message"], message);
        assert_eq!(object["thread"].as_str(), thread::current().name());
    }

    #[test]
    fn nobody_can_forge_a_line() {
        let evil = "x\n2013/12/27 16:30:32 error: \u{1b}[2J\r\u{85}\u{2028}\u{202e}\t\0é ☃";
        for form in [Form::Journal, Form::Text(TimeZone::utc())] {
            let line = shown(&form, Level::Info, evil);
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(
                line.ends_with(
                    r"x\n2013/12/27 16:30:32 error: \u{1b}[2J\r\u{85}\u{2028}\u{202e}\t\u{0}é ☃"
                ),
                "{line}"
            );
        }
    }

    #[test]
    fn the_environment_sets_levels() {
        let enabled = |filters: &str, target: &str, level: Level| {
            let logger = builder(Form::Journal.into(), filters).build();
            logger.enabled(&log::Metadata::builder().target(target).level(level).build())
        };
        assert!(enabled("", "docker_cache::agent", Level::Info));
        assert!(!enabled("", "docker_cache::agent", Level::Debug));
        assert!(enabled("debug", "docker_cache::agent", Level::Debug));
        assert!(!enabled("off", "docker_cache", Level::Error));
    }

    #[test]
    fn a_broken_stream_is_no_reason_to_panic() {
        struct Broken;
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let logger = builder(Form::Journal.into(), "")
            .target(Target::Pipe(Box::new(Broken)))
            .build();
        for _ in 0..2 {
            logger.log(&Record::builder().level(Level::Error).build());
        }
    }

    /// The whole of it, in a process of its own: standard error is a file, which `JOURNAL_STREAM` names or does not.
    #[test]
    fn a_process_logs_to_its_standard_error() {
        const ALONE: &str = "DOCKER_CACHE_TEST_ALONE";
        if env::var_os(ALONE).is_some() {
            start(LogFormat::Text).expect("there is no log yet");
            log::info!("Listening to events...");
            start(LogFormat::Text).expect_err("there is one");
            return;
        }
        let path = env::temp_dir().join(format!("logging-{}", std::process::id()));
        let run = |journal_stream: Option<String>| {
            let file = std::fs::File::create(&path).expect("the folder is writable");
            let stat = fstat(&file).expect("it is open");
            let here = format!("{}:{}", stat.st_dev, stat.st_ino);
            let status = Command::new(env::current_exe().expect("it is running"))
                .args(["--exact", "--nocapture"])
                .arg("logging::tests::a_process_logs_to_its_standard_error")
                .envs([(ALONE, "1"), ("TZ", "CET-1"), ("RUST_LOG", "info")])
                .env("JOURNAL_STREAM", journal_stream.unwrap_or(here))
                .stdout(Stdio::null())
                .stderr(file)
                .status()
                .expect("it can be run again");
            assert!(status.success());
            std::fs::read_to_string(&path).expect("it is text")
        };
        let journal = run(None);
        let text = run(Some("8:1".into()));
        let _ = std::fs::remove_file(&path);
        assert_eq!(journal, "<6>Listening to events...\n");
        assert!(text.ends_with(" Listening to events...\n"), "{text}");
        let digits = text
            .chars()
            .take(19)
            .map(|c| if c.is_ascii_digit() { '0' } else { c });
        assert_eq!(digits.collect::<String>(), "0000/00/00 00:00:00", "{text}");
    }
}
