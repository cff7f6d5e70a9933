//! SIGHUP: `events.yml` is read again while the agent runs.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::engine::containers::Spec;
use crate::engine::{Engine, Route};
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::proxy::Proxy;
use crate::kit::scene::{SOON, Scene};
use crate::kit::{seconds, wait_until};

/// What the log says of a file that was taken over.
const TAKEN: &str = "the file was read again: ";

/// Asks for the file to be read again, and waits until that is done.
#[track_caller]
fn reload(agent: &mut Agent, said: &str) {
    let from = agent.log().len();
    agent.signal(Signal::HUP);
    agent.wait_log_from(from, said, SOON);
}

/// The names of an agent's threads that have to do with engines.
fn crews(agent: &Agent) -> Vec<String> {
    let mut names = agent.threads();
    names.retain(|name| name.starts_with("read:") || name.starts_with("sync:"));
    names
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// An agent without a Redis that watches one engine, with these entries.
fn handlers(scene: &Scene, engine: &Engine, entries: &str) -> (Agent, PathBuf) {
    let file = scene.path("events.yml");
    write_entries(&file, engine, entries);
    let agent = Agent::start(&["-cache=none", &file.to_string_lossy()]);
    agent.wait_log("Started monitoring", SOON);
    wait_until(SOON, "the engine is listened to", || {
        engine.subscribers() > 0
    });
    (agent, file)
}

fn write_entries(file: &Path, engine: &Engine, entries: &str) {
    let text = format!("cluster:\n  h: {}\nevents:\n{entries}", engine.url());
    fs::write(file, text).unwrap();
}

#[test]
fn a_file_with_mistakes_is_refused_whole_and_the_old_one_holds_on() {
    need!(redis);
    let scene = Scene::new();
    let (a, b) = (scene.engine("a"), scene.engine("b"));
    let socket = scene.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap())];
    let mut agent = scene.watch_with(&[("a", &a.url())], &[], &variables);
    scene.settle(SOON, &[("a", &a)]);

    let file = scene.write_file(&[("a", &a.url()), ("b", &b.url())]);
    let mut text = fs::read_to_string(&file).unwrap();
    text += "  - type: die\n    comand: echo\n  - type: 3\n";
    fs::write(&file, text).unwrap();
    let from = agent.log().len();
    reload(&mut agent, "is refused; what it said before holds on");
    let log = agent.log();
    for wanted in ["events.yml:", "did you mean `command`", "entry #3"] {
        assert!(
            log[from..].contains(wanted),
            "no `{wanted}` in {}",
            &log[from..]
        );
    }
    fs::remove_file(&file).unwrap();
    reload(&mut agent, "is refused; what it said before holds on");
    a.run(Spec::named("web"));
    scene.expect_runs(SOON, &["a start web"]);
    scene.settle(SOON, &[("a", &a)]);

    // The service manager hears when a reload begins, and when it is over; whatever came of it.
    let mut heard = Vec::new();
    while heard.iter().filter(|word| *word == "READY=1").count() < 3 {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).expect("the agent says something");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let word = match text.split_once("\nMONOTONIC_USEC=") {
            Some((word, usec)) => {
                assert!(usec.parse::<u64>().is_ok_and(|usec| usec > 0), "{text}");
                word.to_owned()
            }
            None => text,
        };
        heard.push(word);
    }
    heard.retain(|word| !word.starts_with("STATUS=") && !word.starts_with("WATCHDOG="));
    let ready = [
        "READY=1",
        "RELOADING=1",
        "READY=1",
        "RELOADING=1",
        "READY=1",
    ];
    assert_eq!(heard, ready);
}

