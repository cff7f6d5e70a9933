//! The limits: straight loops over the same sockets, without any of the agent's layers.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use redis::Connection;

use crate::engine::http::Place;
use crate::kit::redis::Redis;

/// A connection to an engine that is kept alive.
pub struct Docker {
    write: UnixStream,
    read: BufReader<UnixStream>,
    body: Vec<u8>,
}

impl Docker {
    pub fn connect(place: &Place) -> Docker {
        let Place::Unix(path) = place else {
            panic!("the engines of the benchmarks are on unix sockets");
        };
        let write = UnixStream::connect(path).expect("a connection to the engine");
        let read = BufReader::with_capacity(64 * 1024, write.try_clone().expect("a handle"));
        Docker {
            write,
            read,
            body: Vec::new(),
        }
    }

    /// The body of an answer that has a length, or is sent in chunks.
    pub fn get(&mut self, path: &str) -> &[u8] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n");
        self.write.write_all(request.as_bytes()).expect("a request");
        let (length, chunked) = self.headers();
        self.body.clear();
        match chunked {
            false => {
                self.body.resize(length, 0);
                self.read.read_exact(&mut self.body).expect("a body");
            }
            true => while self.chunk() {},
        }
        &self.body
    }

    pub fn inspect(&mut self, id: &str) -> &[u8] {
        self.get(&format!("/containers/{id}/json"))
    }

    /// Opens the stream of events; [`Docker::event`] reads it.
    pub fn events(mut self) -> Docker {
        let request = "GET /events HTTP/1.1\r\nHost: docker\r\n\r\n";
        self.write.write_all(request.as_bytes()).expect("a request");
        self.headers();
        self
    }

    /// Waits for the next event's line; `None` at the stream's end.
    pub fn event(&mut self) -> Option<&[u8]> {
        self.body.clear();
        self.chunk().then_some(&self.body)
    }

    fn headers(&mut self) -> (usize, bool) {
        let (mut length, mut chunked) = (0, false);
        let mut line = String::new();
        loop {
            line.clear();
            self.read.read_line(&mut line).expect("a header");
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                return (length, chunked);
            }
            if let Some(number) = header.strip_prefix("content-length:") {
                length = number.trim().parse().expect("a number");
            }
            chunked |= header == "transfer-encoding: chunked";
        }
    }

    /// Adds one to the body; false when that was the last.
    fn chunk(&mut self) -> bool {
        let mut line = String::new();
        // An engine that ends cuts its streams.
        if !matches!(self.read.read_line(&mut line), Ok(1..)) {
            return false;
        }
        let length = usize::from_str_radix(line.trim_end(), 16).expect("a length");
        let start = self.body.len();
        self.body.resize(start + length + 2, 0);
        self.read
            .read_exact(&mut self.body[start..])
            .expect("a chunk");
        self.body.truncate(start + length);
        length > 0
    }
}

/// A list, and an inspect of each of these on the same connection.
pub fn list_and_inspect(engine: &Place, ids: &[String]) {
    let mut docker = Docker::connect(engine);
    docker.get("/containers/json?all=1");
    for id in ids {
        docker.inspect(id);
    }
}

/// From now on, until the engine ends: each event's container is inspected and written, one inspect and one round trip. `ids` are its containers.
pub fn mirror(engine: &Place, redis: &Redis, ids: &[String]) {
    let mut events = Docker::connect(engine).events();
    let mut docker = Docker::connect(engine);
    let mut connection = redis.connect();
    let fields = fields(docker.inspect(&ids[0]));
    std::thread::spawn(move || {
        while let Some(line) = events.event() {
            if let Some(id) = text_field(line, "ID") {
                write(&mut connection, id, docker.inspect(id), &fields);
            }
        }
    });
}

/// A text of an event's line that is in no need of decoding.
fn text_field<'a>(line: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, rest) = text.split_once(&format!("\"{name}\":\""))?;
    Some(rest.split_once('"')?.0)
}

/// One hash, one string and one notice, as the agent writes them of a container that keeps its fields.
fn write(connection: &mut Connection, id: &str, json: &[u8], fields: &[(String, String)]) {
    let key = format!("bare:containers:{id}");
    let mut pipe = redis::pipe();
    pipe.atomic().hset_multiple(&key, fields).expire(&key, 360);
    pipe.set_ex(format!("{key}:json"), json, 360);
    pipe.publish("docker_events", format!("update_container:bare:{id}"));
    pipe.exec(connection).expect("a transaction");
}

/// About as many fields, of about the same size, as the agent writes.
fn fields(inspect: &[u8]) -> Vec<(String, String)> {
    let part = inspect.len() / 110;
    let text = |at: usize| String::from_utf8_lossy(&inspect[at * part..(at + 1) * part]).into();
    (0..110)
        .map(|at| (format!("hostconfig_field_{at}"), text(at)))
        .collect()
}
