//! Answers that are lost, late, or refusals.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::A;
use crate::store::link::Wire;
use crate::store::redis::RedisStore;
use crate::store::testing::*;
use crate::store::*;

#[test]
fn after_a_lost_reply_open_says_whether_it_ran() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(&server);
    let mut client = server.client();
    let mut store = RedisStore::new(options(proxy.socket.clone(), "boot"));
    store.open().expect("open");
    store.take(&claims(&[0])).expect("take");
    let cut = |answers: usize| {
        proxy
            .answers
            .store(answers, std::sync::atomic::Ordering::SeqCst)
    };

    cut(0);
    let error = store
        .apply(&report(0, vec![put("c1", "i")]))
        .expect_err("the answer was cut");
    assert!(error.uncertain && !error.timed_out, "{error:?}");
    assert_eq!(
        error.text,
        "failed to talk to Redis `unix:///private`: the connection was closed"
    );
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (Some(true), vec![]));
    assert_eq!(client.text("EXISTS docker:containers:c1"), "1");
    done(store.apply(&report(0, vec![put("c1", "i")])));

    // Redis closes before it reads the transaction.
    client.ask("CLIENT KILL TYPE normal SKIPME yes");
    let error = store
        .apply(&report(0, vec![put("c2", "i")]))
        .expect_err("the connection was closed");
    assert!(error.uncertain);
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (Some(false), vec![]));
    assert_eq!(client.text("EXISTS docker:containers:c2"), "0");

    cut(0);
    store
        .apply(&report(0, vec![put("c3", "i")]))
        .expect_err("the answer was cut");
    client.ask("FLUSHALL");
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (None, vec![A]));

    // What was to follow the lost reply follows the next one.
    store.take(&claims(&[0])).expect("take");
    done(store.apply(&report(0, vec![put("c4", "old")])));
    cut(0);
    let leave = batch(0, |share| {
        share.drops = vec![gone("c4", "old")];
        share.images_left = vec!["old".into()];
    });
    store.apply(&leave).expect_err("the answer was cut");
    store.open().expect("open");
    assert_eq!(client.list("SMEMBERS docker:images"), ["old"]);
    done(store.apply(&report(0, vec![])));
    assert_eq!(client.list("SMEMBERS docker:images"), [] as [&str; 0]);

    // A lost heartbeat is nobody's question, and costs nobody a lease.
    store.take(&claims(&[0])).expect("take");
    cut(0);
    let error = store.beat(&claims(&[0])).expect_err("the answer was cut");
    assert!(!error.uncertain);
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (None, vec![]));
    done(store.apply(&report(0, vec![])));
}

#[test]
fn a_stopped_server_is_given_up_within_the_deadline() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    server.signal(Signal::STOP);
    let begun = Instant::now();
    let puts: Vec<Put> = (0..100).map(|id| put(&format!("c{id}"), "i")).collect();
    let error = store.apply(&report(0, puts)).expect_err("nobody answers");
    let took = begun.elapsed();
    server.signal(Signal::CONT);
    assert!(error.timed_out && error.uncertain, "{error:?}");
    let limits = Duration::from_millis(4_900)..Duration::from_millis(6_000);
    assert!(limits.contains(&took), "{took:?}");
    // It may run late, while we connect anew; what open says of it has to be the last word.
    let opened = store.open().expect("open");
    assert_eq!(opened.lost, []);
    let mut client = server.client();
    until("the old connection is gone", || {
        client.text("CLIENT LIST").lines().count() == 2
    });
    let exists = client.text("EXISTS docker:containers:c99") == "1";
    assert_eq!(opened.ran, Some(exists));
    done(store.apply(&report(0, vec![])));
}

