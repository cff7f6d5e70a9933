//! The word to end a command before its time.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::model::Exit;

/// The word to end one command, said from another thread. It cannot be taken back.
#[derive(Debug)]
pub struct Cancel {
    /// Written once and never read, so it stays readable for whoever polls it.
    event: OwnedFd,
    why: OnceLock<Exit>,
}

impl Cancel {
    /// Not cancelled yet. Fails when the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Cancel {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            why: OnceLock::new(),
        })
    }

    /// Ends the command, or keeps it from being started. The first reason given is the one that counts.
    pub fn cancel(&self, why: Exit) {
        if self.why.set(why).is_ok() {
            // The only failure is a counter at its maximum, which is as readable as can be.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Why it is to end, if it is.
    pub fn why(&self) -> Option<&Exit> {
        self.why.get()
    }

    /// To be polled along with what the command does.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.event, PollFlags::IN)
    }
}