#[test]
fn an_entry_that_did_not_change_keeps_what_waits_and_others_come_and_go() {
    let scene = Scene::new();
    let engine = scene.engine("e");
    let (told, gate) = (scene.path("told"), scene.path("gate"));
    let (told_at, gate_at) = (told.display(), gate.display());
    let slow = format!(
        "  - {{name: slow, type: start, concurrency: 1, command: 'echo begin $FROM_CONTAINER >> {told_at}; \
         while [ ! -e {gate_at} ]; do sleep 0.02; done; echo end $FROM_CONTAINER >> {told_at}'}}\n"
    );
    let gone = format!("  - {{name: gone, type: start, command: 'echo gone >> {told_at}'}}\n");
    let (mut agent, file) = handlers(&scene, &engine, &format!("{slow}{gone}"));
    let ids = ["c0", "c1", "c2"].map(|name| engine.run(Spec::named(name)));
    wait_until(SOON, "all that can run has begun", || {
        lines(&told).len() == 4
    });

    let new =
        format!("  - {{name: new, type: die, command: 'echo new $FROM_CONTAINER >> {told_at}'}}\n");
    write_entries(&file, &engine, &format!("{new}{slow}"));
    reload(
        &mut agent,
        "the file was read again: entries added: `new`; entries removed: `gone`",
    );
    engine.die(&ids[0], 1);
    wait_until(SOON, "the new entry runs", || {
        lines(&told).contains(&"new c0".to_owned())
    });
    engine.run(Spec::named("c3"));
    fs::write(&gate, "").unwrap();
    let told_by_slow = || {
        let mut told = lines(&told);
        told.retain(|line| line.starts_with("begin") || line.starts_with("end"));
        told
    };
    wait_until(SOON, "all that waited has run", || {
        told_by_slow().len() >= 8
    });
    // Of several containers each has its turn when its own document has come.
    let mut ran = Vec::new();
    for pair in told_by_slow().chunks(2) {
        let name = pair[0].strip_prefix("begin ").unwrap_or_default();
        assert_eq!(pair.last(), Some(&format!("end {name}")), "one at a time");
        ran.push(name.to_owned());
    }
    ran.sort();
    assert_eq!(ran, ["c0", "c1", "c2", "c3"], "each once");
    let gone = lines(&told).iter().filter(|line| *line == "gone").count();
    assert_eq!(gone, 3, "the entry that left hears nothing any more");
    assert_eq!(engine.requests(&Route::Events), 1, "the stream stays open");
}

#[test]
fn jobs_that_wait_for_what_left_the_file_are_dropped_and_said() {
    let scene = Scene::new();
    let engine = scene.engine("e");
    let gate = scene.path("gate");
    let slow = |more: &str| {
        format!(
            "  - {{name: slow, type: start, concurrency: 1, {more} command: 'while [ ! -e {} ]; do sleep 0.02; done'}}\n",
            gate.display()
        )
    };
    let (mut agent, file) = handlers(&scene, &engine, &slow(""));
    engine.run(Spec::named("c0"));
    agent.wait_log("for start of c0 on h: started", SOON);
    for name in ["c1", "c2"] {
        engine.run(Spec::named(name));
    }
    wait_until(SOON, "two jobs wait", || {
        agent.signal(Signal::USR1);
        agent.log().contains("1 commands run, 2 jobs wait")
    });
    write_entries(&file, &engine, &slow("timeout: 9s,"));
    reload(&mut agent, "entries changed: `slow`");
    agent.wait_log("2 jobs that waited", SOON);
    // What runs is not cut off.
    fs::write(&gate, "").unwrap();
    agent.wait_log("start of c0 on h: exit status 0", SOON);
    engine.run(Spec::named("c3"));
    agent.wait_log("start of c3 on h: exit status 0", SOON);
    assert!(!agent.log().contains("start of c1"), "it was dropped");
}

