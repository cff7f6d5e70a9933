//! An open `/events` stream: bytes -> whole lines -> events.
//!
//! The reader that calls this must only drain: an engine waits for whoever listens too slowly.

use std::io;
use std::time::Instant;

use memchr::memchr;

use super::client::{DockerError, DockerErrorKind, Way};
use super::wire;
use crate::model::Event;

/// No event comes near to this: what is longer is no line of events.
const LINE_CAP: usize = 16 << 20;

/// An open stream of events.
#[derive(Debug)]
pub struct Events {
    way: Way,
    lines: Lines,
    /// How it ended, once it did.
    end: Option<Result<(), DockerError>>,
}

impl Events {
    pub(super) const ACTION: &str = "follow the events of";

    pub(super) fn new(way: Way) -> Events {
        Events {
            way,
            lines: Lines::default(),
            end: None,
        }
    }

    /// Waits until `by` for the next event. `None`: the engine ended the stream in good order, after a whole line. Half a line is never taken for
    /// an event.
    ///
    /// After [`DockerErrorKind::BadLine`] and [`DockerErrorKind::Timeout`] the stream may be read on; any other error is its end.
    pub fn next(&mut self, by: Instant) -> Result<Option<Event>, DockerError> {
        loop {
            // Where one event follows the other no read would ever be given up.
            if by <= Instant::now() && self.end.is_none() {
                return Err(self.error(DockerErrorKind::Timeout, "nothing more came in time"));
            }
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
            match self.read(by) {
                Ok(true) => {}
                Ok(false) => self.end = Some(self.judge_end()),
                Err(cause) => {
                    let error = self.way.failed(Events::ACTION, cause);
                    if error.kind == DockerErrorKind::Timeout {
                        return Err(error);
                    }
                    self.end = Some(Err(error));
                }
            }
        }
    }

    /// Does [`Events::next`] answer without waiting, because the next line was read already?
    pub fn has_next(&self) -> bool {
        self.lines.has_next()
    }

    /// Waits until `by` for more; `false` at the end. Docker sends each event as a chunk of its own: all that came with one read are lines together.
    fn read(&mut self, by: Instant) -> io::Result<bool> {
        loop {
            let piece = self.way.http.piece(by)?;
            let length = piece.len();
            self.lines.add(piece);
            self.way.http.consume(length);
            if length == 0 || !self.way.http.has_piece() || self.lines.rest() > LINE_CAP {
                return Ok(length > 0);
            }
        }
    }

