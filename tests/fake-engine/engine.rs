//! A Docker engine of our own on a real socket, that can misbehave in every way a real one was seen to.
//!
//! One thread accepts, one serves each connection, and one watches each event stream for the client's hanging up. [`Engine`] is the handle: what is
//! done to its containers, and how it is to misbehave from now on. It answers what an agent asks: ping, version, info, list, inspect and events, by
//! moby's rules, in moby's words.
//!
//! The demo program and the tests include this file; neither uses all of it.
#![allow(dead_code, missing_docs)]

pub mod containers;
pub mod events;
pub mod http;
mod serve;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containers::{Container, Spec, Status};
use events::{Broker, Event, Item, Schema};
use http::{Conn, Listener, Place};

/// What can be asked of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    Ping,
    Info,
    Version,
    /// Every list that has no behaviour of its own.
    List,
    /// The list that is asked for this container only.
    ListOf(String),
    /// Every inspect that has no behaviour of its own.
    Inspect,
    /// The inspect of this container.
    InspectOf(String),
    Events,
    /// All that has no behaviour of its own.
    Every,
}

/// How a route misbehaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes the request and says nothing until it is told to behave.
    Hang,
    /// Makes its answer at once and sends it so much later. For events: sends the headers and subscribes so much later.
    Late(Duration),
    /// Refuses, with this status and message.
    Status(u16, String),
    /// Answers an inspect with that of this container, as a proxy may that mixes up who asked what.
    Another(String),
}

/// The handle; the engine ends with it.
pub struct Engine {
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    place: Place,
    broker: Broker,
    state: Mutex<State>,
    /// A behaviour or `run` changed: whoever hangs looks again.
    changed: Condvar,
    conns: Mutex<HashMap<u64, Conn>>,
}

struct State {
    /// Counts the times that it began to refuse; an acceptor of an older time ends.
    run: u64,
    /// Counts the times that it went down; a connection of an older time ends.
    downs: u64,
    listening: bool,
    containers: BTreeMap<String, Container>,
    /// What a stale list shows.
    stale: Option<BTreeMap<String, Container>>,
    created: u64,
    clock_offset_ns: i64,
    engine_id: String,
    name: String,
    version: String,
    api: [(u32, u32); 2],
    schema: Schema,
    behaviours: HashMap<Route, Behaviour>,
    slice: bool,
    /// A stream that has sent so many bytes after its headers is cut; the first of them counts, then it is gone.
    cuts: VecDeque<usize>,
    quiet: bool,
    requests: BTreeMap<Route, u64>,
    next_conn: u64,
}

impl Engine {
    /// Starts an engine there.
    pub fn listen(place: &Place) -> io::Result<Engine> {
        let (listener, place) = Listener::bind(place)?;
        let engine = Engine {
            shared: Arc::new(Shared {
                place,
                broker: Broker::default(),
                state: Mutex::new(State::new()),
                changed: Condvar::new(),
                conns: Mutex::default(),
            }),
            acceptor: Mutex::default(),
        };
        engine.accept(listener);
        Ok(engine)
    }

    /// The URL to give to a client.
    pub fn url(&self) -> String {
        self.shared.place.url()
    }

    /// The place to connect to.
    pub fn place(&self) -> &Place {
        &self.shared.place
    }

    // What happens to containers. Each call returns when its events were taken by all subscribers or dropped.

    /// `docker create`: answers the id.
    pub fn create(&self, spec: Spec) -> String {
        let now_ns = self.now_ns();
        let mut state = self.shared.state();
        state.created += 1;
        let container = Container::new(spec, state.created, now_ns);
        let id = container.id.clone();
        state.containers.insert(id.clone(), container);
        drop(state);
        self.emit(&id, "create", &[]);
        id
    }

    /// `docker run -d`: answers the id.
    pub fn run(&self, spec: Spec) -> String {
        let id = self.create(spec);
        self.start(&id);
        id
    }

    /// `docker start`.
    pub fn start(&self, id: &str) {
        let networks = self.change(id, |container, now_ns| {
            container.begin(now_ns);
            container.networks.clone()
        });
        for network in networks {
            self.emit_network(id, "connect", &network);
        }
        self.emit(id, "start", &[]);
    }