#[test]
fn engines_come_and_go_and_those_that_stay_notice_nothing() {
    need!(redis);
    let scene = Scene::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| scene.engine(name));
    for engine in [&a, &b, &c] {
        engine.run(Spec::named("web"));
    }
    let mut agent = scene.watch(&[("a", &a.url()), ("b", &b.url())], &["-updateInterval=2s"]);
    scene.settle(SOON, &[("a", &a), ("b", &b)]);

    scene.write_file(&[("a", &a.url()), ("c", &c.url())]);
    reload(&mut agent, "engines added: `c`; engines removed: `b`");
    wait_until(SOON, "the host was given back", || {
        scene.host_field("b", "status") == "stopped"
    });
    assert!(
        !scene
            .redis
            .query::<bool>(&["EXISTS", "docker:hosts:b:lease"])
    );
    wait_until(SOON, "the threads are those of a and c", || {
        let crews = crews(&agent);
        let fits = crews == ["read:a", "read:c", "sync:a", "sync:c"];
        fits.then_some(()).ok_or(format!("{crews:?}"))
    });
    wait_until(SOON, "only c is listened to", || {
        (b.subscribers(), c.subscribers()) == (0, 1)
    });
    b.run(Spec::named("unheard"));
    c.run(Spec::named("heard"));
    // What b left goes as after the end of any agent.
    scene.settle(seconds(60), &[("a", &a), ("c", &c)]);
    scene.expect_runs(SOON, &["c start heard"]);

    // It comes back under its name, and the agent finds its way.
    scene.write_file(&[("b", &b.url()), ("a", &a.url()), ("c", &c.url())]);
    reload(&mut agent, "engines added: `b`");
    scene.settle(SOON, &[("a", &a), ("b", &b), ("c", &c)]);
    wait_until(SOON, "b is listened to", || b.subscribers() == 1);
    b.run(Spec::named("again"));
    wait_until(SOON, "its events are handled", || {
        scene.runs().contains_key("b start again")
    });
    assert_eq!(scene.number("a", "reconnects"), 0);
    assert_eq!(a.requests(&Route::Events), 1, "the stream stays open");
}

#[test]
fn an_engine_at_a_new_address_goes_on_where_it_was() {
    need!(redis);
    let scene = Scene::new();
    let a = scene.engine("a");
    let proxy = Proxy::unix(&a.url());
    let mut agent = scene.watch(&[("a", &a.url())], &[]);
    scene.settle(SOON, &[("a", &a)]);
    let web = a.run(Spec::named("web"));
    scene.expect_runs(SOON, &["a start web"]);
    scene.write_file(&[("a", &proxy.url())]);
    a.pause(&web);
    reload(&mut agent, "engines moved: `a`");
    a.unpause(&web);
    // Between the two streams nobody listened: what happened then is told late, and marked so.
    let runs = || {
        let runs = scene.runs().into_iter();
        let runs = runs.map(|(run, times)| (run.replace(" inferred", ""), times));
        runs.collect::<Vec<(String, usize)>>()
    };
    wait_until(SOON, "all three ran", || runs().len() == 3);
    let wanted = ["a pause web", "a start web", "a unpause web"];
    assert_eq!(runs(), wanted.map(|run| (run.to_owned(), 1)));
    assert!(proxy.accepted() > 0);
    wait_until(SOON, "one reader is left", || a.subscribers() == 1);
    wait_until(SOON, "the new URL is told", || {
        scene.host_field("a", "docker_url") == proxy.url()
    });
    assert_eq!(scene.number("a", "gaps"), 0);
    assert!(!agent.log().contains("another engine"));
}

#[test]
fn a_file_may_lose_its_cluster_and_get_it_back() {
    need!(redis);
    let scene = Scene::new();
    let a = scene.engine("a");
    a.run(Spec::named("web"));
    let url = a.url();
    let options = ["-updateInterval=2s"];
    let variables = [("DOCKER_HOST", &*url)];
    let mut agent = scene.watch_with(&[("a", &url)], &options, &variables);
    scene.settle(SOON, &[("a", &a)]);
    let file = scene.path("events.yml");
    let with = fs::read_to_string(&file).unwrap();
    let without = &with[with.find("events:").unwrap()..];
    fs::write(&file, without).unwrap();
    // The same engine under the name of this machine.
    reload(&mut agent, "engines removed: `a`");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let machine = || vec![Host::up(name.trim(), a.running()).at(a.place())];
    oracle::settle(&scene.redis, "docker", seconds(60), machine);
    assert!(!agent.log().contains("is not written"), "{}", agent.log());
    fs::write(&file, &with).unwrap();
    reload(&mut agent, "engines added: `a`");
    scene.settle(seconds(60), &[("a", &a)]);
    assert_eq!(scene.runs().len(), 0, "nothing happened to any container");
}

