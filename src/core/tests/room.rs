//! Many engines at once: how many of their answers there must be room for.

use super::docker::Docker;
use super::world::settings;
use crate::core::{Core, Effect, Generation, Input, Inspected, Time};
use crate::model::{ContainerId, EngineIndex, Row};

const ENGINES: usize = 100;
const CONTAINERS: usize = 10;

/// Engines whose lists are answered at once, and their inspects when a test says so.
struct Crowd {
    core: Core,
    now: Time,
    /// What was asked and not answered yet.
    asked: Vec<(EngineIndex, Generation, ContainerId)>,
}

impl Crowd {
    fn new() -> Crowd {
        let names: Vec<String> = (0..ENGINES).map(|n| format!("e{n}")).collect();
        let mut settings = settings(&names.iter().map(String::as_str).collect::<Vec<_>>());
        settings.cache = None;
        let mut crowd = Crowd {
            core: Core::new(settings),
            now: Time::from_secs(1),
            asked: Vec::new(),
        };
        crowd.settle();
        crowd
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.core.step(self.now, input, &mut effects);
        self.follow(effects);
    }

    /// As often as the core asks for it.
    fn settle(&mut self) {
        let mut effects = Vec::new();
        self.core.settle(self.now, &mut effects);
        self.follow(effects);
    }

    fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect {
                    engine, generation, ..
                } => {
                    let hello = Box::new(Docker::new(&format!("E{}", engine.0)).hello(self.now));
                    self.step(Input::Connected {
                        engine,
                        generation,
                        hello,
                    });
                }
                Effect::List {
                    engine, generation, ..
                } => {
                    let row = |n| Row {
                        id: format!("{}-{n}", engine.0).as_str().into(),
                        running: true,
                        member: true,
                    };
                    let result = Ok((0..CONTAINERS).map(row).collect());
                    self.step(Input::Listed {
                        engine,
                        generation,
                        result,
                    });
                }
                Effect::Inspect {
                    engine,
                    generation,
                    inspections,
                    ..
                } => {
                    let ids = inspections.into_iter().map(|one| one.id);
                    self.asked.extend(ids.map(|id| (engine, generation, id)));
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, (engine, generation, id): (EngineIndex, Generation, ContainerId)) {
        self.step(Input::Inspected {
            engine,
            generation,
            id,
            by_slow: false,
            result: Inspected::Gone,
        });
        self.settle();
    }
}

#[test]
fn a_thousand_engines_are_not_looked_at_all_at_once() {
    let mut crowd = Crowd::new();
    for _ in 0..4 {
        crowd.settle();
    }
    let mut most = 0;
    let mut answered = 0;
    while let Some(one) = (!crowd.asked.is_empty()).then(|| crowd.asked.remove(0)) {
        most = most.max(crowd.asked.len() + 1);
        crowd.answer(one);
        answered += 1;
    }
    assert_eq!(answered, ENGINES * CONTAINERS);
    assert!((200..300).contains(&most), "{most}");
}

#[test]
fn engines_that_do_not_answer_keep_no_others_waiting() {
    let mut crowd = Crowd::new();
    for _ in 0..4 {
        crowd.settle();
    }
    let stuck = crowd.asked.len();
    assert!((200..300).contains(&stuck), "{stuck}");
    crowd.asked.clear();
    while crowd.asked.is_empty() {
        let at = crowd.core.deadline().expect("it goes on");
        assert!(at <= Time::from_secs(3), "nothing was asked until {at:?}");
        crowd.now = at;
        crowd.settle();
    }
    let mut answered = 0;
    while let Some(one) = crowd.asked.pop() {
        crowd.answer(one);
        answered += 1;
    }
    assert_eq!(answered + stuck, ENGINES * CONTAINERS);
}