    /// Its process ends by itself.
    pub fn die(&self, id: &str, exit_code: i64) {
        self.end(id, exit_code);
        if self.change(id, |container, _| container.spec.auto_remove) {
            self.destroy(id);
        }
    }

    /// `docker kill --signal`.
    pub fn kill(&self, id: &str, signal: i64) {
        self.emit(id, "kill", &[("signal", &signal.to_string())]);
        self.die(id, 128 + signal);
    }

    /// `docker stop`. One that is removed when it dies sends no `stop`: it is not there any more.
    pub fn stop(&self, id: &str) {
        self.kill(id, 15);
        if self.shared.state().containers.contains_key(id) {
            self.emit(id, "stop", &[]);
        }
    }

    /// `docker restart`; one that is removed when it dies stays.
    pub fn restart_container(&self, id: &str) {
        self.emit(id, "kill", &[("signal", "15")]);
        self.end(id, 143);
        self.emit(id, "stop", &[]);
        self.start(id);
        self.emit(id, "restart", &[]);
    }

    /// `docker rm`.
    pub fn destroy(&self, id: &str) {
        let attributes = self.change(id, |container, _| container.attributes(&[]));
        self.shared.state().containers.remove(id);
        self.emit_raw_event("container", "destroy", id, attributes);
    }

    /// `docker rename`.
    pub fn rename(&self, id: &str, name: &str) {
        let old = self.change(id, |container, _| {
            std::mem::replace(&mut container.spec.name, name.into())
        });
        self.emit(id, "rename", &[("oldName", &format!("/{old}"))]);
    }

    /// `docker pause`.
    pub fn pause(&self, id: &str) {
        self.change(id, |container, _| container.status = Status::Paused);
        self.emit(id, "pause", &[]);
    }

    /// `docker unpause`.
    pub fn unpause(&self, id: &str) {
        self.change(id, |container, _| container.status = Status::Running);
        self.emit(id, "unpause", &[]);
    }

    /// `docker update --memory`.
    pub fn update(&self, id: &str, memory: u64) {
        self.change(id, |container, _| container.memory = memory);
        self.emit(id, "update", &[]);
    }

    /// The kernel kills something in it.
    pub fn oom(&self, id: &str) {
        self.change(id, |container, _| container.oom = true);
        self.emit(id, "oom", &[]);
    }

    /// Its health check finds something else than before.
    pub fn health(&self, id: &str, health: &str) {
        self.change(id, |container, _| container.health = health.into());
        self.emit(id, &format!("health_status: {health}"), &[]);
    }

    /// `docker network connect`; of a container that does not run, Docker tells nothing.
    pub fn connect(&self, id: &str, network: &str) {
        let runs = self.change(id, |container, _| {
            container.networks.push(network.into());
            container.status.is_running()
        });
        if runs {
            self.emit_network(id, "connect", network);
        }
    }

    /// `docker network disconnect`.
    pub fn disconnect(&self, id: &str, network: &str) {
        let runs = self.change(id, |container, _| {
            container.networks.retain(|name| name != network);
            container.status.is_running()
        });
        if runs {
            self.emit_network(id, "disconnect", network);
        }
    }

    /// `docker exec`: three events that change nothing.
    pub fn exec(&self, id: &str, command: &str) {
        let exec = [("execID", &*containers::new_id())];
        self.emit(id, &format!("exec_create: {command}"), &exec);
        self.emit(id, &format!("exec_start: {command}"), &exec);
        self.emit(id, "exec_die", &[exec[0], ("exitCode", "0")]);
    }

    /// `docker top`: an event that changes nothing.
    pub fn top(&self, id: &str) {
        self.emit(id, "top", &[]);
    }

    /// Any event of one of its containers.
    pub fn emit(&self, id: &str, action: &str, extra: &[(&str, &str)]) {
        let attributes = self.change(id, |container, _| container.attributes(extra));
        self.emit_raw_event("container", action, id, attributes);
    }

    /// Any event at all.
    pub fn emit_raw_event(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: Vec<(String, String)>,
    ) {
        if self.shared.state().quiet || !self.shared.state().listening {
            return;
        }
        self.shared.broker.publish(Item::Event(Event {
            kind: kind.into(),
            action: action.into(),
            id: id.into(),
            attributes,
            time_ns: self.now_ns(),
        }));
    }

