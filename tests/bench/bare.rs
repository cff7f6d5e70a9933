//! The limits: straight loops over the same sockets, without any of the agent's layers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::http::Place;
use crate::stage::Redis;

/// A connection to an engine that is kept alive.
pub struct Docker {
    write: UnixStream,
    read: BufReader<UnixStream>,
    body: Vec<u8>,
}

impl Docker {
    pub fn connect(engine: &Engine) -> Docker {
        let Place::Unix(path) = engine.place() else {
            panic!("the engines of the benchmarks are on unix sockets");
        };
        Docker::at(path)
    }

    pub fn at(path: &std::path::Path) -> Docker {
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

    /// Waits for the next event's line.
    pub fn event(&mut self) -> &[u8] {
        self.body.clear();
        self.chunk();
        &self.body
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

    fn chunk(&mut self) -> bool {
        let mut line = String::new();
        self.read.read_line(&mut line).expect("a chunk's length");
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

/// Stands between an agent and Redis, and remembers what the agent says.
pub struct Recorder {
    pub url: String,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    pub fn before(redis: &Redis) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("its address"));
        let said: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (port, kept) = (redis.port, said.clone());
        std::thread::spawn(move || {
            for agent in listener.incoming().map_while(Result::ok) {
                let server =
                    TcpStream::connect(("127.0.0.1", port)).expect("a connection to Redis");
                let (back_from, back_to) = (server.try_clone(), agent.try_clone());
                std::thread::spawn(move || {
                    copy(
                        back_from.expect("a handle"),
                        back_to.expect("a handle"),
                        None,
                    )
                });
                let kept = kept.clone();
                std::thread::spawn(move || copy(agent, server, Some(&kept)));
            }
        });
        Recorder { url, said }
    }

    /// What was said so far.
    pub fn said(&self) -> Vec<u8> {
        self.said.lock().expect("a lock").clone()
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, kept: Option<&Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if let Some(kept) = kept {
            kept.lock().expect("a lock").extend(&buffer[..length]);
        }
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Writes these bytes to Redis as they are, reads as many replies as they have commands; how long that took.
pub fn pipeline(redis: &Redis, bytes: &[u8]) -> Duration {
    let commands = whole_commands(bytes);
    let stream = TcpStream::connect(("127.0.0.1", redis.port)).expect("a connection to Redis");
    stream.set_nodelay(true).expect("no delay");
    let mut read = BufReader::with_capacity(256 * 1024, stream.try_clone().expect("a handle"));
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream)
                .write_all(&bytes[..commands.1])
                .expect("the pipeline")
        });
        for _ in 0..commands.0 {
            reply(&mut read);
        }
    });
    start.elapsed()
}

/// How many commands there are, and where the last whole one ends.
fn whole_commands(bytes: &[u8]) -> (usize, usize) {
    let (mut count, mut end, mut at) = (0, 0, 0);
    let line = |at: usize| -> Option<(usize, usize)> {
        let length = bytes
            .get(at..)?
            .windows(2)
            .position(|pair| pair == b"\r\n")?;
        let number = std::str::from_utf8(bytes.get(at + 1..at + length)?)
            .ok()?
            .parse()
            .ok()?;
        Some((number, at + length + 2))
    };
    while let Some((words, mut next)) = line(at) {
        for _ in 0..words {
            let Some((length, start)) = line(next) else {
                return (count, end);
            };
            next = start + length + 2;
        }
        if next > bytes.len() {
            break;
        }
        (count, end, at) = (count + 1, next, next);
    }
    (count, end)
}

fn reply(read: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    read.read_line(&mut line).expect("a reply");
    let number = || line[1..].trim_end().parse::<i64>().unwrap_or(-1);
    match line.as_bytes()[0] {
        b'$' if number() >= 0 => {
            let length = number() as usize + 2;
            let mut rest = vec![0; length];
            read.read_exact(&mut rest).expect("a reply");
        }
        b'*' => (0..number()).for_each(|_| reply(read)),
        _ => {}
    }
}
