//! HTTP/1.1, as far as an engine is asked: GETs over one connection that is kept, answers as they are sliced.
//!
//! Who knows what it will ask next has that sent along: an engine then works on the second question while the first's answer is made use of. It
//! answers in the order of the questions (RFC 9112, 9.3.2). A server may end a connection behind any answer; what was asked there and whose answer has not
//! begun is asked again on a new one, and from then on one question at a time.
//!
//! Whatever goes wrong, nothing more is read from that connection: an answer that comes too late is never taken for the next.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Header, Status};
use memchr::memchr;

use super::connect::Transport;
use super::socket::Closer;
use crate::model::Address;

/// An engine that listens and does not accept for so long is down.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A connection that nobody used for so long is not used again; a syncer pings more often.
const IDLE_AGE: Duration = Duration::from_secs(30);

/// More header lines than any engine sends.
const HEADERS: usize = 64;

/// The way to one engine.
#[derive(Debug)]
pub(super) struct Http {
    address: Address,
    closer: Closer,
    /// How much is read at once; the head of an answer must fit. A process with many engines has that for each of its connections.
    room: usize,
    transport: Option<Transport>,
    /// When that was last used,
    used: Instant,
    /// and whether it ever answered.
    served: bool,
    /// The server does not take one question behind the other, or ends connections as it likes: from now on it is asked one at a time.
    alone: bool,
    /// The paths that were sent, and whose answers have not begun.
    asked: VecDeque<String>,
    /// What was read and not made use of: `from..to`.
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    /// The head of the last answer.
    head: Vec<u8>,
    /// What is to come of its body,
    body: Body,
    /// and whether the connection ends with it.
    last: bool,
}

/// What is to come of an answer's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Body {
    /// So many bytes.
    Length(u64),
    /// A chunk's length.
    ChunkSize,
    /// So many bytes of a chunk, and the line's end.
    Chunk(u64),
    /// The lines behind the last chunk.
    Trailers,
    /// All up to the end of the connection.
    Rest,
    /// Nothing.
    Done,
}

impl Http {
    /// Connects to nothing yet.
    pub(super) fn new(address: &Address, closer: Closer, room: usize) -> Http {
        Http {
            address: address.clone(),
            closer,
            room,
            transport: None,
            used: Instant::now(),
            served: false,
            alone: false,
            asked: VecDeque::new(),
            buffer: Vec::new(),
            from: 0,
            to: 0,
            head: Vec::new(),
            body: Body::Done,
            last: false,
        }
    }