#[test]
fn refusals_are_named_with_their_remedy() {
    let server = Server::start(&["--requirepass", "s3cret"]);
    let mut client = server.client();
    let error = |password: Option<&str>, user: Option<&str>| {
        let mut options = options(server.socket(), "boot");
        options.target.password = password.map(str::to_owned);
        options.target.username = user.map(str::to_owned);
        let mut store = RedisStore::new(options);
        let opened = store.open();
        opened
            .and_then(|_| store.take(&claims(&[0])))
            .map(|_| store)
            .map_err(|error| error.text)
    };
    let none = error(None, None).err().expect("no password");
    assert!(
        none.contains("NOAUTH") && none.contains("--cache-password-file"),
        "{none}"
    );
    let wrong = error(Some("guess"), None).err().expect("a wrong password");
    assert!(
        wrong.contains("WRONGPASS") && !wrong.contains("guess"),
        "{wrong}"
    );
    let mut store = error(Some("s3cret"), None).expect("the right password");
    client.ask("AUTH s3cret");
    client.ask("ACL SETUSER agent on >pass ~docker:* &docker_events +@all -multi");
    let multi = error(Some("pass"), Some("agent"))
        .err()
        .expect("no transactions");
    assert!(
        multi.contains("NOPERM") && multi.contains("`MULTI`"),
        "{multi}"
    );
    client.ask("ACL SETUSER agent ~docker:* &docker_events +@all");
    let mut agent = error(Some("pass"), Some("agent")).expect("the prefix is all it takes");
    done(agent.apply(&report(0, vec![])));
    client.ask("ACL SETUSER agent -publish");
    let publish = agent
        .apply(&report(0, vec![put("c1", "i")]))
        .expect_err("no notices");
    assert!(
        publish.text.contains("`PUBLISH`") && !publish.uncertain,
        "{publish}"
    );
    assert_eq!(
        client.text("EXISTS docker:containers:c1"),
        "0",
        "Redis would not queue it, so nothing ran"
    );

    client.ask("DEL docker:hosts:a:lease");
    store.take(&claims(&[0])).expect("take");
    client.ask("CONFIG SET maxmemory 1");
    let memory = store
        .apply(&report(0, vec![put("c1", "i")]))
        .expect_err("no memory");
    assert!(memory.text.contains("maxmemory"), "{memory}");
    assert!(
        error(Some("s3cret"), None)
            .err()
            .expect("no memory")
            .contains("maxmemory"),
        "open says so already"
    );
    client.ask("CONFIG SET maxmemory 0");
    client.ask("REPLICAOF 127.0.0.1 1");
    let replica = error(Some("s3cret"), None).err().expect("a replica");
    assert!(
        replica.contains("READONLY") || replica.contains("MASTERDOWN"),
        "{replica}"
    );
    client.ask("REPLICAOF NO ONE");
    client.ask("CONFIG SET maxclients 1");
    let many = error(Some("s3cret"), None).err().expect("too many clients");
    assert!(many.contains("maxclients"), "{many}");
}

#[test]
fn what_is_no_redis_is_said_to_be_none() {
    let folder = std::env::temp_dir().join(format!("docker-cache-foreign-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let socket = folder.join("socket");
    let open = || {
        RedisStore::new(options(socket.clone(), "boot"))
            .open()
            .expect_err("no Redis")
            .text
    };
    assert!(open().contains("there is no such socket"), "{}", open());
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .expect("an answer");
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
    });
    assert!(open().contains("does not speak Redis's protocol"));
    server.join().expect("the server");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_tcp_address_and_a_database_number() {
    // No port is free for sure; the system picks one, and redis-server takes it a moment later.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.expect("a free port").port();
    let server = Server::start(&["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    let mut options = options(server.socket(), "boot");
    options.target.place = crate::config::CachePlace::Tcp {
        host: "localhost".into(),
        port,
    };
    options.target.database = 3;
    let mut store = RedisStore::new(options.clone());
    assert_eq!(
        store.open().expect("open").address,
        format!("localhost:{port}/3")
    );
    store.take(&claims(&[0])).expect("take");
    done(store.apply(&report(0, vec![put("c1", "i")])));
    let mut client = server.client();
    assert_eq!(client.keys(), [] as [&str; 0]);
    client.ask("SELECT 3");
    assert_eq!(client.text("EXISTS docker:containers:c1"), "1");
    options.target.database = 99;
    let error = RedisStore::new(options)
        .open()
        .expect_err("no such database");
    assert!(error.text.contains("`databases`"), "{error}");
    drop(server);
    let error = store.beat(&claims(&[0])).expect_err("it is gone");
    assert!(error.text.ends_with("the connection was closed"), "{error}");
    let error = store.open().expect_err("it is gone");
    assert!(
        error
            .text
            .contains("connection refused; is redis-server running there?"),
        "{error}"
    );
    assert!(!error.text.contains("os error"), "{error}");
}

/// A connection whose every other read and write is interrupted by a signal.
struct Interrupted {
    stream: UnixStream,
    is_next: bool,
}

impl Interrupted {
    fn interrupt(&mut self) -> io::Result<()> {
        self.is_next = !self.is_next;
        match self.is_next {
            true => Ok(()),
            false => Err(io::ErrorKind::Interrupted.into()),
        }
    }
}

impl Read for Interrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        self.stream.read(buffer)
    }
}

impl Write for Interrupted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.interrupt()?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Interrupted {
    fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        self.stream.limit_reads(limit)
    }

    fn limit_writes(&self, limit: Duration) -> io::Result<()> {
        self.stream.limit_writes(limit)
    }
}

#[test]
fn a_signal_does_not_cost_the_connection() {
    let server = Server::start(&[]);
    let socket = server.socket();
    let dial = move || -> io::Result<Box<dyn Wire>> {
        let stream = UnixStream::connect(&socket)?;
        let is_next = true;
        Ok(Box::new(Interrupted { stream, is_next }))
    };
    let options = options(server.socket(), "boot");
    let mut store = RedisStore::dialing(options, Box::new(dial));
    store.open().expect("open");
    store.take(&claims(&[0])).expect("take");
    done(store.apply(&report(0, vec![put("c1", "i")])));
    assert_eq!(server.client().text("EXISTS docker:containers:c1"), "1");
}
