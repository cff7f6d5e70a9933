//! The program: reads its arguments, sets the log up, and runs the agent or says what is wrong.

use std::io::Write as _;
use std::process::ExitCode;

use docker_cache::args::{self, Ended, Verb};
use docker_cache::config::{Config, Explained, Source};
use docker_cache::{agent, explain, fire, logging};

// It is called by its symbols.
#[cfg(all(target_env = "musl", target_arch = "x86_64"))]
use docker_cache_memcpy as _;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: docker_cache_allocator::Allocator = docker_cache_allocator::Allocator;

/// Usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let variables = |name: &str| std::env::var_os(name);
    let typed = match args::parse(&program.to_string_lossy(), arguments, &variables) {
        Ok(typed) => typed,
        Err(ended) => return end(&ended),
    };
    let (verb, file) = (typed.verb, typed.file.clone());
    let source = Source::new(typed);
    let built = match source.read() {
        Ok(built) => built,
        Err(refused) => {
            warn(&refused.warnings, verb == Verb::Check);
            let mistakes = refused.mistakes.iter();
            return end(&Ended {
                text: mistakes.map(|error| format!("{error}\n")).collect(),
                stdout: false,
                code: USAGE,
            });
        }
    };
    match (verb, file) {
        (Verb::Check, Some(file)) => {
            warn(&built.warnings, true);
            end(&Ended {
                text: built.checked(&file) + "\n",
                stdout: true,
                code: 0,
            })
        }
        _ => match (&built.explained, &built.fired) {
            (Some(explained), _) => {
                warn(&built.warnings, false);
                tell(&built.config, explained)
            }
            (None, Some(fired)) => {
                warn(&built.warnings, false);
                match fire::run(&built.config, fired) {
                    Ok(code) => ExitCode::from(code),
                    Err(ended) => end(&ended),
                }
            }
            (None, None) => run(built.config, source, &built.warnings),
        },
    }
}

/// What is probably not meant. What `check` finds is its output.
fn warn(warnings: &[String], stdout: bool) {
    let lines = warnings.iter().map(|text| format!("warning: {text}\n"));
    end(&Ended {
        text: lines.collect(),
        stdout,
        code: 0,
    });
}

fn tell(config: &Config, explained: &Explained) -> ExitCode {
    explain::run(config, explained).unwrap_or_else(|error| {
        end(&Ended {
            text: format!("error: {error}\n"),
            stdout: false,
            code: 1,
        })
    })
}

fn run(config: Config, source: Source, warnings: &[String]) -> ExitCode {
    if let Err(error) = logging::start(config.log_format) {
        return end(&Ended {
            text: format!("failed to start the log: {error}\n"),
            stdout: false,
            code: 1,
        });
    }
    let strays = args::stray_variables(std::env::vars_os().map(|(name, _)| name));
    for warning in strays.iter().chain(warnings) {
        log::warn!("{warning}");
    }
    agent::run(config, source).unwrap_or_else(|error| {
        log::error!("{error}");
        ExitCode::FAILURE
    })
}

/// Prints the last words. A reader that went away changes nothing.
fn end(ended: &Ended) -> ExitCode {
    let text = ended.text.as_bytes();
    let _ = match ended.stdout {
        true => std::io::stdout().write_all(text),
        false => std::io::stderr().write_all(text),
    };
    ExitCode::from(ended.code)
}
