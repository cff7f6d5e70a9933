//! A Redis of the test's own, which may be killed, frozen, flushed and restarted.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use redis::{Connection, FromRedisValue, RedisResult, Value};
use rustix::process::Signal;

use super::process::Process;
use super::{TempDir, free_port, wait_until};

/// A `redis-server` on a port and a socket of its own.
pub struct Redis {
    port: u16,
    options: Vec<String>,
    /// `None` while it is down.
    process: Option<Process>,
    folder: TempDir,
}

impl Redis {
    /// Starts an empty one.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// Starts one with options as well: `["--requirepass", "x"]`. With a password only [`Redis::connect`] by one's own URL works.
    pub fn start_with(options: &[&str]) -> Redis {
        let mut redis = Redis {
            port: 0,
            options: options.iter().map(|option| option.to_string()).collect(),
            process: None,
            folder: TempDir::new(),
        };
        // Somebody else may take the port first.
        for _ in 0..10 {
            redis.port = free_port();
            if redis.launch() {
                return redis;
            }
        }
        panic!("failed to start redis-server: {}", redis.log());
    }

    /// `redis://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `redis+unix:///path`.
    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}", self.folder.join("s").display())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection, with a limit on each reply.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        self.try_connect()
            .unwrap_or_else(|error| panic!("failed to connect to `{}`: {error}", self.url()))
    }

    /// Asks it anything: `redis.query::<Vec<String>>(&["SMEMBERS", "docker:hosts"])`.
    #[track_caller]
    pub fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        ask(&mut self.connect(), words)
            .unwrap_or_else(|error| panic!("failed to ask `{}`: {error}", words.join(" ")))
    }

    /// Names of all keys that begin so.
    pub fn keys(&self, beginning: &str) -> BTreeSet<String> {
        self.query(&["KEYS", &format!("{beginning}*")])
    }

    /// Forgets all.
    pub fn flush(&self) {
        self.query::<()>(&["FLUSHALL"]);
    }

    /// Writes its dump, which the next [`Redis::restart`] reads.
    pub fn save(&self) {
        self.query::<()>(&["SAVE"]);
    }

    /// Kills it.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Stops its time: it accepts and does not answer.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets its time go on.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Kills it if it runs, and starts it at the same place with the dump that was saved last; empty when none was.
    pub fn restart(&mut self) {
        self.process = None;
        // The port may still be held for a moment.
        wait_until(Duration::from_secs(10), "redis-server starts again", || {
            self.launch()
        });
    }

    /// The same, but it forgets all.
    pub fn restart_empty(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("dump.rdb"));
        self.restart();
    }

    /// All names and values that it holds, uncut.
    pub fn everything(&self) -> String {
        let mut text = String::new();
        for key in self.keys("") {
            let kind: String = self.query(&["TYPE", &key]);
            let value: Value = match kind.as_str() {
                "hash" => self.query(&["HGETALL", &key]),
                "set" => self.query(&["SMEMBERS", &key]),
                "stream" => self.query(&["XRANGE", &key, "-", "+"]),
                "zset" => self.query(&["ZRANGE", &key, "0", "-1"]),
                _ => self.query(&["GET", &key]),
            };
            let _ = writeln!(text, "{key} {value:?}");
        }
        text
    }

    /// What it holds, as text, long values cut.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        let Ok(mut connection) = self.try_connect() else {
            return "it does not answer\n".into();
        };
        let keys: BTreeSet<String> = ask(&mut connection, &["KEYS", "*"]).unwrap_or_default();
        for key in keys {
            let kind: String = ask(&mut connection, &["TYPE", &key]).unwrap_or_default();
            let ttl_ms: i64 = ask(&mut connection, &["PTTL", &key]).unwrap_or_default();
            let value = match kind.as_str() {
                "set" => ask(&mut connection, &["SMEMBERS", &key]),
                "hash" => ask(&mut connection, &["HGETALL", &key]),
                "zset" => ask(&mut connection, &["ZRANGE", &key, "0", "-1", "WITHSCORES"]),
                "stream" => ask(
                    &mut connection,
                    &["XREVRANGE", &key, "+", "-", "COUNT", "20"],
                ),
                _ => ask(&mut connection, &["GET", &key]),
            };
            let shown = format!("{:?}", value.unwrap_or(Value::Nil));
            let cut: String = shown.chars().take(600).collect();
            let _ = writeln!(text, "{key} ({kind}, ttl {ttl_ms} ms): {cut}");
        }
        text
    }

    /// What it wrote itself.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or(String::new(), Process::log)
    }

    fn try_connect(&self) -> RedisResult<Connection> {
        let limit = Duration::from_secs(5);
        let connection = redis::Client::open(self.url())?.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        connection.set_write_timeout(Some(limit))?;
        Ok(connection)
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    /// Starts it once and waits until it answers; false when it ended instead.
    fn launch(&mut self) -> bool {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut command = Command::new(program);
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(self.folder.join("s"))
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.options);
        let mut process = Process::start(&mut command);
        let mut ready = false;
        // One that has much to load takes its time.
        let soon = Duration::from_secs(60);
        wait_until(soon, "redis-server is ready or ended", || {
            ready = process.log().contains("eady to accept connections");
            ready || process.exited().is_some()
        });
        if ready {
            self.process = Some(process);
        }
        ready
    }
}

/// One command.
pub fn ask<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> RedisResult<T> {
    let (name, args) = words.split_first().unwrap_or((&"PING", &[]));
    redis::cmd(name).arg(args).query(connection)
}

impl Drop for Redis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Redis at {} holds:\n{}---", self.url(), self.dump());
        }
    }
}
