//! A client of an engine that is not the agent's own: what a test compares the agent with must not share the agent's mistakes.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use serde_json::Value;

use crate::engine::http::{Conn, Place};

/// An answer.
pub struct Reply {
    /// `200`.
    pub status: u16,
    /// The headers' lines.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("failed to read `{}`: {error}", self.body))
    }

    /// Docker's `message` of an error.
    #[track_caller]
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or("").to_owned()
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn get(place: &Place, path: &str) -> Reply {
    read(Stream::open(place, path))
}

/// The same, to change something.
#[track_caller]
pub fn post(place: &Place, path: &str) -> Reply {
    read(Stream::ask(place, "POST", path))
}

fn read(mut stream: Stream) -> Reply {
    let mut body = Vec::new();
    if stream.chunked {
        while let Some(chunk) = stream.chunk() {
            body.extend(chunk);
        }
    } else {
        let _ = stream.reader.read_to_end(&mut body);
    }
    Reply {
        status: stream.status,
        headers: stream.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// An answer that goes on.
pub struct Stream {
    /// `200`.
    pub status: u16,
    /// The headers' lines.
    pub headers: String,
    chunked: bool,
    reader: BufReader<Conn>,
    /// What came after the last whole line.
    rest: Vec<u8>,
}

impl Stream {
    /// Asks, and reads the headers. Reads give up after 20 s.
    #[track_caller]
    pub fn open(place: &Place, path: &str) -> Stream {
        Stream::ask(place, "GET", path)
    }

    #[track_caller]
    fn ask(place: &Place, method: &str, path: &str) -> Stream {
        let mut conn = place
            .connect()
            .unwrap_or_else(|error| panic!("failed to connect to `{}`: {error}", place.url()));
        let limit = Some(Duration::from_secs(20));
        let limited = match &conn {
            Conn::Unix(stream) => stream.set_read_timeout(limit),
            Conn::Tcp(stream) => stream.set_read_timeout(limit),
        };
        limited
            .and_then(|()| {
                let request =
                    format!("{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
                conn.write_all(request.as_bytes())
            })
            .unwrap_or_else(|error| panic!("failed to ask `{path}`: {error}"));
        let mut reader = BufReader::new(conn);
        let mut headers = String::new();
        while !headers.ends_with("\r\n\r\n") {
            match reader.read_line(&mut headers) {
                Ok(1..) => {}
                other => panic!("no whole headers for `{path}` ({other:?}): {headers}"),
            }
        }
        let status = headers.split(' ').nth(1).and_then(|word| word.parse().ok());
        Stream {
            status: status.unwrap_or(0),
            chunked: headers.contains("Transfer-Encoding: chunked"),
            headers,
            reader,
            rest: Vec::new(),
        }
    }

    /// The next chunk; `None` at the end, clean or not.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    /// The next line of a stream of events; `None` at the end, clean or not.
    pub fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.drain(..=end).collect();
                return Some(line);
            }
            let chunk = self.chunk()?;
            self.rest.extend(chunk);
        }
    }

    /// The next event; `None` at the end.
    #[track_caller]
    pub fn event(&mut self) -> Option<Value> {
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line);
        Some(
            serde_json::from_str(text.trim_start_matches('\u{1e}'))
                .unwrap_or_else(|error| panic!("failed to read the event `{text}`: {error}")),
        )
    }

    /// The actions of the next events, up to and with this one.
    #[track_caller]
    pub fn actions_until(&mut self, last: &str) -> Vec<String> {
        let mut actions = Vec::new();
        while let Some(event) = self.event() {
            let action = event["Action"].as_str().unwrap_or("?").to_owned();
            let done = action == last;
            actions.push(action);
            if done {
                return actions;
            }
        }
        panic!("the stream ended before `{last}` came, after {actions:?}")
    }
}