    /// Is the end that was just read a good one?
    fn judge_end(&self) -> Result<(), DockerError> {
        if self.way.is_closed() {
            let cause = io::Error::from(io::ErrorKind::NotConnected);
            return Err(self.way.failed(Events::ACTION, cause));
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
#[derive(Default, Debug)]
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
        let found = memchr(b'\n', &self.buffer[self.searched..]);
        let Some(length) = found else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.start..self.searched + length;
        self.start = line.end + 1;
        self.searched = self.start;
        Some(&self.buffer[line])
    }

    /// Is there a whole line that is more than white space and separators?
    fn has_next(&self) -> bool {
        let rest = &self.buffer[self.start..];
        let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x1e;
        let begin = rest.iter().position(|byte| !blank(byte));
        begin.is_some_and(|begin| memchr(b'\n', &rest[begin..]).is_some())
    }

    /// How many bytes wait for the end of their line.
    fn rest(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// What was read.
    fn add(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Connection;
    use super::super::fake::*;
    use super::*;
    use std::time::{Duration, Instant};

    const SOON: Duration = Duration::from_millis(100);
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const LINE: &str =
        "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"ä\"},\"timeNano\":7}\n";

    fn chunk(bytes: &[u8]) -> Vec<u8> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend(bytes);
        chunk.extend(b"\r\n");
        chunk
    }

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    /// An engine that answers with these bytes and closes.
    fn telling(bytes: Vec<u8>) -> Fake {
        Fake::new(move |listener| {
            let mut peer = accept(listener);
            let expected = "GET /v1.41/events?since=1.000000002&until=3.000000000 HTTP/1.1";
            assert_eq!(first_line(&mut peer), expected);
            send(&mut peer, &bytes);
        })
    }

    fn opened(fake: &Fake) -> Events {
        let connection = Connection::new(&fake.address());
        let events = connection.events("1.41", 1_000_000_002, 3_000_000_000);
        events.expect("it opens")
    }

    /// How many events come up to the end, and how it ended.
    fn all(fake: Fake) -> (usize, Result<(), DockerErrorKind>) {
        let mut events = opened(&fake);
        let mut count = 0;
        let end = loop {
            match events.next(soon()) {
                Ok(Some(event)) => {
                    assert_eq!((&*event.id, event.time_ns), ("ä", 7));
                    count += 1;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.kind),
            }
        };
        let again = events.next(soon()).map(|event| assert_eq!(event, None));
        assert_eq!(again.map_err(|error| error.kind), end, "an end stays");
        drop(events);
        fake.finish();
        (count, end)
    }

    #[test]
    fn events_are_whole_however_they_are_sliced() {
        for size in [
            1,
            2,
            7,
            LINE.len() - 1,
            LINE.len(),
            LINE.len() + 1,
            9 * LINE.len(),
        ] {
            let mut bytes = HEAD.as_bytes().to_vec();
            for slice in LINE.repeat(9).as_bytes().chunks(size) {
                bytes.extend(chunk(slice));
            }
            bytes.extend(b"0\r\n\r\n");
            assert_eq!(all(telling(bytes)), (9, Ok(())), "slices of {size}");
        }
    }

    #[test]
    fn what_came_with_one_read_is_there_without_waiting_and_nothing_else_is() {
        let half = &LINE[..20];
        let lines = [
            "\n",
            LINE,
            "\n",
            "garbage\n",
            "\u{1e}",
            LINE,
            "\u{1e} \n",
            half,
        ];
        for size in [1, 7, LINE.len(), usize::MAX] {
            let mut bytes = HEAD.as_bytes().to_vec();
            for slice in lines.concat().as_bytes().chunks(size) {
                bytes.extend(chunk(slice));
            }
            let fake = telling(bytes);
            let mut events = opened(&fake);
            assert!(!events.has_next(), "nothing was read");
            let mut told = Vec::new();
            loop {
                let next = events.next(soon()).map(|event| event.is_some());
                told.push((next.map_err(|error| error.kind), events.has_next()));
                if !events.has_next() {
                    break;
                }
            }
            let bad = Err(DockerErrorKind::BadLine);
            let expected = [(Ok(true), true), (bad, true), (Ok(true), false)];
            assert_eq!(told, expected, "slices of {size}");
            let cut = events.next(soon()).map_err(|error| error.kind);
            assert_eq!(cut, Err(DockerErrorKind::Broken));
            drop(events);
            fake.finish();
        }
    }

    #[test]
    fn half_a_line_is_never_taken_wherever_the_stream_is_cut() {
        let mut body = chunk(LINE.as_bytes());
        let first = body.len() - 2;
        body.extend(chunk(&LINE.as_bytes()[..20]));
        body.extend(chunk(&LINE.as_bytes()[20..]));
        let second = body.len() - 2;
        for cut in 0..=body.len() {
            let bytes = [HEAD.as_bytes(), &body[..cut]].concat();
            let whole = usize::from(cut >= first) + usize::from(cut >= second);
            let expected = (whole, Err(DockerErrorKind::Broken));
            assert_eq!(all(telling(bytes)), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_good_end_within_a_line_is_a_bad_one() {
        for end in [1, LINE.len() - 1] {
            let whole = chunk(LINE.as_bytes());
            let half = chunk(&LINE.as_bytes()[..end]);
            let bytes = [HEAD.as_bytes(), &whole, &half, b"0\r\n\r\n"].concat();
            assert_eq!(all(telling(bytes)), (1, Err(DockerErrorKind::Broken)));
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let fake = Fake::new(|listener| {
            let mut peer = accept(listener);
            first_line(&mut peer);
            send(&mut peer, HEAD.as_bytes());
            let block = chunk(&[b'x'; 1 << 16]);
            while std::io::Write::write_all(&mut peer, &block).is_ok() {}
        });
        assert_eq!(all(fake), (0, Err(DockerErrorKind::BadAnswer)));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_told_and_skipped() {
        let lines = format!("\n\u{1e}{LINE}nonsense\n{LINE}");
        let bytes = [HEAD.as_bytes(), &chunk(lines.as_bytes()), b"0\r\n\r\n"].concat();
        let fake = telling(bytes);
        let mut events = opened(&fake);
        assert!(matches!(events.next(soon()), Ok(Some(_))));
        let error = events.next(soon()).unwrap_err();
        assert_eq!(error.kind, DockerErrorKind::BadLine);
        assert!(error.text.contains("`nonsense`"), "{error}");
        assert!(matches!(events.next(soon()), Ok(Some(_))));
        assert_eq!(events.next(soon()), Ok(None));
        fake.finish();
    }

    #[test]
    fn silence_is_told_in_time_and_harms_nothing() {
        let (go, may_go) = std::sync::mpsc::channel();
        let fake = Fake::new(move |listener| {
            let mut peer = accept(listener);
            first_line(&mut peer);
            send(&mut peer, HEAD.as_bytes());
            send(&mut peer, &chunk(&LINE.as_bytes()[..30]));
            may_go.recv_timeout(PATIENCE).expect("the test says go");
            send(&mut peer, &chunk(&LINE.as_bytes()[30..]));
            send(&mut peer, b"0\r\n\r\n");
        });
        let mut events = opened(&fake);
        let start = Instant::now();
        let error = events.next(start + SOON).unwrap_err();
        assert_eq!(error.kind, DockerErrorKind::Timeout);
        assert!(start.elapsed() >= SOON, "{:?}", start.elapsed());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        go.send(()).expect("the script waits");
        let event = events.next(soon());
        let time_ns = event.map(|event| event.map(|event| event.time_ns));
        assert_eq!(time_ns, Ok(Some(7)));
        fake.finish();
    }

    #[test]
    fn closing_frees_a_reader_at_once() {
        let (opened, was_opened) = std::sync::mpsc::channel();
        let fake = Fake::new(|listener| {
            let mut peer = accept(listener);
            first_line(&mut peer);
            send(&mut peer, HEAD.as_bytes());
            wait_for_end(&mut peer);
        });
        let connection = Connection::new(&fake.address());
        let closer = connection.closer();
        let reader = std::thread::spawn(move || {
            let events = connection.events("1.41", 0, 0);
            let mut events = events.expect("it opens");
            opened.send(()).expect("the test waits");
            events.next(soon())
        });
        was_opened.recv_timeout(PATIENCE).expect("it opens");
        let start = Instant::now();
        closer.close();
        let result = reader.join().expect("it does not panic");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(result.unwrap_err().kind, DockerErrorKind::Closed);
        fake.finish();
    }
}
