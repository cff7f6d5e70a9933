//! For the tests of this folder: an engine made of a script, on a real Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::model::Address;

/// How long a script or a test waits for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// An engine that does what its script says, once.
pub(super) struct Fake {
    path: PathBuf,
    script: Option<JoinHandle<()>>,
}

impl Fake {
    /// Starts the script; the socket listens already when this returns.
    pub(super) fn new(script: impl FnOnce(&UnixListener) + Send + 'static) -> Fake {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("docker-cache-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).expect("the name is free");
        Fake {
            path,
            script: Some(std::thread::spawn(move || script(&listener))),
        }
    }

    /// One connection, on which each request must be as given and gets its answer.
    pub(super) fn answering(answers: Vec<(&'static str, String)>) -> Fake {
        Fake::new(move |listener| {
            let mut peer = accept(listener);
            for (request, answer) in answers {
                assert_eq!(first_line(&mut peer), format!("GET {request} HTTP/1.1"));
                send(&mut peer, answer.as_bytes());
            }
        })
    }

    pub(super) fn address(&self) -> Address {
        Address::Unix(self.path.clone())
    }

    /// Waits for the script's end and takes over its panic.
    pub(super) fn finish(mut self) {
        let script = self.script.take().expect("it ends but once");
        script.join().expect("the script went as it should");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(super) fn accept(listener: &UnixListener) -> UnixStream {
    let (peer, _) = listener.accept().expect("somebody connects");
    peer.set_read_timeout(Some(PATIENCE))
        .expect("it can be set");
    peer
}

/// Reads a request's head and gives its first line; empty at the end of the connection.
pub(super) fn first_line(peer: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match peer.read(&mut byte).expect("the request comes in time") {
            0 => break,
            _ => head.push(byte[0]),
        }
    }
    let head = String::from_utf8(head).expect("a head is text");
    head.lines().next().unwrap_or("").to_owned()
}

/// Sends; that the other side has gone already is no fault of the script.
pub(super) fn send(peer: &mut UnixStream, bytes: &[u8]) {
    let _ = peer.write_all(bytes);
}

/// Waits until the other side has closed.
pub(super) fn wait_for_end(peer: &mut UnixStream) {
    let mut rest = Vec::new();
    let _ = peer.read_to_end(&mut rest);
}

/// A whole answer, with whatever header lines more.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}