    /// Bytes as they are, into all streams: garbage, a line of 10 MB, what is no UTF-8. A line's end is the caller's to give.
    pub fn emit_bytes(&self, bytes: impl Into<Vec<u8>>) {
        self.shared.broker.publish(Item::Raw(bytes.into()));
    }

    // What is so.

    /// What `docker ps` shows.
    pub fn running(&self) -> BTreeSet<String> {
        let state = self.shared.state();
        let running = state
            .containers
            .values()
            .filter(|one| one.status.is_running());
        running.map(|one| one.id.clone()).collect()
    }

    /// What `docker ps -a` shows beyond that.
    pub fn stopped(&self) -> BTreeSet<String> {
        let state = self.shared.state();
        let stopped = state
            .containers
            .values()
            .filter(|one| !one.status.is_running());
        stopped.map(|one| one.id.clone()).collect()
    }

    /// The engine's clock, ns since 1970.
    pub fn now_ns(&self) -> i64 {
        self.shared.state().now_ns()
    }

    /// How many events have been told.
    pub fn events_published(&self) -> u64 {
        self.shared.broker.published()
    }

    /// How many events a subscriber did not get, by our will or because it did not read.
    pub fn events_dropped(&self) -> u64 {
        self.shared.broker.dropped()
    }

    /// How many events each stream that is open did not get, oldest first; those that were dropped on order do not count.
    pub fn events_dropped_each(&self) -> Vec<u64> {
        self.shared.broker.dropped_each()
    }

    /// How many event streams are open.
    pub fn subscribers(&self) -> usize {
        self.shared.broker.subscribers()
    }

    /// How often this was asked; `InspectOf` counts with `Inspect` too, `ListOf` with `List`, all with `Every`.
    pub fn requests(&self, route: &Route) -> u64 {
        self.shared
            .state()
            .requests
            .get(route)
            .copied()
            .unwrap_or(0)
    }

    // How it misbehaves.

    /// From now on this route misbehaves.
    pub fn misbehave(&self, route: Route, behaviour: Behaviour) {
        self.shared.state().behaviours.insert(route, behaviour);
        self.shared.changed.notify_all();
    }

    /// From now on this route behaves; what hung there is answered.
    pub fn behave(&self, route: &Route) {
        self.shared.state().behaviours.remove(route);
        self.shared.changed.notify_all();
    }

    /// The list shows what was when this was switched on, until it is switched off.
    pub fn stale_list(&self, stale: bool) {
        let mut state = self.shared.state();
        state.stale = stale.then(|| state.containers.clone());
    }

    /// The next stream that has sent so many bytes after its headers, framing counted, is cut; once. Several are used up in their order.
    pub fn cut_stream_after(&self, bytes: usize) {
        self.shared.state().cuts.push_back(bytes);
    }

    /// How many cuts are still to come.
    pub fn cuts_left(&self) -> usize {
        self.shared.state().cuts.len()
    }

    /// Forgets the past: who subscribes hears only of what comes.
    pub fn forget_events(&self) {
        self.ring_size(0);
        self.ring_size(events::RING);
    }

    /// The streams that are open now go silent without closing, like a connection whose other end lost its power.
    pub fn silence_streams(&self) {
        self.shared.broker.silence();
    }

    /// The streams that are open now end cleanly, as those of an engine that stops.
    pub fn end_streams(&self) {
        self.shared.broker.end();
    }

    /// All is written in pieces of one byte.
    pub fn slice(&self, slice: bool) {
        self.shared.state().slice = slice;
    }

    /// The next events reach no subscriber, and nobody is told.
    pub fn drop_next_events(&self, count: u64) {
        self.shared.broker.drop_next(count);
    }

    /// What happens while this is on sends no event.
    pub fn quiet(&self, quiet: bool) {
        self.shared.state().quiet = quiet;
    }

    /// How many events it remembers.
    pub fn ring_size(&self, size: usize) {
        self.shared.broker.resize(size);
    }

    /// How it writes events.
    pub fn schema(&self, schema: Schema) {
        self.shared.state().schema = schema;
    }

