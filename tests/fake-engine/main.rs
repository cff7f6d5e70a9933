//! A Docker engine that is none, for machines that have none: `docker ps` and any agent see containers that come and go.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "engine.rs"]
mod engine;

use std::process::ExitCode;
use std::time::Duration;

use engine::Engine;
use engine::containers::Spec;
use engine::http::Place;

const USAGE: &str =
    "usage: fake-engine --listen unix:///path|tcp://127.0.0.1:port [--containers N] [--churn]
  --listen URL      where to answer; port 0 lets the system choose
  --containers N    how many containers run at the start (3)
  --churn           containers come and go, about one each second";

/// What was typed.
struct Options {
    place: Place,
    containers: usize,
    churn: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(options) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match Engine::listen(&options.place) {
        Ok(engine) => run(&engine, &options),
        Err(error) => {
            eprintln!("failed to listen at `{}`: {error}", options.place.url());
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Option<Options> {
    let (mut place, mut containers, mut churn) = (None, 3, false);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--listen" => place = Some(Place::parse(args.next()?)?),
            "--containers" => containers = args.next()?.parse().ok()?,
            "--churn" => churn = true,
            _ => return None,
        }
    }
    Some(Options {
        place: place?,
        containers,
        churn,
    })
}

/// Plays until it is killed.
fn run(engine: &Engine, options: &Options) -> ExitCode {
    let mut ids: Vec<String> = (0..options.containers)
        .map(|at| begin(engine, at))
        .collect();
    println!("{}", engine.url());
    let mut round = 0;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        if !options.churn {
            continue;
        }
        // One comes, one is renamed or paused, the oldest goes: about as many run at any time as at the start.
        ids.push(begin(engine, options.containers + round));
        let chosen = &ids[round % ids.len()];
        match round % 3 {
            0 => engine.rename(chosen, &format!("renamed-{round}")),
            1 => engine.pause(chosen),
            _ => engine.restart_container(chosen),
        }
        if ids.len() > options.containers {
            engine.stop(&ids.remove(0));
        }
        round += 1;
    }
}

fn begin(engine: &Engine, number: usize) -> String {
    let images = ["nginx:1.27", "postgres:17", "busybox:latest"];
    let names = ["web", "db", "job"];
    let kind = number % images.len();
    let spec = Spec::named(&format!("{}-{number}", names[kind]))
        .image(images[kind])
        .label("com.example.service", names[kind])
        .env("DB_PASSWORD", "not-for-redis")
        .auto_remove();
    engine.run(spec)
}
