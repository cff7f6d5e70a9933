//! The thread `reload`: reads `events.yml` again when SIGHUP asks for it, and gives it to the core when it is right.
//!
//! It may wait for the file system as long as that takes: nobody waits for it. A file with mistakes is refused whole. What is asked for while it works is
//! one more reading, however often it is asked for; the next begins when the core has taken the last one over.

use std::ops::ControlFlow;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::config::Source;
use crate::core::{Input, Reload};
use crate::inbox::Door;
use crate::notify::Notifier;

/// What the thread is made of.
#[derive(Debug)]
pub struct Reloader {
    /// What is read.
    pub source: Source,
    /// Somebody asks for it.
    pub asks: Receiver<()>,
    /// The core has taken it over.
    pub reloaded: Receiver<()>,
    /// Where it is put.
    pub door: Door,
    /// To the service manager.
    pub notifier: Arc<Notifier>,
}

impl Reloader {
    /// Serves one ask; `Break` when there will be no more.
    pub fn run(&mut self) -> ControlFlow<()> {
        if self.asks.recv().is_err() {
            return ControlFlow::Break(());
        }
        self.notifier.reloading();
        if let Some(reload) = self.read() {
            self.door.put(Input::Reload(Box::new(reload)));
            if self.reloaded.recv().is_err() {
                return ControlFlow::Break(());
            }
        }
        self.notifier.ready();
        ControlFlow::Continue(())
    }

    /// None where there are mistakes, which are told.
    fn read(&self) -> Option<Reload> {
        match self.source.read() {
            Ok(built) => {
                for warning in &built.warnings {
                    log::warn!("{warning}");
                }
                let config = built.config;
                Some(Reload {
                    engines: config.engines,
                    entries: config
                        .handlers
                        .map_or(Vec::new(), |handlers| handlers.entries),
                })
            }
            Err(refused) => {
                for warning in &refused.warnings {
                    log::warn!("{warning}");
                }
                for error in refused.mistakes {
                    log::error!("{error}");
                }
                log::error!("the file was read again and is refused; what it said before holds on");
                None
            }
        }
    }
}
