//! Each field of a filter in a table, and that what is explained is what is decided.

use super::*;
use crate::core::backoff::Random;
use crate::model::{Cause, ExitCodes, Filter, LabelList, Labels, Patterns};

/// `a`, `!b`
/// Nothing is a secret here.
const PLAIN: Shown<'static> = &|_, value| value.to_owned();

fn patterns(texts: &[&str]) -> Patterns {
    let (none, any): (Vec<&str>, Vec<&str>) = texts.iter().partition(|text| text.starts_with('!'));
    Patterns {
        any: any.into_iter().map(str::to_owned).collect(),
        none: none.iter().map(|text| text[1..].to_owned()).collect(),
    }
}

fn labels(all: bool, labels: &[(&str, Option<&str>)]) -> Labels {
    let owned = |(name, value): &(&str, Option<&str>)| {
        let value = value.map(str::to_owned);
        ((*name).to_owned(), value)
    };
    Labels {
        labels: labels.iter().map(owned).collect(),
        all,
    }
}

fn entry(filter: Filter) -> Entry {
    Entry {
        name: "e".into(),
        filter,
        command: Some("true".into()),
        ..Entry::default()
    }
}

fn types(words: &[&str]) -> Filter {
    Filter {
        types: patterns(words),
        ..Filter::default()
    }
}

fn event(kind: &str, action: &str, attributes: &[(&str, &str)]) -> Event {
    Event {
        kind: kind.into(),
        action: action.into(),
        id: "c1".into(),
        attributes: attributes.iter().copied().collect(),
        ..Event::default()
    }
}

fn subject(event: &Event) -> Subject<'_> {
    Subject {
        event,
        engine: "Foo",
        container: Fact::Is("Web-1"),
        image: Fact::Is("library/ubuntu:22.04"),
        labels: Fact::None,
        exit_code: Fact::None,
        asked: None,
    }
}

/// What one entry says of it.
fn verdict(entry: &Entry, subject: &Subject) -> Verdict {
    let rules = Rules::new(&[Arc::new(entry.clone())]);
    let verdict = rules.verdict(0, subject);
    let matches = rules.matches(subject);
    assert_eq!(!matches.entries.is_empty(), verdict == Verdict::Runs);
    assert_eq!(
        matches.pending,
        matches!(verdict, Verdict::Pending(_)),
        "{verdict:?}"
    );
    verdict
}

/// Does the filter want it, and what is said of it?
#[track_caller]
fn says(filter: &Filter, subject: &Subject, said: &str) {
    let entry = entry(filter.clone());
    let verdict = verdict(&entry, subject);
    assert_eq!(verdict.say(&entry, subject, PLAIN), said, "{filter:?}");
}

#[test]
fn every_matching_entry_runs_and_one_that_does_not_match_stops_nothing() {
    let rules = Rules::new(&[
        Arc::new(entry(types(&["die"]))),
        Arc::new(entry(Filter {
            containers: patterns(&["db-*"]),
            ..types(&["die"])
        })),
        Arc::new(entry(Filter {
            engines: patterns(&["FOO"]),
            image_contains: vec!["ubuntu".into()],
            ..types(&["kill", "die"])
        })),
    ]);
    let die = event("container", "die", &[]);
    let ask = |subject: &Subject| {
        let matches = rules.matches(subject);
        (matches.entries, matches.caught)
    };
    assert_eq!(ask(&subject(&die)), (vec![0, 2], true));
    let db = Subject {
        container: Fact::Is("DB-1"),
        ..subject(&die)
    };
    assert_eq!(ask(&db), (vec![0, 1, 2], true));
    let start = event("container", "start", &[]);
    assert_eq!(ask(&subject(&start)), (vec![], false));
}

