//! Which events an entry wants, field by field: an agent at work, and what its commands wrote.

use std::fs;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::agent::Agent;
use crate::kit::docker::Machine;
use crate::kit::need::need;
use crate::kit::{TempDir, seconds, wait_until};

const SOON: Duration = seconds(60);

/// Each entry writes its name and the container's, `<name> <container>`.
struct Stand {
    folder: TempDir,
    agent: Agent,
}

impl Stand {
    /// An agent without a cache, with these entries: a name and its filters each.
    #[track_caller]
    fn start(url: &str, entries: &[(&str, &str)]) -> Stand {
        let folder = TempDir::new();
        let out = folder.join("out").display().to_string();
        let entry = |(name, filters): &(&str, &str)| {
            format!(
                "  - {{name: {name}, {filters}, command: 'echo {name} $FROM_CONTAINER >> {out}'}}\n"
            )
        };
        let entries: String = entries.iter().map(entry).collect();
        let text = format!("cluster:\n  foo: {url}\nevents:\n{entries}");
        let file = folder.write("events.yml", &text).display().to_string();
        let agent = Agent::start(&[file, "--cache=none".to_owned()]);
        Stand { folder, agent }
    }

    /// What was written, sorted.
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("out")).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Waits until exactly this was written, beside what each entry wrote of the last container of all.
    #[track_caller]
    fn wait(&self, expected: &[&str]) {
        wait_until(SOON, "the commands have run", || {
            let mut lines = self.lines();
            lines.retain(|line| !line.ends_with("last"));
            match lines == expected {
                true => Ok(()),
                false => Err(format!("{lines:#?}")),
            }
        });
    }
}

#[test]
fn each_field_chooses_its_events() {
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
    let mut stand = Stand::start(
        &engine.url(),
        &[
            ("type", "type: [die, '!start']"),
            (
                "all",
                "type: ['*', '!*start*', '!create', '!destroy', '!network/*', '!kill', '!stop']",
            ),
            ("engine", "type: die, from_engine: '!foo'"),
            (
                "container",
                "type: die, from_container: ['web-*', '!web-2']",
            ),
            ("image", "type: die, image: 'nginx:*'"),
            ("contains", "type: die, image_contains: inx"),
            ("labels", "type: die, labels: {tier: w*, env: '*'}"),
            ("label", "type: die, labels: [tier=db, spare]"),
            ("code", "type: die, exit_code: ['1..125', '!3']"),
            (
                "not",
                "type: die, not: [{from_container: web-1}, {exit_code: 0}]",
            ),
            ("join", "type: network/connect, labels: {tier: web}"),
        ],
    );
    wait_until(SOON, "the stream is open", || engine.subscribers() == 1);
    let web = |name: &str| {
        Spec::named(name)
            .image("nginx:1")
            .label("tier", "web")
            .label("env", "")
    };
    let ids = [
        engine.run(web("web-1")),
        engine.run(web("web-2")),
        engine.run(Spec::named("db").image("mysql").label("tier", "db")),
        engine.run(
            Spec::named("liar")
                .image("liar:nginx")
                .label("exitCode", "0")
                .label("spare", ""),
        ),
    ];
    for (id, code) in ids.iter().zip([0, 3, 1, 7]) {
        engine.die(id, code);
    }
    engine.die(&engine.run(web("last")), 9);
    let mut expected: Vec<&str> = Vec::new();
    expected.extend(["type web-1", "type web-2", "type db", "type liar"]);
    expected.extend(["all web-1", "all web-2", "all db", "all liar"]);
    expected.extend(["container web-1", "image web-1", "image web-2"]);
    expected.extend(["contains web-1", "contains web-2", "contains liar"]);
    expected.extend(["labels web-1", "labels web-2", "label db", "label liar"]);
    // What the label says of the liar's exit code is not believed.
    expected.extend(["code db", "code liar", "not web-2", "not db", "not liar"]);
    expected.extend(["join web-1", "join web-2"]);
    expected.sort_unstable();
    stand.wait(&expected);
    assert!(stand.agent.stop(SOON).success());
    stand.wait(&expected);
}

#[test]
fn a_crash_is_told_from_a_stop_on_a_real_engine() {
    need!(docker);
    let machine = Machine::get();
    let docker = &machine.docker;
    let mine = format!("type: die, from_container: '{}*'", docker.prefix);
    let of = |filters: &str| format!("{mine}, {filters}");
    let (crash, stop, oom) = (of("cause: crash"), of("cause: stop"), of("cause: oom"));
    let code = of("exit_code: '!0'");
    let stand = Stand::start(
        &docker.url,
        &[
            ("crash", &crash),
            ("stop", &stop),
            ("oom", &oom),
            ("code", &code),
        ],
    );
    stand.agent.wait_log("Started monitoring", SOON);
    let wait = |id: &str| docker.docker(&["wait", id]);
    wait(&docker.run("well", &[], &["true"]));
    wait(&docker.run("ill", &[], &["sh", "-c", "exit 3"]));
    wait(&docker.run("liar", &["--label", "exitCode=0"], &["sh", "-c", "exit 4"]));
    let stopped = docker.run("stopped", &[], &[]);
    docker.docker(&["stop", &stopped]);
    let killed = docker.run("killed", &[], &[]);
    docker.docker(&["kill", &killed]);
    // Its own stop signal asks for the end, HUP does not.
    let loops = |end: &str| format!("trap '{end}' HUP; while :; do sleep 0.1; done");
    let hangup = docker.run("hup", &[], &["sh", "-c", &loops("exit 5")]);
    let asked = docker.run(
        "asked",
        &["--stop-signal", "HUP"],
        &["sh", "-c", &loops("exit 6")],
    );
    for id in [&hangup, &asked] {
        wait_until(SOON, "the trap is set", || {
            docker.docker(&["top", id]).contains("sleep")
        });
        docker.docker(&["kill", "-s", "HUP", id]);
        wait(id);
    }
    let hungry = ["sh", "-c", "tail /dev/zero"];
    wait(&docker.run("hungry", &["--memory", "16m"], &hungry));
    let expected = [
        "code asked",
        "code hungry",
        "code hup",
        "code ill",
        "code killed",
        "code liar",
        "crash hup",
        "crash ill",
        "crash liar",
        "oom hungry",
        "stop asked",
        "stop killed",
        "stop stopped",
    ];
    let expected = expected.map(|line| {
        let (entry, name) = line.split_once(' ').unwrap();
        format!("{entry} {}{name}", docker.prefix)
    });
    stand.wait(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}
