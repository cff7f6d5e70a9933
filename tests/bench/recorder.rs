//! What an agent says to Redis, written down and said again without it: the least that its writes can take.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::kit::redis::Redis;
use crate::stage::timed;

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
        let (port, kept) = (redis.port(), said.clone());
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

/// Writes these bytes to Redis as they are and reads as many replies as they have commands; how many seconds that took.
pub fn pipeline(redis: &Redis, bytes: &[u8]) -> f64 {
    let commands = whole_commands(bytes);
    let stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("a connection to Redis");
    stream.set_nodelay(true).expect("no delay");
    let mut read = BufReader::with_capacity(256 * 1024, stream.try_clone().expect("a handle"));
    timed(|| {
        std::thread::scope(|scope| {
            let all = &bytes[..commands.1];
            scope.spawn(|| (&stream).write_all(all).expect("the pipeline"));
            for _ in 0..commands.0 {
                reply(&mut read);
            }
        });
    })
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