#[test]
fn a_type_is_a_word_a_glob_a_whole_action_or_another_object_and_stars_mean_what_engines_tell() {
    for (asked, kind, action, fits) in [
        (&["die"][..], "container", "die", true),
        (&["die"], "container", "start", false),
        (&["start", "die"], "container", "die", true),
        (&["*"], "container", "die", true),
        (&["d*"], "container", "destroy", true),
        (&["*", "!exec_*"], "container", "die", true),
        (&["*", "!exec_*"], "container", "exec_start", false),
        (&["!exec_*"], "container", "die", true),
        (&["!exec_*"], "container", "exec_die", false),
        (&["!exec_*"], "network", "connect", true),
        (
            &["health_status"],
            "container",
            "health_status: unhealthy",
            true,
        ),
        (
            &["health_status: unhealthy"],
            "container",
            "health_status: unhealthy",
            true,
        ),
        (
            &["health_status: unhealthy"],
            "container",
            "health_status: healthy",
            false,
        ),
        (
            &["health_status", "!health_status: healthy"],
            "container",
            "health_status: healthy",
            false,
        ),
        (&["network/*"], "network", "connect", true),
        (&["connect"], "network", "connect", false),
        (&["*"], "network", "connect", true),
        (&["daemon/reload"], "daemon", "reload", true),
        (&["image/pull", "volume/create"], "volume", "create", true),
        // Our own words are meant only by who says so.
        (&["engine/down"], "engine", "down", true),
        (&["engine/*"], "engine", "gap", true),
        (&["engine/*", "!engine/gap"], "engine", "gap", false),
        (&["engine/*", "!engine/gap"], "engine", "up", true),
        (&["engine/*", "!*"], "engine", "up", true),
        (&["*"], "engine", "down", false),
        (&["*/*"], "engine", "down", false),
        (&["{engine/down,die}"], "engine", "down", false),
        (&["!die"], "engine", "down", false),
        (&["*"], "container", EXISTING, false),
        (&["["], "container", "die", false),
    ] {
        let event = event(kind, action, &[]);
        let verdict = verdict(&entry(types(asked)), &subject(&event));
        let expected = match fits {
            true => Verdict::Runs,
            false => Verdict::Refused(Reason::Filter(Field::Type)),
        };
        assert_eq!(verdict, expected, "{asked:?}: {kind} {action}");
    }
    let start = event("container", "start", &[]);
    says(
        &types(&["kill", "!die"]),
        &subject(&start),
        "no: type asks for `kill`, `!die`, it is `start`",
    );
    let sick = event("container", "health_status: unhealthy", &[]);
    says(
        &types(&["die"]),
        &subject(&sick),
        "no: type asks for `die`, it is `health_status: unhealthy`",
    );
}

#[test]
fn an_entry_for_what_runs_already_asks_for_no_type_then() {
    let existing = |words: &[&str]| Entry {
        existing: true,
        ..entry(Filter {
            containers: patterns(&["web-*"]),
            ..types(words)
        })
    };
    let there = event("container", EXISTING, &[]);
    let start = event("container", "start", &[]);
    let other = Subject {
        container: Fact::Is("db"),
        ..subject(&there)
    };
    for words in [&[][..], &["start"], &["!start"]] {
        let entry = existing(words);
        assert_eq!(
            verdict(&entry, &subject(&there)),
            Verdict::Runs,
            "{words:?}"
        );
        assert_ne!(verdict(&entry, &other), Verdict::Runs, "{words:?}");
    }
    assert_eq!(
        verdict(&existing(&["start"]), &subject(&start)),
        Verdict::Runs
    );
    let said = |entry: Entry, event: &Event| {
        verdict(&entry, &subject(event)).say(&entry, &subject(event), PLAIN)
    };
    assert_eq!(
        said(existing(&[]), &start),
        "no: it asks for existing containers, it is `start`"
    );
    assert_eq!(
        said(entry(types(&["*"])), &there),
        "no: it does not ask for existing containers"
    );
}