    /// The same way once more, with a connection of its own.
    pub(super) fn another(&self) -> Http {
        Http::new(&self.address, self.closer.clone(), self.room)
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn closer(&self) -> &Closer {
        &self.closer
    }

    /// Asks for the first of these and waits until `by` for the head of its answer: the status. What is to be asked for after it is sent along.
    pub(super) fn get(&mut self, paths: &[String], by: Instant) -> io::Result<u16> {
        let sent_along = !self.asked.is_empty();
        loop {
            let status = self.attempt(paths, by);
            let ended = status.as_ref().is_err_and(is_end);
            // A connection that was kept, or on which two questions came at once, says nothing of the engine by ending instead of an answer.
            let may_be_ours = self.served || self.asked.len() > 1;
            if !(ended && may_be_ours && self.unread().is_empty() && !self.closer.is_closed()) {
                return status.inspect_err(|_| self.hang_up());
            }
            self.alone |= sent_along || !self.served;
            self.hang_up();
        }
    }

    fn attempt(&mut self, paths: &[String], by: Instant) -> io::Result<u16> {
        let under_way = self.asked.len();
        let as_said = under_way <= paths.len() && self.asked.iter().eq(&paths[..under_way]);
        let is_usable = match &self.transport {
            Some(_) if self.body != Body::Done || !as_said => false,
            Some(_) if under_way > 0 => true,
            Some(open) => {
                self.unread().is_empty() && self.used.elapsed() < IDLE_AGE && open.is_open()
            }
            None => false,
        };
        if !is_usable {
            self.hang_up();
            self.transport = Some(self.connect(by)?);
        }
        let wanted = if self.alone { 1 } else { paths.len() };
        let new = paths.get(self.asked.len()..wanted).unwrap_or(&[]);
        let mut text = String::with_capacity(256 * new.len());
        for path in new {
            self.question(path, &mut text);
        }
        if let Some(transport) = self.transport.as_ref().filter(|_| !new.is_empty()) {
            match transport.send(text.as_bytes()) {
                Ok(()) => self.asked.extend(new.iter().cloned()),
                // What was asked before may be answered all the same.
                Err(cause) if under_way > 0 && is_end(&cause) => {}
                Err(cause) => return Err(cause),
            }
        }
        let status = self.read_head(by)?;
        self.asked.pop_front();
        self.served = true;
        Ok(status)
    }

    fn connect(&self, by: Instant) -> io::Result<Transport> {
        if self.closer.is_closed() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let limit = by.saturating_duration_since(Instant::now());
        let transport = Transport::connect(&self.address, limit.min(CONNECT_LIMIT))?;
        self.closer.watch(transport.shared())?;
        Ok(transport)
    }

    fn question(&self, path: &str, text: &mut String) {
        const ABOUT_US: &str = concat!("docker-cache/", env!("CARGO_PKG_VERSION"));
        text.push_str("GET ");
        text.push_str(path);
        text.push_str(" HTTP/1.1\r\nHost: ");
        text.push_str(&authority(&self.address));
        text.push_str("\r\nUser-Agent: ");
        text.push_str(ABOUT_US);
        text.push_str("\r\nAccept: application/json\r\n\r\n");
    }

    /// Gives the connection up, and all that was asked on it.
    fn hang_up(&mut self) {
        self.transport = None;
        self.served = false;
        self.asked.clear();
        (self.from, self.to) = (0, 0);
        self.body = Body::Done;
    }

    fn read_head(&mut self, by: Instant) -> io::Result<u16> {
        loop {
            let mut headers = [EMPTY_HEADER; HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let unread = &self.buffer[self.from..self.to];
            match response.parse(unread).map_err(nonsense)? {
                Status::Complete(length) => {
                    let status = response.code.unwrap_or(0);
                    let version = response.version.unwrap_or(0);
                    let (body, last) = framing(status, version, response.headers)?;
                    self.head.clear();
                    self.head.extend_from_slice(&unread[..length]);
                    self.from += length;
                    // What is only said meanwhile.
                    if (100..200).contains(&status) {
                        continue;
                    }
                    self.last = last;
                    self.body = body;
                    if body == Body::Length(0) {
                        self.finish();
                    }
                    return Ok(status);
                }
                Status::Partial => self.more(by)?,
            }
        }
    }

    /// A header of the last answer; none where it is not text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = [EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&self.head).ok()?;
        let header = named(response.headers, name).next()?;
        str::from_utf8(header).ok()
    }

    /// Waits until `by` for the next piece of the body; it is empty at the end. Where nothing comes in time one may ask again.
    pub(super) fn piece(&mut self, by: Instant) -> io::Result<&[u8]> {
        loop {
            match self.body {
                Body::Done => return Ok(&[]),
                // An empty line is no length, though httparse takes it for one.
                Body::ChunkSize if self.unread().starts_with(b"\r") => {
                    return Err(bad("a chunk of its answer has no length"));
                }
                Body::ChunkSize => match httparse::parse_chunk_size(self.unread()) {
                    Ok(Status::Complete((length, size))) => {
                        self.from += length;
                        self.body = match size {
                            0 => Body::Trailers,
                            size => Body::Chunk(size),
                        };
                    }
                    Ok(Status::Partial) => self.more(by)?,
                    Err(_) => return Err(bad("a chunk of its answer has no length")),
                },
                Body::Chunk(0) => match self.line(by)? {
                    true => self.body = Body::ChunkSize,
                    false => return Err(bad("a chunk of its answer is longer than it says")),
                },
                Body::Trailers => {
                    if self.line(by)? {
                        self.finish();
                    }
                }
                Body::Rest if self.unread().is_empty() => {
                    if self.fill(by)? == 0 {
                        self.finish();
                    }
                }
                Body::Length(_) | Body::Chunk(_) if self.unread().is_empty() => self.more(by)?,
                Body::Rest => return Ok(self.unread()),
                Body::Length(left) | Body::Chunk(left) => {
                    let unread = self.unread();
                    let length = unread
                        .len()
                        .min(usize::try_from(left).unwrap_or(usize::MAX));
                    return Ok(&self.unread()[..length]);
                }
            }
        }
    }

    /// Was the next piece read already, so that it need not be waited for?
    pub(super) fn has_piece(&self) -> bool {
        let unread = self.unread();
        let chunk = |unread: &[u8]| match httparse::parse_chunk_size(unread) {
            Ok(Status::Complete((length, size))) => size > 0 && unread.len() > length,
            _ => false,
        };
        match self.body {
            Body::Length(_) | Body::Chunk(1..) | Body::Rest => !unread.is_empty(),
            Body::Chunk(0) => unread.strip_prefix(b"\r\n").is_some_and(chunk),
            Body::ChunkSize => chunk(unread),
            Body::Trailers | Body::Done => false,
        }
    }

    /// So much of the last piece was made use of.
    pub(super) fn consume(&mut self, length: usize) {
        self.from += length;
        match &mut self.body {
            Body::Length(left) | Body::Chunk(left) => *left -= length as u64,
            _ => {}
        }
        if self.body == Body::Length(0) {
            self.finish();
        }
    }

    /// The answer is read.
    fn finish(&mut self) {
        self.used = Instant::now();
        self.body = Body::Done;
        if self.last {
            self.alone = true;
            self.hang_up();
        }
    }

    /// Passes over a line, which may be empty: is it?
    fn line(&mut self, by: Instant) -> io::Result<bool> {
        loop {
            let unread = self.unread();
            if let Some(length) = memchr(b'\n', unread) {
                let is_empty = matches!(&unread[..length], b"" | b"\r");
                self.from += length + 1;
                return Ok(is_empty);
            }
            self.more(by)?;
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// Reads more of what must come.
    fn more(&mut self, by: Instant) -> io::Result<()> {
        match self.fill(by)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads once; 0 is the end.
    fn fill(&mut self, by: Instant) -> io::Result<usize> {
        self.buffer.resize(self.room, 0);
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to == self.room {
            return Err(bad("its answer has too long a head or line"));
        }
        let Some(transport) = &mut self.transport else {
            return Ok(0);
        };
        let length = transport.receive(&mut self.buffer[self.to..], by)?;
        self.to += length;
        Ok(length)
    }
}

/// The body of an answer, for who reads it as it comes: until `by`, and no more than `room`.
pub(super) struct Reading<'h> {
    http: &'h mut Http,
    by: Instant,
    room: u64,
}

impl Reading<'_> {
    pub(super) fn of(http: &mut Http, by: Instant, room: u64) -> Reading<'_> {
        Reading { http, by, room }
    }

    /// Reads all of it, in place of what `body` held.
    pub(super) fn all(mut self, body: &mut Vec<u8>) -> io::Result<()> {
        body.clear();
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                return Ok(());
            }
            body.extend_from_slice(piece);
            let length = piece.len();
            self.consume(length);
        }
    }

    fn piece(&mut self) -> io::Result<&[u8]> {
        let piece = self.http.piece(self.by)?;
        match piece.len() as u64 > self.room {
            true => Err(bad("its answer is too long")),
            false => Ok(piece),
        }
    }

    fn consume(&mut self, length: usize) {
        self.room -= length as u64;
        self.http.consume(length);
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece()?;
        let length = piece.len().min(into.len());
        into[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Host and port as a URL has them; a path has none, and HTTP wants one.
pub(super) fn authority(address: &Address) -> String {
    match address {
        Address::Unix(_) => "localhost".to_owned(),
        Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Address::Tcp { host, port } => format!("{host}:{port}"),
    }
}

/// How the body of an answer ends (RFC 9112, 6.3), and whether the connection does so as well.
fn framing(status: u16, version: u8, headers: &[Header<'_>]) -> io::Result<(Body, bool)> {
    let says = |name: &str, word: &str| {
        let mut words = named(headers, name).flat_map(|text| text.split(|byte| *byte == b','));
        words.any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    let last = says("Connection", "close") || version == 0 && !says("Connection", "keep-alive");
    let body = match named(headers, "Content-Length").next() {
        _ if matches!(status, 100..200 | 204 | 304) => Body::Length(0),
        _ if says("Transfer-Encoding", "chunked") => Body::ChunkSize,
        None => return Ok((Body::Rest, true)),
        Some(length) => {
            let length = str::from_utf8(length).ok().and_then(|it| it.parse().ok());
            Body::Length(length.ok_or_else(|| bad("its answer has no sound length"))?)
        }
    };
    Ok((body, last))
}

/// What the headers of this name say.
fn named<'h>(headers: &[Header<'h>], name: &str) -> impl Iterator<Item = &'h [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// The other side ended the connection.
fn is_end(cause: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(cause.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// It does not speak HTTP.
fn nonsense(cause: httparse::Error) -> io::Error {
    let text = format!("its answer is no HTTP: {cause}; is it a Docker engine?");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::super::fake::*;
    use super::*;
    use proptest::prelude::*;
    use socket2::{Domain, Socket, Type};
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_millis(100);
    const OK: &str = "HTTP/1.1 200 OK\r\n";

    fn http(fake: &Fake) -> Http {
        Http::new(&fake.address(), Closer::default(), 4096)
    }

    /// A connection on which an engine has said this already, and closed.
    fn saying(bytes: &[u8]) -> Http {
        let pair = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a pair is free");
        (&pair.1).write_all(bytes).expect("there is room");
        let nowhere = Address::Unix("/nonexistent/docker.sock".into());
        let mut http = Http::new(&nowhere, Closer::default(), 256);
        http.transport = Some(Transport::over(pair.0));
        http
    }

    fn by() -> Instant {
        Instant::now() + PATIENCE
    }

    /// The next answer.
    fn answer_of(http: &mut Http) -> io::Result<(u16, String)> {
        let status = http.read_head(by())?;
        let mut body = Vec::new();
        Reading::of(http, by(), 1 << 20).all(&mut body)?;
        Ok((status, String::from_utf8(body).expect("it is text")))
    }

    /// Asks for the first of these.
    fn ask(http: &mut Http, paths: &[&str], limit: Duration) -> io::Result<String> {
        let paths: Vec<String> = paths.iter().map(|path| path.to_string()).collect();
        let by = Instant::now() + limit;
        http.get(&paths, by)?;
        let mut body = Vec::new();
        Reading::of(http, by, 1 << 20).all(&mut body)?;
        Ok(String::from_utf8(body).expect("it is text"))
    }

    fn asked(peer: &mut UnixStream) -> String {
        let line = first_line(peer);
        let path = line.split(' ').nth(1);
        path.unwrap_or_default().to_owned()
    }

    fn tell(peer: &mut UnixStream, body: &str) {
        send(peer, answer("200 OK", "", body).as_bytes());
    }

    #[test]
    fn an_answer_is_read_to_its_end_however_it_is_framed() {
        for (said, status, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                200,
                "abc",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, ""),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
                204,
                "",
            ),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", 304, ""),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
                200,
                "ab0123456789",
            ),
            (
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\n",
                404,
                "a",
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
                200,
                "a",
            ),
        ] {
            // One byte at a time, and twice on one connection.
            let (ours, theirs) = UnixStream::pair().expect("a pair is free");
            let mut http = saying(b"");
            http.transport = Some(Transport::over(ours.into()));
            let text = said.repeat(2);
            let writer = std::thread::spawn(move || {
                for byte in text.bytes() {
                    (&theirs).write_all(&[byte]).expect("it reads");
                }
                theirs
            });
            let expected = (status, body.to_owned());
            for turn in 0..2 {
                let told = answer_of(&mut http).expect("it is sound");
                assert_eq!(told, expected, "{turn} of {said:?}");
            }
            writer.join().expect("it does not panic");
        }
    }

    #[test]
    fn without_a_length_an_answer_ends_with_its_connection() {
        for said in [
            "HTTP/1.1 200 OK\r\n\r\nab\r\n\r\nc",
            "HTTP/1.0 200 OK\r\n\r\nab\r\n\r\nc",
        ] {
            let mut http = saying(said.as_bytes());
            let told = answer_of(&mut http).expect("it is sound");
            assert_eq!(told, (200, "ab\r\n\r\nc".to_owned()));
            assert!(http.transport.is_none());
        }
    }

    #[test]
    fn half_an_answer_or_a_wrong_one_is_an_error_wherever_it_ends() {
        let whole = format!("{OK}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        for cut in 0..whole.len() {
            let cause = answer_of(&mut saying(&whole.as_bytes()[..cut])).unwrap_err();
            assert!(is_end(&cause), "cut at {cut}: {cause}");
        }
        for wrong in [
            "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            format!("{OK}Content-Length: x\r\n\r\n"),
            format!("{OK}Content-Length: -1\r\n\r\n"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\nx\r\n"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n\r\n\r\n"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
            format!("{OK}X: {}\r\n\r\n", "x".repeat(300)),
        ] {
            let cause = answer_of(&mut saying(wrong.as_bytes())).unwrap_err();
            assert_eq!(cause.kind(), io::ErrorKind::InvalidData, "{wrong}: {cause}");
        }
    }

    #[test]
    fn no_more_is_read_than_there_is_to_be_room_for() {
        let mut http = saying(format!("{OK}Content-Length: 9\r\n\r\n123456789").as_bytes());
        http.read_head(by()).expect("it is sound");
        let cause = Reading::of(&mut http, by(), 8)
            .all(&mut Vec::new())
            .unwrap_err();
        assert_eq!(cause.to_string(), "its answer is too long");
    }

    #[test]
    fn headers_are_found_in_any_spelling() {
        let mut http = saying(format!("{OK}API-version: 1.41\r\nX: \u{fc}\r\n\r\nbody").as_bytes());
        http.read_head(by()).expect("it is sound");
        assert_eq!(http.header("Api-Version"), Some("1.41"));
        assert_eq!(http.header("Date"), None);
    }

    #[test]
    fn what_is_asked_next_is_sent_along_and_answered_in_order() {
        let fake = Fake::new(|listener| {
            let mut peer = accept(listener);
            assert_eq!(asked(&mut peer), "/a");
            // Both are there before the first is answered.
            assert_eq!(asked(&mut peer), "/b");
            tell(&mut peer, "A");
            assert_eq!(asked(&mut peer), "/c");
            tell(&mut peer, "B");
            tell(&mut peer, "C");
            assert_eq!(asked(&mut peer), "", "nothing is asked twice");
        });
        let mut http = http(&fake);
        for (paths, body) in [
            (&["/a", "/b"][..], "A"),
            (&["/b", "/c"], "B"),
            (&["/c"], "C"),
        ] {
            assert_eq!(ask(&mut http, paths, PATIENCE).expect("it answers"), body);
        }
        drop(http);
        fake.finish();
    }

    #[test]
    fn behind_an_answer_that_does_not_come_all_is_asked_again() {
        let fake = Fake::new(|listener| {
            let mut slow = accept(listener);
            assert_eq!(asked(&mut slow), "/slow");
            let mut peer = accept(listener);
            send(&mut slow, answer("200 OK", "", "late").as_bytes());
            for path in ["/b", "/c"] {
                assert_eq!(asked(&mut peer), path);
                tell(&mut peer, path);
            }
        });
        let mut http = http(&fake);
        let cause = ask(&mut http, &["/slow", "/b"], SOON).unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::WouldBlock);
        for paths in [&["/b", "/c"][..], &["/c"]] {
            assert_eq!(
                ask(&mut http, paths, PATIENCE).expect("it answers"),
                paths[0]
            );
        }
        fake.finish();
    }

    #[test]
    fn who_takes_no_question_behind_another_is_asked_one_at_a_time() {
        let says_so = "Connection: close\r\n";
        for header in [says_so, ""] {
            let fake = Fake::new(move |listener| {
                for (path, along) in [("/a", Some("/b")), ("/b", None), ("/c", None)] {
                    let mut peer = accept(listener);
                    assert_eq!(asked(&mut peer), path);
                    if let Some(along) = along {
                        assert_eq!(asked(&mut peer), along);
                    }
                    send(&mut peer, answer("200 OK", header, path).as_bytes());
                }
            });
            let mut http = http(&fake);
            for paths in [&["/a", "/b"][..], &["/b", "/c"], &["/c", "/d"]] {
                let told = ask(&mut http, paths, PATIENCE);
                assert_eq!(told.expect("it answers"), paths[0], "{header}");
            }
            fake.finish();
        }
    }

    #[test]
    fn one_that_ends_before_it_ever_answered_is_not_asked_again() {
        let fake = Fake::new(|listener| drop(first_line(&mut accept(listener))));
        let cause = ask(&mut http(&fake), &["/a"], PATIENCE).unwrap_err();
        assert!(is_end(&cause), "{cause}");
        fake.finish();
    }

    #[test]
    fn one_that_ends_at_a_second_question_is_asked_one_at_a_time() {
        let fake = Fake::new(|listener| {
            drop(first_line(&mut accept(listener)));
            let mut peer = accept(listener);
            for path in ["/a", "/b"] {
                assert_eq!(asked(&mut peer), path);
                tell(&mut peer, path);
            }
        });
        let mut http = http(&fake);
        for paths in [&["/a", "/b"][..], &["/b", "/c"]] {
            let told = ask(&mut http, paths, PATIENCE);
            assert_eq!(told.expect("it answers"), paths[0]);
        }
        fake.finish();
    }

    #[test]
    fn an_answer_that_came_with_the_one_before_is_not_lost_with_the_connection() {
        let fake = Fake::new(|listener| {
            let mut peer = accept(listener);
            assert_eq!(
                (asked(&mut peer), asked(&mut peer)),
                ("/a".into(), "/b".into())
            );
            let last = answer("200 OK", "Connection: close\r\n", "B");
            send(
                &mut peer,
                format!("{}{last}", answer("200 OK", "", "A")).as_bytes(),
            );
        });
        let mut http = http(&fake);
        let told = ask(&mut http, &["/a", "/b"], PATIENCE);
        assert_eq!(told.expect("it answers"), "A");
        fake.finish();
        let told = ask(&mut http, &["/b", "/c"], PATIENCE);
        assert_eq!(told.expect("it was answered"), "B");
    }

    #[test]
    fn who_was_closed_does_not_connect_any_more() {
        let nowhere = Address::Unix("/nonexistent/docker.sock".into());
        let mut http = Http::new(&nowhere, Closer::default(), 256);
        http.closer.close();
        let cause = ask(&mut http, &["/a"], PATIENCE).unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn an_answer_is_only_taken_for_what_was_asked() {
        let fake = Fake::new(|listener| {
            let mut peer = accept(listener);
            assert_eq!(
                (asked(&mut peer), asked(&mut peer)),
                ("/a".into(), "/b".into())
            );
            tell(&mut peer, "A");
            tell(&mut peer, "B");
            // Another question than what was said would be next; then one whose answer nobody reads to its end; then more than an answer.
            for (path, more) in [("/x", ""), ("/y", "more"), ("/z", "")] {
                let mut peer = accept(listener);
                assert_eq!(asked(&mut peer), path);
                send(
                    &mut peer,
                    format!("{}{more}", answer("200 OK", "", path)).as_bytes(),
                );
            }
        });
        let mut http = http(&fake);
        assert_eq!(
            ask(&mut http, &["/a", "/b"], PATIENCE).expect("it answers"),
            "A"
        );
        assert_eq!(http.get(&["/x".to_owned()], by()).expect("it answers"), 200);
        for path in ["/y", "/z"] {
            assert_eq!(ask(&mut http, &[path], PATIENCE).expect("it answers"), path);
        }
        fake.finish();
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes: Vec<u8>, chunked: bool) {
            let head = if chunked { "Transfer-Encoding: chunked\r\n\r\n" } else { "" };
            let said = [OK.as_bytes(), head.as_bytes(), &bytes].concat();
            let mut http = saying(&said);
            let read = http.read_head(by());
            let read = read.and_then(|_| Reading::of(&mut http, by(), 1 << 20).all(&mut Vec::new()));
            prop_assert!(!matches!(read, Err(cause) if cause.kind() == io::ErrorKind::WouldBlock));
        }
    }
}
