//! The agent as a service of systemd: what `systemctl` does with it.

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::need::need;
use crate::kit::stand::SOON;
use crate::kit::systemd::Systemd;
use crate::kit::wait_until;

#[test]
fn a_reload_by_systemctl_reads_the_file_again_and_is_over_when_it_is() {
    need!(systemd);
    let engine = Engine::listen(&Place::Tcp("127.0.0.1:0".into())).unwrap();
    let text = |log: &str| {
        let url = engine.url();
        format!("cluster:\n  foo: {url}\nevents:\n  - {{name: only, type: start, log: {log}}}\n")
    };
    let args = ["--cache=none".to_owned(), "/mnt/events.yml".to_owned()];
    let systemd = Systemd::start_beside(&args, &[("events.yml", &text("before"))]);
    let wait_log = |wanted: &str| {
        wait_until(SOON, wanted, || {
            let log = systemd.log();
            log.contains(wanted).then_some(()).ok_or(log)
        });
    };
    wait_log("Started monitoring");
    wait_until(SOON, "the stream is open", || engine.subscribers() == 1);
    engine.run(Spec::named("a"));
    wait_log("before (handler `only`: start from foo@");
    systemd.write("events.yml", &text("after"));
    assert_eq!(
        systemd.ctl(&["reload", "docker-cache"]),
        (true, String::new())
    );
    // It says so before it says that it is ready.
    wait_log("the file was read again: ");
    engine.run(Spec::named("b"));
    wait_log("after (handler `only`: start from foo@");

    // A file that is refused ends neither the reload nor the agent.
    systemd.write("events.yml", "events: 5\n");
    systemd.ctl(&["reload", "docker-cache"]);
    wait_log("the file was read again and is refused; what it said before holds on");
    let (active, said) = systemd.ctl(&["is-active", "docker-cache"]);
    assert!(active, "{said}");
    engine.run(Spec::named("c"));
    wait_log("on /c)");
    assert_eq!(systemd.log().matches("Started monitoring").count(), 1);
}
