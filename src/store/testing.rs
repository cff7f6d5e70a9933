//! What the tests of the store stand on: a real `redis-server` of their own, a plain client, a proxy that cuts, and data.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::redis::Value;

use super::commands::{Commands, Pieces};
use super::encode::plain;
use super::link::{self, Link, text, texts};
use super::redis::{Options, RedisStore};
use super::*;
use crate::config::{CachePlace, CacheTarget};
use crate::model::Summary;

/// How long anything may take that takes no time.
pub const SOON: Duration = Duration::from_secs(10);

/// A `redis-server` on a private socket, gone with its data when dropped.
pub struct Server {
    pub folder: PathBuf,
    pub child: Child,
}

impl Server {
    pub fn start(options: &[&str]) -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "docker-cache-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("failed to make a folder for redis-server");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(folder.join("socket"))
            .arg("--dir")
            .arg(&folder)
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("failed to start `redis-server`: these tests need it in the PATH (apt-get install redis-server)");
        let server = Server { folder, child };
        until("redis-server listens", || {
            UnixStream::connect(server.socket()).is_ok()
        });
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub fn client(&self) -> Client {
        Client::connect(self.socket())
    }

    /// A store for the hosts `a`, `b`, … that calls itself `boot`.
    pub fn store(&self, boot: &str) -> RedisStore {
        RedisStore::new(options(self.socket(), boot))
    }