#[test]
fn names_and_images_are_globs_without_case_and_a_bang_takes_away() {
    let die = event("container", "die", &[]);
    for (asked, fits) in [
        (&["web-1"][..], true),
        (&["WEB-?"], true),
        (&["web-[12]"], true),
        (&["web-1*"], true),
        (&["*1"], true),
        (&["w{eb,ab}-1"], true),
        (&["web\\-1"], true),
        (&["webb*"], false),
        (&["db", "web-*"], true),
        (&["db"], false),
        (&["*", "!web-*"], false),
        (&["!db"], true),
        (&["!web-1"], false),
        (&["web-*", "!web-2"], true),
    ] {
        let filter = Filter {
            containers: patterns(asked),
            ..types(&["*"])
        };
        let runs = verdict(&entry(filter), &subject(&die)) == Verdict::Runs;
        assert_eq!(runs, fits, "{asked:?}");
    }
    let asks = |engines: &[&str], images: &[&str], parts: &[&str]| Filter {
        engines: patterns(engines),
        images: patterns(images),
        image_contains: parts.iter().map(|part| (*part).to_owned()).collect(),
        ..types(&["*"])
    };
    let subject = subject(&die);
    says(
        &asks(&["foo"], &["*/ubuntu:*"], &["untu"]),
        &subject,
        "would run",
    );
    says(
        &asks(&["bar", "b*"], &[], &[]),
        &subject,
        "no: from_engine asks for `bar`, `b*`, it is `Foo`",
    );
    says(
        &asks(&["!foo"], &[], &[]),
        &subject,
        "no: from_engine asks for `!foo`, it is `Foo`",
    );
    says(
        &asks(&[], &["ubuntu"], &[]),
        &subject,
        "no: image asks for `ubuntu`, it is `library/ubuntu:22.04`",
    );
    says(
        &asks(&[], &["*", "!*:22.04"], &[]),
        &subject,
        "no: image asks for `*`, `!*:22.04`, it is `library/ubuntu:22.04`",
    );
    says(
        &asks(&[], &[], &["Ubuntu", "debian"]),
        &subject,
        "no: image_contains asks for `Ubuntu`, `debian`, it is `library/ubuntu:22.04`",
    );
}

#[test]
fn who_asks_for_a_container_wants_events_of_containers_only() {
    let pull = event("image", "pull", &[]);
    let none = Subject {
        container: Fact::None,
        image: Fact::None,
        ..subject(&pull)
    };
    for (filter, said) in [
        (
            Filter {
                containers: patterns(&["!web"]),
                ..types(&["*"])
            },
            "no: from_container asks for `!web`, there is no container",
        ),
        (
            Filter {
                images: patterns(&["*"]),
                ..types(&["*"])
            },
            "no: image asks for `*`, there is no image",
        ),
        (
            Filter {
                labels: labels(true, &[("tier", None)]),
                ..types(&["*"])
            },
            "no: labels asks for `tier`, it has no `tier`",
        ),
        (
            Filter {
                exit_codes: ExitCodes {
                    any: vec![],
                    none: vec![(0, 0)],
                },
                ..types(&["*"])
            },
            "no: exit_code asks for `!0`, there is none",
        ),
        (
            Filter {
                causes: vec![Cause::Stop],
                ..types(&["*"])
            },
            "no: cause asks for `stop`, only a `die` has one",
        ),
    ] {
        says(&filter, &none, said);
    }
}

