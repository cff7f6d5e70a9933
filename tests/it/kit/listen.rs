//! What Redis tells while a test goes on: the notices of a channel, and each command that it is asked (MONITOR).

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::redis::Redis;

/// A channel's notices, from the moment when this was made. They are taken in order, each once.
pub struct Notices {
    lines: Receiver<String>,
}

impl Notices {
    /// Subscribes.
    #[track_caller]
    pub fn of(redis: &Redis, name: &str) -> Notices {
        let mut connection = redis.connect();
        connection
            .set_read_timeout(None)
            .unwrap_or_else(|error| panic!("failed to listen: {error}"));
        let (ready, is_ready) = channel();
        let (send, lines) = channel();
        let name = name.to_owned();
        // The thread ends with its Redis.
        std::thread::spawn(move || {
            let mut subscription = connection.as_pubsub();
            let _ = ready.send(subscription.subscribe(&name));
            while let Ok(message) = subscription.get_message() {
                let _ = send.send(message.get_payload().unwrap_or_default());
            }
        });
        match is_ready.recv() {
            Ok(Ok(())) => Notices { lines },
            other => panic!("failed to subscribe: {other:?}"),
        }
    }

    /// Takes the next one; `None` when none came in time.
    pub fn next(&self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// Takes all up to this one, and answers them.
    #[track_caller]
    pub fn until(&self, wanted: &str, limit: Duration) -> Vec<String> {
        let mut all = Vec::new();
        let end = Instant::now() + limit;
        while all.last().is_none_or(|last| last != wanted) {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => all.push(line),
                Err(_) => panic!("no notice `{wanted}` came within {limit:?}, but {all:?}"),
            }
        }
        all
    }

    /// Takes notices until one of them is this one and, at the moment when it came, this held. What is promised with a notice must be so when it comes:
    /// nothing is looked at again without one.
    #[track_caller]
    pub fn until_so(
        &self,
        wanted: &str,
        limit: Duration,
        mut holds: impl FnMut() -> Result<(), String>,
    ) {
        let end = Instant::now() + limit;
        let mut why = "no such notice".to_owned();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line == wanted => match holds() {
                    Ok(()) => return,
                    Err(wrong) => why = wrong,
                },
                Ok(_) => {}
                Err(_) => panic!("at no notice `{wanted}` within {limit:?} all was so: {why}"),
            }
        }
    }

    /// Takes what has come so far.
    pub fn so_far(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

/// Each command that Redis is asked by anybody, as its words, from the moment when this was made.
pub struct Monitor {
    lines: Receiver<Vec<String>>,
}

impl Monitor {
    /// Begins to listen.
    #[track_caller]
    pub fn of(redis: &Redis) -> Monitor {
        let open = || {
            let mut stream = TcpStream::connect(("127.0.0.1", redis.port()))?;
            stream.write_all(b"MONITOR\r\n")?;
            let mut reader = BufReader::new(stream);
            reader.read_line(&mut String::new())?;
            std::io::Result::Ok(reader)
        };
        let mut reader = open().unwrap_or_else(|error| panic!("failed to monitor: {error}"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while matches!(reader.read_line(&mut line), Ok(1..)) {
                let _ = send.send(words(&line));
                line.clear();
            }
        });
        Monitor { lines }
    }

    /// Takes all up to the first that is so, and answers them.
    #[track_caller]
    pub fn until(
        &self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&[String]) -> bool,
    ) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let done = wanted(&line);
                    all.push(line);
                    if done {
                        return all;
                    }
                }
                Err(_) => panic!("{what} did not come within {limit:?}, but {all:#?}"),
            }
        }
    }

    /// Takes all up to and with this notice.
    #[track_caller]
    pub fn until_notice(&self, notice: &str, limit: Duration) -> Vec<Vec<String>> {
        self.until(notice, limit, |words| {
            words[0] == "PUBLISH" && words.last().is_some_and(|last| last == notice)
        })
    }
}

/// `+1700000000.123456 [0 127.0.0.1:1234] "SET" "a" "b"` -> `SET`, `a`, `b`.
fn words(line: &str) -> Vec<String> {
    let (_, told) = line.split_once("] \"").unwrap_or(("", line));
    let told = told.trim_end().trim_end_matches('"');
    let mut words: Vec<String> = told.split("\" \"").map(str::to_owned).collect();
    words[0] = words[0].to_uppercase();
    words
}
