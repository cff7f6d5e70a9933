//! An open `/events` stream: bytes -> whole lines -> events.
//!
//! The reader that calls this must only drain: an engine waits for whoever listens too slowly.

use std::fmt;
use std::io::{self, Read};

use ureq::Body;

use super::client::{DockerError, DockerErrorKind, Way};
use super::wire;
use crate::model::Event;

/// No event comes near to this: what is longer is no line of events.
const LINE_CAP: usize = 16 << 20;
/// The least room for one read; some twenty events.
const READ_BYTES: usize = 16 << 10;

/// An open stream of events.
pub struct Events {
    way: Way,
    body: Box<dyn Read + Send>,
    lines: Lines,
    /// How it ended, once it did.
    end: Option<Result<(), DockerError>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

impl Events {
    pub(super) const ACTION: &str = "follow the events of";

    pub(super) fn new(way: Way, body: Body) -> Events {
        Events {
            way,
            body: Box::new(body.into_reader()),
            lines: Lines::default(),
            end: None,
        }
    }

    /// Waits for the next event. `None`: the engine ended the stream in good order, after a whole line. Half a line is never taken for an event.
    ///
    /// After [`DockerErrorKind::BadLine`] and [`DockerErrorKind::Timeout`] the stream may be read on; any other error is its end.
    #[allow(clippy::should_implement_trait)] // Nobody should `for` over a stream whose errors differ so.
    pub fn next(&mut self) -> Result<Option<Event>, DockerError> {
        loop {
            while let Some(line) = self.lines.next() {
                match wire::event(line) {
                    Ok(None) => {}
                    Ok(event) => return Ok(event),
                    Err(cause) => return Err(self.error(DockerErrorKind::BadLine, &cause.text)),
                }
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            if self.lines.rest() > LINE_CAP {
                let cause = "a line is longer than 16 MiB";
                self.end = Some(Err(self.error(DockerErrorKind::BadAnswer, cause)));
                continue;
            }
            match self.lines.fill(&mut self.body) {
                Ok(0) => self.end = Some(self.judge_end()),
                Ok(_) => {}
                Err(cause) => {
                    let error = self.way.failed(Events::ACTION, cause.into());
                    if error.kind == DockerErrorKind::Timeout {
                        return Err(error);
                    }
                    self.end = Some(Err(error));
                }
            }
        }
    }

    /// Is the end that was just read a good one?
    fn judge_end(&self) -> Result<(), DockerError> {
        if self.way.is_closed() {
            let cause = io::Error::from(io::ErrorKind::NotConnected);
            return Err(self.way.failed(Events::ACTION, cause.into()));
        }
        if self.lines.rest() > 0 {
            return Err(self.error(DockerErrorKind::Broken, "it ended in the middle of a line"));
        }
        Ok(())
    }

    fn error(&self, kind: DockerErrorKind, cause: &str) -> DockerError {
        self.way.error(kind, Events::ACTION, cause)
    }
}

/// Cuts what is read into lines.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Where the first line begins that was not given out.
    start: usize,
    /// Up to where no end of that line was found.
    searched: usize,
}

impl Lines {
    /// The next whole line, without its end.
    fn next(&mut self) -> Option<&[u8]> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n');
        let Some(length) = found else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.start..self.searched + length;
        self.start = line.end + 1;
        self.searched = self.start;
        Some(&self.buffer[line])
    }

    /// How many bytes wait for the end of their line.
    fn rest(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Reads once; 0 is the end.
    fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let outcome = source.read(&mut self.buffer[length..]);
        self.buffer
            .truncate(length + *outcome.as_ref().unwrap_or(&0));
        outcome
    }
}