#[test]
fn labels_come_from_the_event_or_from_the_last_document() {
    let die = event(
        "container",
        "die",
        &[("tier", "web"), ("a", ""), ("name", "Web-1")],
    );
    let connect = event(
        "network",
        "connect",
        &[("tier", "the network's"), ("container", "c1")],
    );
    let list: LabelList = Arc::new([("tier".into(), "web".into()), ("name".into(), "N".into())]);
    let of_document = |event| Subject {
        labels: Fact::Is(&list),
        ..subject(event)
    };
    let is = |name, value| (name, Some(value));
    for (all, asked, of_event, of_list) in [
        (true, &[("tier", None)][..], true, true),
        (true, &[is("tier", "*")], true, true),
        (true, &[is("tier", "web")], true, true),
        (true, &[is("tier", "w?b")], true, true),
        (true, &[is("tier", "Web")], false, false),
        (true, &[("Tier", None)], false, false),
        (true, &[is("a", "*")], true, false),
        (true, &[is("tier", "db")], false, false),
        (true, &[is("tier", "web"), ("b", None)], false, false),
        (false, &[is("tier", "web"), ("b", None)], true, true),
        (false, &[("b", None), ("a", None)], true, false),
        (false, &[("b", None), ("c", None)], false, false),
        // The container's name is not its label of that name.
        (true, &[is("name", "N")], false, true),
        (true, &[is("name", "Web-1")], false, false),
    ] {
        let entry = entry(Filter {
            labels: labels(all, asked),
            ..types(&["*"])
        });
        let runs = |subject: &Subject| verdict(&entry, subject) == Verdict::Runs;
        assert_eq!(runs(&subject(&die)), of_event, "{all} {asked:?}");
        assert_eq!(runs(&of_document(&connect)), of_list, "{all} {asked:?}");
    }
    fn asks(asked: &[(&str, Option<&str>)]) -> Filter {
        Filter {
            labels: labels(true, asked),
            ..types(&["*"])
        }
    }
    says(
        &asks(&[is("tier", "db"), ("b", None)]),
        &subject(&die),
        "no: labels asks for `tier=db` and `b`, it has `tier=web` and no `b`",
    );
    says(
        &asks(&[is("tier", "db")]),
        &subject(&die),
        "no: labels asks for `tier=db`, it has `tier=web`",
    );
    let pending = Subject {
        labels: Fact::Pending,
        ..subject(&connect)
    };
    says(
        &asks(&[("b", None)]),
        &pending,
        "perhaps: labels asks for `b`, which only an inspect tells",
    );
    let mut settled = pending;
    settled.settle();
    says(
        &asks(&[("b", None)]),
        &settled,
        "no: labels asks for `b`, it has no `b`",
    );
    // A container's own event carries all its labels, so that one that is not there is none.
    let created = Subject {
        labels: Fact::Pending,
        ..subject(&die)
    };
    says(
        &asks(&[("b", None)]),
        &created,
        "no: labels asks for `b`, it has no `b`",
    );
    says(
        &asks(&[("signal", None)]),
        &created,
        "perhaps: labels asks for `signal`, which only an inspect tells",
    );
}

#[test]
fn exit_codes_are_ranges() {
    let codes = |any: &[(i64, i64)], none: &[(i64, i64)]| Filter {
        exit_codes: ExitCodes {
            any: any.to_vec(),
            none: none.to_vec(),
        },
        ..types(&["die"])
    };
    let die = event("container", "die", &[]);
    let with = |exit_code| Subject {
        exit_code,
        ..subject(&die)
    };
    let ends = [0, 1, 125, 126, 137];
    for (filter, fit) in [
        (codes(&[(137, 137)], &[]), &[137][..]),
        (codes(&[], &[(0, 0)]), &[1, 125, 126, 137]),
        (codes(&[(1, 125)], &[]), &[1, 125]),
        (codes(&[(1, 125), (137, 137)], &[]), &[1, 125, 137]),
        (codes(&[(0, 126)], &[(1, 1), (125, 125)]), &[0, 126]),
    ] {
        let entry = entry(filter);
        let runs = |code: &i64| verdict(&entry, &with(Fact::Is(*code))) == Verdict::Runs;
        let found: Vec<i64> = ends.into_iter().filter(runs).collect();
        assert_eq!(found, fit, "{:?}", entry.filter);
    }
    let filter = codes(&[(1, 125), (137, 137)], &[(3, 3)]);
    says(
        &filter,
        &with(Fact::Is(0)),
        "no: exit_code asks for `1..125`, `137`, `!3`, it is 0",
    );
    says(
        &filter,
        &with(Fact::Pending),
        "perhaps: exit_code asks for `1..125`, `137`, `!3`, which a label `exitCode` hides: only an inspect tells",
    );
    says(
        &filter,
        &with(Fact::None),
        "no: exit_code asks for `1..125`, `137`, `!3`, there is none",
    );
}

