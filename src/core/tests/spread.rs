//! Many engines that begin at once: when each is resynced.

use super::docker::Told;
use super::store::Fate;
use super::world::{World, settings};
use crate::core::{Effect, Time};

const ENGINES: usize = 100;

/// Agents with so many engines each, together 100; every engine has a container.
fn agents(engines: usize) -> Vec<World> {
    let names: Vec<String> = (0..engines).map(|n| format!("e{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let agent = |seed| {
        let mut settings = settings(&names);
        settings.seed = seed;
        let mut world = World::new(settings);
        world.keep = true;
        for (at, docker) in world.dockers.iter_mut().enumerate() {
            docker.create(Time::ZERO, &format!("c{at}"), "web", "img", Told::Never);
            docker.start(Time::ZERO, &format!("c{at}"), Told::Never);
        }
        world
    };
    (0..(ENGINES / engines) as u64).map(agent).collect()
}

/// Whatever is asked until then is answered at once. Says when lists were asked for.
fn lists(agents: &mut [World], until: Time) -> Vec<Time> {
    let mut lists = Vec::new();
    for world in agents {
        loop {
            world.settle();
            if answer(world) {
                continue;
            }
            match world.deadline() {
                Some(at) if at <= until => world.now = world.now.max(at),
                _ => break,
            }
        }
        world.now = until;
        let effects = world.effects.drain(..);
        let asked = effects.filter(|(_, effect)| matches!(effect, Effect::List { .. }));
        lists.extend(asked.map(|(at, _)| at));
    }
    lists
}

fn answer(world: &mut World) -> bool {
    world.serve(Fate::Served)
        || (0..world.dockers.len()).any(|at| {
            world.open_stream(at) || world.hear(at) || world.compute(at) || world.answer(at)
        })
}

/// The most lists within a twentieth of the interval.
fn densest(lists: &[Time], interval: Time) -> usize {
    let behind = |from: &Time| {
        let window = *from..*from + interval / 20;
        lists.iter().filter(|at| window.contains(at)).count()
    };
    lists.iter().map(behind).max().unwrap_or(0)
}

fn are_spread(mut agents: Vec<World>) {
    let interval = agents[0].settings.interval;
    let mut now = Time::ZERO;
    let first = lists(&mut agents, now);
    assert_eq!(first.len(), ENGINES, "they begin at once");
    for disturbed in [false, true] {
        if disturbed {
            for world in &mut agents {
                world.store.flush();
            }
            now += Time::from_secs(5);
            let together = lists(&mut agents, now).len();
            assert!(
                together >= ENGINES,
                "they lose their store at once: {together}"
            );
        }
        now += 4 * interval;
        let resyncs = lists(&mut agents, now);
        assert_eq!(resyncs.len(), 4 * ENGINES, "one an interval");
        let densest = densest(&resyncs, interval);
        assert!(densest <= ENGINES / 5, "{densest} within a twentieth");
    }
}

#[test]
fn a_hundred_agents_that_begin_at_once_resync_apart() {
    are_spread(agents(1));
}

#[test]
fn a_hundred_engines_of_one_agent_resync_apart() {
    are_spread(agents(ENGINES));
}