    /// A store that is connected and holds these hosts.
    pub fn holding(&self, boot: &str, hosts: &[u32]) -> RedisStore {
        let mut store = self.store(boot);
        store.open().expect("open");
        for taken in store.take(&claims(hosts)).expect("take") {
            taken.outcome.expect("a free lease");
        }
        store
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("failed to signal redis-server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn options(socket: PathBuf, boot: &str) -> Options {
    Options {
        target: CacheTarget {
            place: CachePlace::Unix(socket),
            database: 0,
            username: None,
            password: None,
        },
        shown_url: "unix:///private".to_owned(),
        prefix: "docker".to_owned(),
        ttl: Duration::from_secs(360),
        interval: Duration::from_secs(120),
        replay_max_age: Duration::from_secs(300),
        stream_maxlen: 1000,
        boot: boot.to_owned(),
        selfcheck: true,
    }
}

/// Waits for a condition.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {SOON:?} in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A client that says what it is told.
pub struct Client(Link);

impl Client {
    pub fn connect(socket: PathBuf) -> Client {
        let wire = link::connect(&CachePlace::Unix(socket), SOON).expect("connect");
        Client(Link::over(wire))
    }

    pub fn send(&mut self, words: &[&str]) {
        self.say(&plain(words));
    }

    fn say(&mut self, command: &::redis::Cmd) {
        let commands = Commands::of(std::slice::from_ref(command));
        let sent = self.0.send(Pieces(&[&commands]), Instant::now() + SOON);
        sent.expect("send");
    }

    pub fn receive(&mut self) -> Value {
        self.0.receive(Instant::now() + SOON).expect("receive")
    }

    /// A command, its words separated by spaces.
    pub fn ask(&mut self, line: &str) -> Value {
        self.send(&line.split(' ').collect::<Vec<_>>());
        self.receive()
    }

    /// A command of words that need not be text.
    pub fn bytes(&mut self, words: &[&[u8]]) -> Value {
        let mut command = ::redis::Cmd::new();
        command.arg(words);
        self.say(&command);
        self.receive()
    }

    pub fn text(&mut self, line: &str) -> String {
        let reply = self.ask(line);
        text(&reply).unwrap_or_else(|| format!("{reply:?}"))
    }

    /// The words of a reply that is a list, sorted.
    pub fn list(&mut self, line: &str) -> Vec<String> {
        let mut list = texts(&self.ask(line));
        list.sort_unstable();
        list
    }

    /// All keys but leases and what else only lives for seconds.
    pub fn keys(&mut self) -> Vec<String> {
        let mut keys = self.list("KEYS *");
        keys.retain(|key| {
            !key.ends_with(":lease") && !key.contains(":engines:") && !key.ends_with(":janitor")
        });
        keys
    }
}

/// Passes bytes on to a server, until it is told to swallow the answers: then it ends both connections when an answer comes.
pub struct Proxy {
    pub socket: PathBuf,
    /// After how many more answers (chunks of bytes) it cuts.
    pub answers: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(server: &Server) -> Proxy {
        let socket = server.folder.join("proxy");
        let listener = UnixListener::bind(&socket).expect("failed to bind the proxy's socket");
        let answers = Arc::new(AtomicUsize::new(usize::MAX));
        let (left, target) = (answers.clone(), server.socket());
        // It ends with the test's process: nothing waits for it.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let left = left.clone();
                let Ok(server) = UnixStream::connect(&target) else {
                    return;
                };
                let (from, to) = (client.try_clone(), server.try_clone());
                let (Ok(from), Ok(to)) = (from, to) else {
                    return;
                };
                thread::spawn(move || pass(from, to, None));
                thread::spawn(move || pass(server, client, Some(left)));
            }
        });
        Proxy { socket, answers }
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, left: Option<Arc<AtomicUsize>>) {
    let mut buffer = [0; 65536];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if let Some(left) = &left {
            let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(1))
            });
            if before == Ok(0) {
                // The next connection is a good one again.
                left.store(usize::MAX, Ordering::SeqCst);
                break;
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

pub fn host_id(host: u32) -> Arc<str> {
    match u8::try_from(host) {
        Ok(letter @ 0..26) => char::from(b'a' + letter).to_string().into(),
        _ => format!("h{host}").into(),
    }
}

/// Claims of the hosts `a`, `b`, … and beyond these `h26`, `h27`, …
pub fn claims(hosts: &[u32]) -> Vec<Claim> {
    hosts
        .iter()
        .map(|host| Claim {
            host: EngineIndex(*host),
            id: host_id(*host),
            identity: Some(format!("engine{host}@machine{host}").into()),
        })
        .collect()
}

/// A container that runs an image under its own id as name.
pub fn put(id: &str, image: &str) -> Put {
    put_with(id, image, true, &[("config_image", image)])
}

pub fn put_with(id: &str, image: &str, running: bool, fields: &[(&str, &str)]) -> Put {
    let name = format!("/name-{id}");
    let name = [("name", name.as_str())];
    let all = name.iter().chain(fields).copied().collect();
    Put {
        id: id.into(),
        document: Arc::new(Document {
            fields: all,
            shape: 0,
            json: format!("{{\"Id\":\"{id}\"}}").into(),
            digest: 1,
            answer: None,
            summary: Summary {
                name: format!("name-{id}").into(),
                image: image.into(),
                running,
                ..Summary::default()
            },
        }),
        image_left: None,
        shaped: false,
        placed: false,
        named: false,
    }
}

pub fn gone(id: &str, image: &str) -> Gone {
    Gone {
        id: id.into(),
        image: Some(image.into()),
    }
}

/// A batch for one host.
pub fn batch(host: u32, fill: impl FnOnce(&mut HostBatch)) -> Batch {
    let mut share = HostBatch::new(EngineIndex(host));
    fill(&mut share);
    Batch { hosts: vec![share] }
}

/// A batch that reports a host with these containers for the first time.
pub fn report(host: u32, puts: Vec<Put>) -> Batch {
    batch(host, |share| {
        share.puts = puts;
        share.fields = vec![
            ("status", "up".to_owned()),
            ("update_interval", "120".to_owned()),
        ];
        share.enlist = true;
        share.stamp = true;
        share.renew = true;
        share.renew_shared = true;
        share.notices = vec![Notice::NewHost, Notice::RefreshContainers];
    })
}

#[track_caller]
pub fn done(applied: Result<Applied, StoreError>) -> Vec<(EngineIndex, ContainerId)> {
    match applied {
        Ok(Applied::Done { missing }) => missing,
        other => panic!("the transaction did not run: {other:?}"),
    }
}
