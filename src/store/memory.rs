//! A store in memory for tests: the real [`RedisStore`] over a small Redis of our own, with a clock that is set and faults that are ordered.
//!
//! It speaks the protocol, so that nothing above the bytes is another code than in production. It knows the commands that the store
//! uses, answers at once, and no time passes but by [`Memory::advance`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::link::Wire;
use super::redis::{Options, RedisStore};

/// A Redis in memory; its clones are the same one.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

/// How to lose a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It never arrives.
    Request,
    /// It runs, and its answers do not arrive.
    Reply,
}

impl Memory {
    /// A store over it, which is not connected yet; the options' target is of no account.
    pub fn store(&self, options: Options) -> RedisStore {
        let memory = self.clone();
        RedisStore::dialing(
            options,
            Box::new(move || {
                let mut state = memory.state();
                if state.down {
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                state.connections += 1;
                Ok(Box::new(Connection {
                    number: state.connections,
                    memory: memory.clone(),
                    output: Vec::new(),
                    read: 0,
                }))
            }),
        )
    }

    /// Lets time pass: leases and keys run out.
    pub fn advance(&self, by: Duration) {
        self.state().now_ms += u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    }

    /// Redis goes away, its data stays; or it is there again.
    pub fn set_down(&self, down: bool) {
        let mut state = self.state();
        state.down = down;
        state.sessions.clear();
    }

    /// What the next request meets; its connection ends with it.
    pub fn lose_next(&self, loss: Loss) {
        self.state().loss = Some(loss);
    }

    /// Runs a command as another client would, its words separated by spaces.
    pub fn ask(&self, line: &str) -> Reply {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        self.state().run(&words)
    }

    /// Notices since the last call.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notices)
    }

