//! A host dies among ten others: it is said to be lost once and expired once, and one that comes back at that moment is not harmed.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::redis::Redis;
use crate::kit::scene::engine;
use crate::kit::{seconds, wait_until};

/// A host: its engine, and its agent while there is one.
struct Site {
    id: String,
    engine: Engine,
    agent: Option<Agent>,
}

impl Site {
    fn new(id: &str, containers: usize) -> Site {
        let engine = engine();
        for at in 0..containers {
            // Images that several hosts share, and one of its own.
            let image = [format!("only-{id}"), format!("shared-{}", at % 7)][at.min(1)].clone();
            engine.run(Spec::named(&format!("{id}-{at}")).image(&image));
        }
        engine.host_name(id);
        Site {
            id: id.into(),
            engine,
            agent: None,
        }
    }

    fn start(&mut self, redis: &Redis) {
        // The host's keys live three intervals: longer than it takes to find its agent dead.
        self.agent = Some(Agent::watch(&self.id, &self.engine.url(), &redis.url(), 8));
    }

    fn kill(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.kill9();
        }
        self.agent = None;
    }
}

/// What Redis must hold of these.
#[track_caller]
fn settle(redis: &Redis, sites: &[&Site], limit: Duration) {
    oracle::settle(redis, "docker", limit, || {
        sites
            .iter()
            .map(|site| {
                let host = Host::up(&site.id, site.engine.running());
                // Comparing hundreds of documents again and again would keep the agents from their work.
                match host.running.len() {
                    ..100 => host.at(site.engine.place()),
                    _ => host,
                }
            })
            .collect()
    });
}

/// Everything that is said on the channel.
struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    fn of(redis: &Redis) -> Notices {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port()))
            .unwrap_or_else(|error| panic!("failed to connect: {error}"));
        stream
            .write_all(b"SUBSCRIBE docker_events\r\n")
            .unwrap_or_else(|error| panic!("failed to subscribe: {error}"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(line.trim_end().to_owned());
            }
        });
        Notices(said)
    }

    /// How often this was said so far.
    fn count(&self, notice: &str) -> usize {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().filter(|line| *line == notice).count()
    }
}

#[test]
fn timed_fault_23_a_dead_host_is_said_to_be_lost_within_15_s_and_expired_once_by_one_of_ten_agents()
{
    need!(redis);
    let redis = Redis::start();
    let mut ten: Vec<Site> = (0..10).map(|at| Site::new(&format!("h{at}"), 4)).collect();
    let mut dead = Site::new("dead", 600);
    ten.iter_mut()
        .chain([&mut dead])
        .for_each(|site| site.start(&redis));
    let all: Vec<&Site> = ten.iter().chain([&dead]).collect();
    settle(&redis, &all, seconds(60));
    let notices = Notices::of(&redis);
    dead.kill();
    let died = Instant::now();
    wait_until(seconds(30), "it is said to be lost", || {
        notices.count("host_down:dead") > 0
    });
    let lost = died.elapsed();
    wait_until(seconds(30), "it is expired", || {
        notices.count("expired_host:dead") > 0
    });
    println!("lost after {lost:?}, expired after {:?}", died.elapsed());
    assert!(lost < seconds(15), "lost after {lost:?}");
    let ten: Vec<&Site> = ten.iter().collect();
    settle(&redis, &ten, seconds(30));
    assert_eq!(notices.count("host_down:dead"), 1);
    assert_eq!(notices.count("expired_host:dead"), 1);
    let logs: Vec<String> = ten
        .iter()
        .flat_map(|site| &site.agent)
        .map(Agent::log)
        .collect();
    let said = |line: &str| {
        logs.iter()
            .map(|log| log.matches(line).count())
            .sum::<usize>()
    };
    assert_eq!(said("host `dead` is lost"), 1);
    assert_eq!(said("host `dead` has expired"), 1);
}

#[test]
fn fault_23_hosts_that_come_back_while_they_are_buried_are_not_harmed() {
    need!(redis);
    let redis = Redis::start();
    let mut ten: Vec<Site> = (0..8).map(|at| Site::new(&format!("h{at}"), 2)).collect();
    // Burying so many takes the others a while; some are alive again before, some meanwhile, some after.
    let mut dead: Vec<Site> = (0..4)
        .map(|at| Site::new(&format!("d{at}"), 180 * at + 10))
        .collect();
    ten.iter_mut()
        .chain(&mut dead)
        .for_each(|site| site.start(&redis));
    let all: Vec<&Site> = ten.iter().chain(&dead).collect();
    settle(&redis, &all, seconds(60));
    let notices = Notices::of(&redis);
    dead.iter_mut().for_each(Site::kill);
    let down = || {
        (0..4)
            .map(|at| notices.count(&format!("host_down:d{at}")))
            .sum::<usize>()
    };
    wait_until(seconds(30), "the first of them is lost", || down() > 0);
    for site in dead.iter_mut().rev() {
        site.start(&redis);
    }
    let all: Vec<&Site> = ten.iter().chain(&dead).collect();
    settle(&redis, &all, seconds(60));
    // It stays so: nobody buries what lives, and what its own agents say now is the last word.
    for site in &dead {
        let agent = site.agent.as_ref();
        let log = agent.map_or(String::new(), Agent::log);
        println!("{}: {}", site.id, log.lines().count());
        let expired = notices.count(&format!("expired_host:{}", site.id));
        assert!(expired <= 1, "{} was expired {expired} times", site.id);
        assert!(notices.count(&format!("host_down:{}", site.id)) <= 1);
        assert!(!log.contains("is not written"), "{log}");
    }
    let buried: usize = (0..4)
        .map(|at| notices.count(&format!("expired_host:d{at}")))
        .sum();
    println!("{} lost, {buried} expired, all back", down());
    settle(&redis, &all, seconds(10));
}