#[test]
fn a_cause_is_what_was_asked_for_or_a_bad_end() {
    use Cause::{Crash, Oom, Stop};
    let die = event("container", "die", &[]);
    for (asked, exit_code, cause) in [
        (None, Fact::Is(1), Fact::Is(Crash)),
        (None, Fact::Is(0), Fact::None),
        (None, Fact::None, Fact::Is(Crash)),
        (None, Fact::Pending, Fact::Pending),
        (Some(Stop), Fact::Is(0), Fact::Is(Stop)),
        (Some(Stop), Fact::Pending, Fact::Is(Stop)),
        (Some(Oom), Fact::Is(137), Fact::Is(Oom)),
    ] {
        let subject = Subject {
            exit_code,
            asked,
            ..subject(&die)
        };
        assert_eq!(subject.cause(), cause, "{asked:?}, {exit_code:?}");
        for wanted in [Crash, Stop, Oom] {
            let filter = Filter {
                causes: vec![wanted],
                ..types(&["*"])
            };
            let expected = match cause {
                Fact::Is(cause) if cause == wanted => Verdict::Runs,
                Fact::Pending => Verdict::Pending(Reason::Filter(Field::Cause)),
                _ => Verdict::Refused(Reason::Filter(Field::Cause)),
            };
            assert_eq!(verdict(&entry(filter), &subject), expected);
        }
    }
    let filter = Filter {
        causes: vec![Crash, Oom],
        ..types(&["die"])
    };
    let with = |exit_code, asked| Subject {
        exit_code,
        asked,
        ..subject(&die)
    };
    says(
        &filter,
        &with(Fact::Is(0), None),
        "no: cause asks for `crash`, `oom`, it ended by itself, and well",
    );
    says(
        &filter,
        &with(Fact::Is(137), Some(Stop)),
        "no: cause asks for `crash`, `oom`, it is `stop`",
    );
    says(
        &filter,
        &with(Fact::Pending, None),
        "perhaps: cause asks for `crash`, `oom`, and its exit code is one which a label `exitCode` hides: only an inspect tells",
    );
}

#[test]
fn what_not_matches_does_not_run() {
    let not = |not: &[Filter]| Entry {
        not: not.to_vec(),
        ..entry(types(&["*", "engine/*"]))
    };
    let container = |name: &str| Filter {
        containers: patterns(&[name]),
        ..Filter::default()
    };
    let code = |code| Filter {
        exit_codes: ExitCodes {
            any: vec![(code, code)],
            none: vec![],
        },
        ..types(&["die"])
    };
    let die = event("container", "die", &[]);
    let with = |exit_code| Subject {
        exit_code,
        ..subject(&die)
    };
    let said =
        |entry: &Entry, subject: &Subject| verdict(entry, subject).say(entry, subject, PLAIN);
    for (entry, exit_code, text) in [
        (not(&[container("db-*")]), Fact::Is(1), "would run"),
        (
            not(&[container("web-*")]),
            Fact::Is(1),
            "no: not takes away from_container `web-*`",
        ),
        (
            not(&[container("db-*"), code(3)]),
            Fact::Is(3),
            "no: not #2 takes away type `die` with exit_code `3`",
        ),
        (not(&[container("db-*"), code(3)]), Fact::Is(1), "would run"),
        (
            not(&[code(3)]),
            Fact::Pending,
            "perhaps: not: exit_code asks for `3`, which a label `exitCode` hides: only an inspect tells",
        ),
        (
            not(&[code(3), container("web-*")]),
            Fact::Pending,
            "no: not #2 takes away from_container `web-*`",
        ),
        (not(&[code(3)]), Fact::None, "would run"),
        (
            not(&[Filter::default()]),
            Fact::None,
            "no: not takes away everything",
        ),
    ] {
        assert_eq!(said(&entry, &with(exit_code)), text, "{:?}", entry.not);
    }
    // Without a type it takes our own events away as well.
    let down = event("engine", "down", &[]);
    let engine = Filter {
        engines: patterns(&["foo"]),
        ..Filter::default()
    };
    assert_eq!(
        said(&not(&[engine]), &subject(&down)),
        "no: not takes away from_engine `foo`"
    );
}