    /// Every key with its type and content, a line each; without what ends by itself within seconds, and without streams.
    pub fn dump(&self) -> Vec<String> {
        let mut state = self.state();
        state.purge();
        let lasting = state.keys.iter().filter(|(key, _)| is_lasting(key));
        lasting
            .map(|(key, entry)| format!("{key} {:?}", entry.data))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// Is this key one of those that say what is, and not who says it?
pub fn is_lasting(key: &str) -> bool {
    let passing = [":lease", ":janitor", ":alive", ":events", ":runs"];
    !key.contains(":engines:")
        && !key.contains(":once:")
        && !passing.iter().any(|end| key.ends_with(end))
}

/// What a command answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// A status.
    Status(&'static str),
    /// Nothing.
    Nil,
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// Several.
    List(Vec<Reply>),
    /// An error.
    Error(&'static str),
}

impl Reply {
    fn write(&self, out: &mut Vec<u8>) {
        let head = match self {
            Reply::Status(word) => format!("+{word}\r\n"),
            Reply::Nil => "$-1\r\n".to_owned(),
            Reply::Number(number) => format!(":{number}\r\n"),
            Reply::Text(text) => format!("${}\r\n{text}\r\n", text.len()),
            Reply::List(list) => format!("*{}\r\n", list.len()),
            Reply::Error(line) => format!("-{line}\r\n"),
        };
        out.extend_from_slice(head.as_bytes());
        if let Reply::List(list) = self {
            list.iter().for_each(|reply| reply.write(out));
        }
    }
}

const WRONG_TYPE: Reply =
    Reply::Error("WRONGTYPE Operation against a key holding the wrong kind of value");

/// One client's end.
struct Connection {
    number: u64,
    memory: Memory,
    output: Vec<u8>,
    read: usize,
}

impl Wire for Connection {
    fn limit_reads(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn limit_writes(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Connection {
    /// A whole request: the store sends each at once.
    fn write_vectored(&mut self, slices: &[IoSlice]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.memory.state();
        let loss = state.loss.take();
        if state.down || state.ended.contains(&self.number) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if loss.is_some() {
            state.ended.insert(self.number);
        }
        if loss == Some(Loss::Request) {
            return Ok(bytes.len());
        }
        let mut replies = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let words = (0..count(&mut rest, b'*')).map(|_| {
                let length = count(&mut rest, b'$');
                let (word, after) = rest.split_at(length);
                rest = &after[2..];
                String::from_utf8_lossy(word).into_owned()
            });
            let words: Vec<String> = words.collect();
            state.serve(self.number, &words).write(&mut replies);
        }
        if loss.is_none() {
            self.output.extend(replies);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.output[self.read..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.read += count;
        Ok(count)
    }
}

/// Takes a line such as `*3` or `$12` from the front of a request; a request that is none is a mistake of the store's.
fn count(rest: &mut &[u8], mark: u8) -> usize {
    let end = rest.iter().position(|byte| *byte == b'\r');
    let (line, after) = rest.split_at(end.expect("a line ends"));
    *rest = &after[2..];
    assert_eq!(line[0], mark, "not a command of the protocol");
    let digits = std::str::from_utf8(&line[1..]).expect("digits");
    digits.parse().expect("a number")
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Data {
    Text(String),
    Set(BTreeSet<String>),
    Hash(BTreeMap<String, String>),
    Sorted(BTreeMap<String, i64>),
    Stream(Vec<Vec<String>>),
}

impl Data {
    fn kind(&self) -> &'static str {
        match self {
            Data::Text(_) => "string",
            Data::Set(_) => "set",
            Data::Hash(_) => "hash",
            Data::Sorted(_) => "zset",
            Data::Stream(_) => "stream",
        }
    }
}

struct Entry {
    data: Data,
    until_ms: Option<u64>,
}

/// What a connection is about to do.
#[derive(Default)]
struct Session {
    /// Keys with their versions when they began to be watched.
    watched: Vec<(String, u64)>,
    /// Commands since `MULTI`.
    queue: Option<Vec<Vec<String>>>,
}

#[derive(Default)]
struct State {
    now_ms: u64,
    keys: BTreeMap<String, Entry>,
    /// Counts each key's changes, its ends included.
    versions: BTreeMap<String, u64>,
    sessions: BTreeMap<u64, Session>,
    connections: u64,
    ended: BTreeSet<u64>,
    down: bool,
    loss: Option<Loss>,
    notices: Vec<String>,
}

impl State {
    /// A command of a connection, with what belongs to transactions.
    fn serve(&mut self, number: u64, words: &[String]) -> Reply {
        self.purge();
        let mut session = self.sessions.remove(&number).unwrap_or_default();
        let reply = match (words[0].as_str(), &mut session.queue) {
            ("EXEC", queue) => {
                let queue = queue.take().unwrap_or_default();
                let watched = std::mem::take(&mut session.watched);
                let stale = |(key, version): &(String, u64)| self.version(key) != *version;
                if watched.iter().any(stale) {
                    Reply::Nil
                } else {
                    Reply::List(queue.iter().map(|words| self.run(words)).collect())
                }
            }
            (_, Some(queue)) => {
                queue.push(words.to_vec());
                Reply::Status("QUEUED")
            }
            ("MULTI", queue) => {
                *queue = Some(Vec::new());
                Reply::Status("OK")
            }
            ("WATCH", _) => {
                let keys = words[1..].iter();
                session
                    .watched
                    .extend(keys.map(|key| (key.clone(), self.version(key))));
                Reply::Status("OK")
            }
            ("UNWATCH", _) => {
                session.watched.clear();
                Reply::Status("OK")
            }
            _ => self.run(words),
        };
        self.sessions.insert(number, session);
        reply
    }

    fn version(&self, key: &str) -> u64 {
        self.versions.get(key).copied().unwrap_or(0)
    }

    fn changed(&mut self, key: &str) {
        *self.versions.entry(key.to_owned()).or_default() += 1;
    }

    /// Ends what ran out of time, and what became empty.
    fn purge(&mut self) {
        let now = self.now_ms;
        let over: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, entry)| entry.until_ms.is_some_and(|until| until <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &str) -> bool {
        let there = self.keys.remove(key).is_some();
        if there {
            self.changed(key);
        }
        there
    }

    /// A command that is no part of a transaction's frame.
    fn run(&mut self, words: &[String]) -> Reply {
        let key = words.get(1).map_or("", String::as_str);
        let rest = words.get(2..).unwrap_or(&[]);
        match words[0].as_str() {
            "PING" => Reply::Status("PONG"),
            "AUTH" | "SELECT" => Reply::Status("OK"),
            "TIME" => Reply::List(vec![
                Reply::Text((self.now_ms / 1000).to_string()),
                Reply::Text((self.now_ms % 1000 * 1000).to_string()),
            ]),
            "FLUSHALL" => {
                let keys: Vec<String> = self.keys.keys().cloned().collect();
                keys.iter().for_each(|key| {
                    self.remove(key);
                });
                Reply::Status("OK")
            }
            "DEL" => Reply::Number(words[1..].iter().filter(|key| self.remove(key)).count() as i64),
            "EXISTS" => Reply::Number(
                words[1..]
                    .iter()
                    .filter(|key| self.keys.contains_key(*key))
                    .count() as i64,
            ),
            "EXPIRE" => self.expire(key, &rest[0], 1000),
            "PEXPIRE" => self.expire(key, &rest[0], 1),
            "TYPE" => Reply::Status(self.keys.get(key).map_or("none", |entry| entry.data.kind())),
            "MGET" => Reply::List(words[1..].iter().map(|key| self.get(key)).collect()),
            "GET" => self.get(key),
            "SET" => self.set(key, rest),
            "PUBLISH" => {
                self.notices.push(rest[0].clone());
                Reply::Number(0)
            }
            "XADD" => self.edit(key, Data::Stream(Vec::new()), |data| {
                let Data::Stream(entries) = data else {
                    return None;
                };
                // The arguments before the fields: MAXLEN, ~, its number, *.
                entries.push(rest[4..].to_vec());
                Some(Reply::Text(format!("{}-0", entries.len())))
            }),
            "SCAN" => self.scan(rest),
            "PTTL" => Reply::Number(match self.keys.get(key) {
                None => -2,
                Some(entry) => entry
                    .until_ms
                    .map_or(-1, |until| until.saturating_sub(self.now_ms) as i64),
            }),
            name if name.starts_with('H') => self.hash(name, key, rest),
            name if name.starts_with('S') => self.members(name, key, rest),
            name if name.starts_with('Z') => self.sorted(name, key, rest),
            _ => Reply::Error("ERR unknown command"),
        }
    }

    /// Changes a key, which is made where it is not there and removed where nothing is left in it.
    fn edit(
        &mut self,
        key: &str,
        empty: Data,
        change: impl FnOnce(&mut Data) -> Option<Reply>,
    ) -> Reply {
        let mut entry = self.keys.remove(key).unwrap_or(Entry {
            data: empty,
            until_ms: None,
        });
        let before = entry.data.clone();
        let reply = change(&mut entry.data).unwrap_or(WRONG_TYPE);
        if entry.data != before {
            self.changed(key);
        }
        let left = match &entry.data {
            Data::Text(_) => true,
            Data::Set(set) => !set.is_empty(),
            Data::Hash(hash) => !hash.is_empty(),
            Data::Sorted(sorted) => !sorted.is_empty(),
            Data::Stream(entries) => !entries.is_empty(),
        };
        if left {
            self.keys.insert(key.to_owned(), entry);
        }
        reply
    }

    fn expire(&mut self, key: &str, amount: &str, unit_ms: u64) -> Reply {
        let until = self.now_ms + amount.parse::<u64>().unwrap_or(0) * unit_ms;
        let Some(entry) = self.keys.get_mut(key) else {
            return Reply::Number(0);
        };
        entry.until_ms = Some(until);
        self.changed(key);
        Reply::Number(1)
    }

    /// All keys that begin as the pattern does, at once.
    fn scan(&self, rest: &[String]) -> Reply {
        let after = |word: &str| {
            let place = rest.iter().position(|other| other == word)?;
            rest.get(place + 1)
        };
        let beginning = after("MATCH").map_or("", |pattern| pattern.trim_end_matches('*'));
        let found = self.keys.keys().filter(|key| key.starts_with(beginning));
        let found = found.cloned().map(Reply::Text).collect();
        Reply::List(vec![Reply::Text("0".into()), Reply::List(found)])
    }

    fn get(&self, key: &str) -> Reply {
        match self.keys.get(key).map(|entry| &entry.data) {
            Some(Data::Text(text)) => Reply::Text(text.clone()),
            _ => Reply::Nil,
        }
    }

    fn set(&mut self, key: &str, rest: &[String]) -> Reply {
        let has = |word: &str| rest[1..].iter().any(|other| other == word);
        let there = self.keys.contains_key(key);
        if has("NX") && there || has("XX") && !there {
            return Reply::Nil;
        }
        let after = |word: &str| {
            let place = rest[1..].iter().position(|other| other == word)?;
            rest[place + 2].parse::<u64>().ok()
        };
        let limit = after("PX").or_else(|| Some(after("EX")? * 1000));
        let entry = Entry {
            data: Data::Text(rest[0].clone()),
            until_ms: limit.map(|limit| self.now_ms + limit),
        };
        self.keys.insert(key.to_owned(), entry);
        self.changed(key);
        Reply::Status("OK")
    }

    fn hash(&mut self, name: &str, key: &str, rest: &[String]) -> Reply {
        let read = |hash: &BTreeMap<String, String>, field: &String| {
            hash.get(field).cloned().map_or(Reply::Nil, Reply::Text)
        };
        let all = |hash: &BTreeMap<String, String>| {
            let words = hash.iter().flat_map(|(field, value)| [field, value]);
            Reply::List(words.cloned().map(Reply::Text).collect())
        };
        self.edit(key, Data::Hash(BTreeMap::new()), |data| {
            let Data::Hash(hash) = data else { return None };
            Some(match name {
                "HSET" => {
                    for pair in rest.chunks(2) {
                        hash.insert(pair[0].clone(), pair[1].clone());
                    }
                    Reply::Number(1)
                }
                "HDEL" => {
                    rest.iter().for_each(|field| {
                        hash.remove(field);
                    });
                    Reply::Number(1)
                }
                "HGET" => read(hash, &rest[0]),
                "HMGET" => Reply::List(rest.iter().map(|field| read(hash, field)).collect()),
                "HGETALL" => all(hash),
                "HSCAN" => Reply::List(vec![Reply::Text("0".into()), all(hash)]),
                _ => Reply::Error("ERR unknown command"),
            })
        })
    }

    fn members(&mut self, name: &str, key: &str, rest: &[String]) -> Reply {
        let list =
            |set: &BTreeSet<String>| Reply::List(set.iter().cloned().map(Reply::Text).collect());
        self.edit(key, Data::Set(BTreeSet::new()), |data| {
            let Data::Set(set) = data else { return None };
            let before = set.len();
            Some(match name {
                "SADD" => {
                    set.extend(rest.iter().cloned());
                    Reply::Number((set.len() - before) as i64)
                }
                "SREM" => {
                    set.retain(|member| !rest.contains(member));
                    Reply::Number((before - set.len()) as i64)
                }
                "SMEMBERS" => list(set),
                "SSCAN" => Reply::List(vec![Reply::Text("0".into()), list(set)]),
                "SISMEMBER" => Reply::Number(i64::from(set.contains(&rest[0]))),
                "SCARD" => Reply::Number(before as i64),
                _ => Reply::Error("ERR unknown command"),
            })
        })
    }

    fn sorted(&mut self, name: &str, key: &str, rest: &[String]) -> Reply {
        let score = |word: &str| word.trim_start_matches('(').parse::<i64>().unwrap_or(0);
        self.edit(key, Data::Sorted(BTreeMap::new()), |data| {
            let Data::Sorted(sorted) = data else {
                return None;
            };
            Some(match name {
                "ZADD" if rest[0] == "NX" => {
                    sorted.entry(rest[2].clone()).or_insert(score(&rest[1]));
                    Reply::Number(1)
                }
                "ZADD" => {
                    for pair in rest.chunks(2) {
                        sorted.insert(pair[1].clone(), score(&pair[0]));
                    }
                    Reply::Number(1)
                }
                "ZREM" => Reply::Number(i64::from(sorted.remove(&rest[0]).is_some())),
                "ZSCORE" => sorted
                    .get(&rest[0])
                    .map_or(Reply::Nil, |score| Reply::Text(score.to_string())),
                "ZRANGE" => {
                    let scores = rest.iter().any(|word| word == "WITHSCORES");
                    let texts = sorted.iter().flat_map(|(member, score)| {
                        let score = scores.then(|| Reply::Text(score.to_string()));
                        [Some(Reply::Text(member.clone())), score]
                    });
                    Reply::List(texts.flatten().collect())
                }
                "ZRANGEBYSCORE" => Reply::List(
                    sorted
                        .iter()
                        .filter(|(_, found)| **found < score(&rest[1]))
                        .map(|(member, _)| Reply::Text(member.clone()))
                        .collect(),
                ),
                _ => Reply::Error("ERR unknown command"),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EngineIndex;
    use crate::store::testing::*;
    use crate::store::*;

    /// Numbers that look random and are the same each time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// Any batch, whether it makes sense or not.
    fn any_batch(dice: &mut Dice, host: u32) -> Batch {
        let image = |dice: &mut Dice| format!("image{}", dice.below(3));
        batch(host, |share| {
            for _ in 0..dice.below(4) {
                let id = format!("c{}", dice.below(12));
                let image = image(dice);
                let running = dice.below(3) > 0;
                let mut put = put_with(&id, &image, running, &[("config_image", &image)]);
                if dice.below(2) == 0 {
                    put.image_left = Some(format!("image{}", dice.below(3)).into());
                }
                share.puts.push(put);
            }
            for _ in 0..dice.below(3) {
                let id = format!("c{}", dice.below(12));
                share.drops.push(gone(&id, &image(dice)));
                share.names_left.push(format!("name-{id}").into());
                share.images_left.push(image(dice).into());
            }
            share
                .touches
                .push(format!("c{}", dice.below(12)).as_str().into());
            let reassert = format!("c{}", dice.below(12));
            share
                .reassert
                .push((reassert.as_str().into(), image(dice).into()));
            share.fields.push(("status", dice.below(9).to_string()));
            share.fields.push(("update_interval", "1".to_owned()));
            share.enlist = dice.below(2) == 0;
            share.renew = true;
        })
    }

    /// What a real Redis holds, in the words of [`Memory::dump`].
    fn dump(client: &mut Client) -> Vec<String> {
        let mut lines = Vec::new();
        for key in client.keys().into_iter().filter(|key| is_lasting(key)) {
            let line = match client.text(&format!("TYPE {key}")).as_str() {
                "set" => {
                    let set = client.list(&format!("SMEMBERS {key}"));
                    format!("{key} {:?}", Data::Set(set.into_iter().collect()))
                }
                "hash" => {
                    let hash = client.ask(&format!("HGETALL {key}"));
                    let hash = super::super::link::pairs(&hash);
                    format!("{key} {:?}", Data::Hash(hash.into_iter().collect()))
                }
                _ => format!("{key} {:?}", Data::Text(client.text(&format!("GET {key}")))),
            };
            lines.push(line);
        }
        lines
    }

    #[test]
    fn it_does_what_a_real_one_does() {
        let server = Server::start(&[]);
        let mut client = server.client();
        let memory = Memory::default();
        memory.advance(Duration::from_secs(1_000_000));
        for seed in 1..6 {
            let mut dice = Dice(seed * 7919);
            client.ask("FLUSHALL");
            memory.ask("FLUSHALL");
            let mut real = server.holding("boot", &[0, 1]);
            let mut ours = memory.store(options(server.socket(), "boot"));
            ours.open().expect("open");
            ours.take(&claims(&[0, 1])).expect("take");
            for round in 0..60 {
                let batch = any_batch(&mut dice, round % 2);
                assert_eq!(ours.apply(&batch), real.apply(&batch));
                assert_eq!(memory.dump(), dump(&mut client), "seed {seed}");
            }
            assert!(memory.dump().len() > 20, "nothing to compare");
            for (mut store, run) in [(ours, 0), (real, 1)] {
                let host = EngineIndex(0);
                let audit = store.audit(host).expect("audit");
                assert!(audit.listed && audit.fields.len() > 1, "{run}");
                let drop_lease = "DEL docker:hosts:a:lease";
                let overdue = "ZADD docker:alive 1 a";
                if run == 0 {
                    memory.ask(drop_lease);
                    memory.ask(overdue);
                } else {
                    client.ask(drop_lease);
                    client.ask(overdue);
                }
                // Neither has a `last_update`: both hosts are old at once.
                let burials = store.bury(&["a".into()]).expect("bury");
                assert_eq!(burials.len(), 2, "{burials:?}");
                store.sweep().expect("sweep");
            }
            assert_eq!(memory.dump(), dump(&mut client), "seed {seed}");
        }
    }

    #[test]
    fn faults_come_as_ordered() {
        let memory = Memory::default();
        let mut store = memory.store(options("/nowhere".into(), "boot"));
        memory.set_down(true);
        let refused = store.open().expect_err("it is down");
        assert!(refused.text.contains("connection refused"), "{refused}");
        memory.set_down(false);
        store.open().expect("open");
        store.take(&claims(&[0])).expect("take");
        for (loss, ran) in [(Loss::Reply, true), (Loss::Request, false)] {
            memory.lose_next(loss);
            let error = store.apply(&report(0, vec![])).expect_err("it was lost");
            assert!(error.uncertain);
            let opened = store.open().expect("open");
            assert_eq!((opened.ran, opened.lost), (Some(ran), vec![]));
        }
        memory.advance(Duration::from_secs(11));
        let Ok(Applied::Fenced(fenced)) = store.apply(&report(0, vec![])) else {
            panic!("the lease had run out");
        };
        assert_eq!(fenced.lost, [EngineIndex(0)]);
        assert!(memory.notices().contains(&"new_host:a".to_owned()));
        memory.ask("FLUSHALL");
        assert_eq!(memory.dump(), [] as [&str; 0]);
    }
}