    /// Its clock goes so far ahead of ours (or behind), from now on.
    pub fn clock_offset(&self, ms: i64) {
        self.shared.state().clock_offset_ns = ms * 1_000_000;
    }

    /// Another engine answers here.
    pub fn engine_id(&self, id: &str) {
        self.shared.state().engine_id = id.into();
    }

    /// The name of its machine.
    pub fn host_name(&self, name: &str) {
        self.shared.state().name = name.into();
    }

    /// Its version, and the oldest and newest version of the API that it speaks.
    pub fn version(&self, version: &str, oldest: (u32, u32), newest: (u32, u32)) {
        let mut state = self.shared.state();
        state.version = version.into();
        state.api = [oldest, newest];
    }

    /// Ends all connections that are open now.
    pub fn cut_all(&self) {
        for conn in self.shared.conns().values() {
            conn.shutdown();
        }
    }

    /// Refuses connections from now on; those that are open stay.
    pub fn refuse(&self) {
        let handle = self
            .acceptor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(handle) = handle else { return };
        self.shared.state().run += 1;
        // The acceptor sees the new run when it has accepted something.
        let _ = self.shared.place.connect();
        let _ = handle.join();
    }

    /// Goes down: refuses, ends all connections, forgets its events. What happens to containers meanwhile is told to nobody.
    pub fn go_down(&self) {
        self.refuse();
        {
            let mut state = self.shared.state();
            state.downs += 1;
            state.listening = false;
        }
        self.shared.changed.notify_all();
        self.shared.broker.forget();
        self.cut_all();
    }

    /// Accepts again, at the same place, after [`Engine::refuse`] or [`Engine::go_down`].
    pub fn come_up(&self) -> io::Result<()> {
        let (listener, _) = Listener::bind(&self.shared.place)?;
        self.accept(listener);
        Ok(())
    }

    /// A restart under live-restore: the containers run on, the remembered events are lost.
    pub fn restart(&self) -> io::Result<()> {
        self.go_down();
        self.come_up()
    }

    fn accept(&self, listener: Listener) {
        let run = {
            let mut state = self.shared.state();
            state.listening = true;
            state.run
        };
        let shared = self.shared.clone();
        let acceptor = std::thread::spawn(move || {
            while let Ok(conn) = listener.accept() {
                if shared.state().run != run {
                    return;
                }
                serve::spawn(&shared, conn);
            }
        });
        *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = Some(acceptor);
    }

    fn end(&self, id: &str, exit_code: i64) {
        let networks = self.change(id, |container, now_ns| {
            container.end(exit_code, now_ns);
            container.networks.clone()
        });
        self.emit(id, "die", &[("exitCode", &exit_code.to_string())]);
        for network in networks {
            self.emit_network(id, "disconnect", &network);
        }
    }

    fn change<T>(&self, id: &str, change: impl FnOnce(&mut Container, i64) -> T) -> T {
        let mut state = self.shared.state();
        let now_ns = state.now_ns();
        match state.containers.get_mut(id) {
            Some(container) => change(container, now_ns),
            None => panic!("the fake engine has no container `{id}`"),
        }
    }

    fn emit_network(&self, id: &str, action: &str, network: &str) {
        let attributes = [("container", id), ("name", network), ("type", "bridge")];
        let owned = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let network_id = containers::image_id(network);
        self.emit_raw_event("network", action, &network_id, owned.into());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.go_down();
        if let Place::Unix(path) = &self.shared.place {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conns(&self) -> MutexGuard<'_, HashMap<u64, Conn>> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> State {
        State {
            run: 0,
            downs: 0,
            listening: false,
            containers: BTreeMap::new(),
            stale: None,
            created: 0,
            clock_offset_ns: 0,
            engine_id: containers::new_id()[..39].to_uppercase(),
            name: "fake".into(),
            version: "20.10.24+fake".into(),
            api: [(1, 12), (1, 41)],
            schema: Schema::Both,
            behaviours: HashMap::new(),
            slice: false,
            cuts: VecDeque::new(),
            quiet: false,
            requests: BTreeMap::new(),
            next_conn: 0,
        }
    }

    fn now_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as i64) + self.clock_offset_ns
    }
}