#[test]
fn fifty_reloads_leave_no_thread_and_no_descriptor_behind() {
    need!(redis);
    let scene = Scene::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| scene.engine(name));
    let mut agent = scene.watch(&[("a", &a.url()), ("b", &b.url())], &[]);
    scene.settle(SOON, &[("a", &a), ("b", &b)]);
    let (threads, fds) = (agent.threads(), agent.fds());
    for turn in 0..50 {
        let other = [("c", &c), ("b", &b)][turn % 2];
        let other_url = other.1.url();
        scene.write_file(&[("a", &a.url()), (other.0, &other_url)]);
        let from = agent.log().len();
        reload(&mut agent, &format!("engines added: `{}`", other.0));
        if turn % 5 == 0 {
            let monitoring = format!("Started monitoring Docker events ({})", other.0);
            agent.wait_log_from(from, &monitoring, SOON);
        }
    }
    wait_until(SOON, "threads and files are as they were", || {
        let now = (agent.threads(), agent.fds());
        let fits = now.0 == threads && now.1 <= fds + 2;
        let differ = format!("{now:?}, before: {threads:?}, {fds}");
        fits.then_some(()).ok_or(differ)
    });
    wait_until(SOON, "it is listened to", || b.subscribers() == 1);
    b.run(Spec::named("web"));
    wait_until(SOON, "all is well", || {
        scene.runs().contains_key("b start web")
    });
    assert_eq!(a.requests(&Route::Events), 1, "the stream stays open");
    assert_eq!(agent.stop(SOON).code(), Some(0));
}

#[test]
fn a_hundred_signals_in_a_storm_of_events_lose_none_and_repeat_none() {
    need!(redis);
    // Not so many that the stream is renewed for them.
    const EVENTS: usize = 160;
    let scene = Scene::new();
    let a = scene.engine("a");
    let id = a.run(Spec::named("web"));
    let proxy = Proxy::unix(&a.url());
    let mut agent = scene.watch(&[("a", &proxy.url())], &[]);
    wait_until(SOON, "it is reported", || {
        scene.host_field("a", "status") == "up"
    });
    wait_until(SOON, "the engine is listened to", || a.subscribers() == 1);
    let (accepted, over) = (proxy.accepted(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..EVENTS {
                match turn % 2 {
                    0 => a.pause(&id),
                    _ => a.unpause(&id),
                }
                std::thread::yield_now();
            }
            over.store(true, Ordering::Release);
        });
        // Signals that come too fast merge into one; what counts is that they come all the time.
        let mut signals = 0;
        while signals < 100 || !over.load(Ordering::Acquire) {
            agent.signal(Signal::HUP);
            signals += 1;
            std::thread::yield_now();
        }
    });
    reload(&mut agent, TAKEN);
    let half = EVENTS / 2;
    wait_until(SOON, "the handler was run for all", || {
        let runs = scene.runs();
        let count = |what: &str| runs.get(what).copied().unwrap_or(0);
        let fits = count("a pause web") >= half && count("a unpause web") >= half;
        fits.then_some(()).ok_or(format!("{runs:?}"))
    });
    assert_eq!(scene.runs().values().sum::<usize>(), EVENTS, "none twice");
    assert_eq!(scene.number("a", "reconnects"), 0);
    assert_eq!(scene.number("a", "gaps"), 0);
    assert_eq!(a.requests(&Route::Events), 1, "the stream stays open");
    assert!(proxy.accepted() <= accepted + 1, "connections are kept");
}