#[test]
fn a_refusal_counts_whatever_is_not_known_yet() {
    let die = event("container", "die", &[]);
    let filter = Filter {
        containers: patterns(&["web"]),
        exit_codes: ExitCodes {
            any: vec![(1, 1)],
            none: vec![],
        },
        ..types(&["die"])
    };
    let subject = Subject {
        container: Fact::Pending,
        exit_code: Fact::Is(0),
        ..subject(&die)
    };
    let refused = Verdict::Refused(Reason::Filter(Field::ExitCode));
    assert_eq!(verdict(&entry(filter), &subject), refused);
}

/// Draws filters and subjects out of few values, so that they often meet.
struct Draw(Random);

impl Draw {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[(self.0.draw() % of.len() as u64) as usize]
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.0.draw().is_multiple_of(one_in)
    }

    fn patterns(&mut self, of: &[&str]) -> Patterns {
        let mut texts = Vec::new();
        while self.chance(2) {
            texts.push(format!("{}{}", self.one(&["", "", "!"]), self.one(of)));
        }
        patterns(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn filter(&mut self) -> Filter {
        let cause = match self.0.draw() % 4 {
            0 => vec![Cause::Crash],
            1 => vec![Cause::Stop, Cause::Oom],
            _ => vec![],
        };
        let label = |draw: &mut Self| {
            let value = draw.chance(2).then(|| draw.one(&["x", "y"]));
            (draw.one(&["l", "m"]), value)
        };
        let asked = [label(self), label(self)];
        let count = (self.0.draw() % 3) as usize;
        let all = self.chance(2);
        Filter {
            types: self.patterns(&["die", "start", "network/connect", "engine/down", "*"]),
            engines: self.patterns(&["foo", "bar"]),
            containers: self.patterns(&["web", "db"]),
            images: self.patterns(&["i", "j"]),
            image_contains: Vec::new(),
            labels: labels(all, &asked[..count]),
            exit_codes: match self.0.draw() % 3 {
                0 => ExitCodes {
                    any: vec![(1, 3)],
                    none: vec![(2, 2)],
                },
                _ => ExitCodes::default(),
            },
            causes: cause,
        }
    }
}

/// A slow and obvious reading of the same rules, of settled subjects.
fn obvious(filter: &Filter, subject: &Subject) -> bool {
    fn fits(patterns: &Patterns, text: Option<&str>) -> bool {
        let has = |list: &[String]| list.iter().any(|it| it == "*" || Some(it.as_str()) == text);
        patterns.is_empty()
            || (text.is_some()
                && (patterns.any.is_empty() || has(&patterns.any))
                && !has(&patterns.none))
    }
    let word = subject.event.word();
    let has = |list: &[String], own: bool| list.iter().any(|it| *it == word || (it == "*" && !own));
    let own = word.starts_with("engine/");
    let Patterns { any, none } = &filter.types;
    let type_fits = (if any.is_empty() {
        none.is_empty() || !own
    } else {
        has(any, own)
    }) && !has(none, own);
    let label = |(name, value): &(String, Option<String>)| {
        let found = subject.label(name).known();
        found.is_some() && (value.is_none() || value.as_deref() == found)
    };
    let asked = &filter.labels.labels;
    let codes = &filter.exit_codes;
    type_fits
        && fits(&filter.engines, Some(subject.engine))
        && fits(&filter.containers, subject.container.known())
        && fits(&filter.images, subject.image.known())
        && (asked.is_empty()
            || match filter.labels.all {
                true => asked.iter().all(label),
                false => asked.iter().any(label),
            })
        && (codes.any.is_empty() || matches!(subject.exit_code, Fact::Is(1 | 3)))
        && (filter.causes.is_empty()
            || subject
                .cause()
                .known()
                .is_some_and(|cause| filter.causes.contains(&cause)))
}

#[test]
fn what_is_explained_is_what_is_decided_and_what_one_would_expect() {
    let list: LabelList = Arc::new([("l".into(), "x".into())]);
    let (mut ran, mut waited) = (0, 0);
    for seed in 0..3_000 {
        let mut draw = Draw(Random::new(seed));
        let entries: Vec<Arc<Entry>> = (0..4)
            .map(|_| {
                let mut entry = entry(draw.filter());
                while draw.chance(3) {
                    entry.not.push(draw.filter());
                }
                Arc::new(entry)
            })
            .collect();
        let rules = Rules::new(&entries);
        let (kind, action) = match draw.0.draw() % 6 {
            0 => ("network", "connect"),
            1 => ("engine", "down"),
            2 => ("container", "start"),
            _ => ("container", "die"),
        };
        let event = event(kind, action, &[("m", draw.one(&["x", "y"]))]);
        let text = |draw: &mut Draw, of: &[&'static str]| match draw.0.draw() % 6 {
            0 => Fact::None,
            1 => Fact::Pending,
            _ => Fact::Is(draw.one(of)),
        };
        let mut subject = Subject {
            event: &event,
            engine: draw.one(&["foo", "bar"]),
            container: text(&mut draw, &["web", "db"]),
            image: text(&mut draw, &["i", "j"]),
            labels: match draw.0.draw() % 3 {
                0 => Fact::None,
                1 => Fact::Pending,
                _ => Fact::Is(&list),
            },
            exit_code: match (draw.0.draw() % 6, action) {
                (0, "die") => Fact::Pending,
                (code, "die") => Fact::Is(code as i64 - 1),
                _ => Fact::None,
            },
            asked: draw.chance(3).then_some(Cause::Stop),
        };
        let verdicts = |subject: &Subject| -> Vec<Verdict> {
            (0..rules.len())
                .map(|place| rules.verdict(place, subject))
                .collect()
        };
        let before = verdicts(&subject);
        let early = rules.matches(&subject);
        for (place, verdict) in before.iter().enumerate() {
            let said = verdict.say(&entries[place], &subject, PLAIN);
            let begins = match verdict {
                Verdict::Runs => "would run",
                Verdict::Refused(_) => "no: ",
                Verdict::Pending(_) => "perhaps: ",
            };
            assert!(said.starts_with(begins), "seed {seed}: {said}");
            assert_eq!(
                early.entries.contains(&place),
                *verdict == Verdict::Runs,
                "seed {seed}"
            );
        }
        assert_eq!(
            early.pending,
            before.iter().any(|it| matches!(it, Verdict::Pending(_)))
        );
        subject.settle();
        let late = rules.matches(&subject);
        assert!(!late.pending, "seed {seed}");
        waited += usize::from(early.pending);
        ran += late.entries.len();
        for (place, verdict) in verdicts(&subject).into_iter().enumerate() {
            let entry = &entries[place];
            let runs = obvious(&entry.filter, &subject)
                && !entry.not.iter().any(|not| obvious(not, &subject));
            assert_eq!(
                late.entries.contains(&place),
                runs,
                "seed {seed}: {entry:?} {subject:?}"
            );
            assert_eq!(verdict == Verdict::Runs, runs, "seed {seed}");
        }
    }
    assert!(
        ran > 500 && waited > 100,
        "{ran} ran, {waited} waited: the draw is poor"
    );
}
