//! A wire between a client and a server that can be cut, stalled, sliced, and that can lose replies.
//!
//! One thread accepts; each connection has two pumps, one a direction.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use socket2::SockRef;

use super::TempDir;
use crate::engine::http::{Conn, Listener, Place};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Replies,
}

/// The handle; the wire ends with it.
pub struct Proxy {
    place: Place,
    shared: Arc<Shared>,
    _folder: TempDir,
}

struct Shared {
    target: Mutex<Place>,
    state: Mutex<State>,
    changed: Condvar,
    conns: Mutex<HashMap<u64, Conn>>,
}

#[derive(Default)]
struct State {
    over: bool,
    refuse: bool,
    stalled: [bool; 2],
    lost: [bool; 2],
    slice: bool,
    /// So many bytes more may pass, then nothing more does.
    stall_in: [Option<usize>; 2],
    /// So many bytes more may pass, then the connection that carries the last of them is cut.
    left: [Option<usize>; 2],
    passed: [u64; 2],
    accepted: u64,
    /// The last that came from each client, by the connection's number.
    last: HashMap<u64, Vec<u8>>,
}

impl Proxy {
    /// Listens on a port of its own for a server there (`unix://…`, `tcp://…`).
    pub fn tcp(target: &str) -> Proxy {
        Proxy::start(&Place::Tcp("127.0.0.1:0".into()), target, TempDir::new())
    }

    /// Listens on a socket of its own.
    pub fn unix(target: &str) -> Proxy {
        let folder = TempDir::new();
        Proxy::start(&Place::Unix(folder.join("p")), target, folder)
    }

    /// `tcp://127.0.0.1:port` or `unix:///path`.
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// The same for Redis: `redis://127.0.0.1:port` or `redis+unix:///path`.
    pub fn redis_url(&self) -> String {
        self.url()
            .replace("unix://", "redis+unix://")
            .replace("tcp://", "redis://")
    }

    /// Where to connect.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Nothing passes this way until it is switched off.
    pub fn stall(&self, way: Way, stalled: bool) {
        self.shared.state().stalled[way as usize] = stalled;
        self.shared.changed.notify_all();
    }

    /// Nothing passes this way once so many bytes more have passed, until it is switched off.
    pub fn stall_after(&self, way: Way, bytes: usize) {
        self.shared.state().stall_in[way as usize] = Some(bytes);
    }

    /// What goes this way is swallowed until it is switched off: a request is carried out and its reply lost.
    pub fn lose(&self, way: Way, lost: bool) {
        self.shared.state().lost[way as usize] = lost;
    }

    /// All passes byte by byte.
    pub fn slice(&self, slice: bool) {
        self.shared.state().slice = slice;
    }

    /// So many bytes more pass this way, counted over all connections; then the connection is cut, once.
    pub fn cut_after(&self, way: Way, bytes: usize) {
        self.shared.state().left[way as usize] = Some(bytes);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for conn in self.shared.conns().values() {
            conn.shutdown();
        }
    }

    /// Closes each new connection at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.state().refuse = refuse;
    }

    /// How many bytes have passed this way.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.state().passed[way as usize]
    }

    /// The last 256 bytes that came from the client of a connection (they count from 1), and whether the connection is open.
    pub fn last_request(&self, number: u64) -> (Vec<u8>, bool) {
        let last = self.shared.state().last.get(&number).cloned();
        let open = self.shared.conns().contains_key(&(2 * number));
        (last.unwrap_or_default(), open)
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// From now on new connections lead to another server.
    pub fn lead_to(&self, target: &str) {
        *self.shared.target() = place_of(target);
    }

    fn start(place: &Place, target: &str, folder: TempDir) -> Proxy {
        let (listener, place) = Listener::bind(place)
            .unwrap_or_else(|error| panic!("failed to listen at `{}`: {error}", place.url()));
        let shared = Arc::new(Shared {
            target: Mutex::new(place_of(target)),
            state: Mutex::default(),
            changed: Condvar::new(),
            conns: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            while let Ok(client) = listener.accept() {
                let (number, over, refuse) = {
                    let mut state = accepting.state();
                    state.accepted += 1;
                    (state.accepted, state.over, state.refuse)
                };
                if over {
                    return;
                }
                if !refuse {
                    if let Conn::Tcp(client) = &client {
                        // What is stalled is the client's to keep; some kernels would take many MB of it.
                        let _ = SockRef::from(client).set_recv_buffer_size(256 << 10);
                    }
                    // A server that is down closes the client's connection; that is all it sees of it.
                    let _ = join(&accepting, client, number);
                }
            }
        });
        Proxy {
            place,
            shared,
            _folder: folder,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.changed.notify_all();
        self.cut();
        let _ = self.place.connect();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conns(&self) -> MutexGuard<'_, HashMap<u64, Conn>> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> MutexGuard<'_, Place> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[track_caller]
fn place_of(target: &str) -> Place {
    let target = target
        .replace("redis+unix://", "unix://")
        .replace("redis://", "tcp://");
    Place::parse(&target).unwrap_or_else(|| panic!("no place: `{target}`"))
}

/// Connects a client with the server by two pumps.
fn join(shared: &Arc<Shared>, client: Conn, number: u64) -> io::Result<()> {
    let server = shared.target().connect()?;
    let ways = [
        (Way::Requests, client.try_clone()?, server.try_clone()?),
        (Way::Replies, server.try_clone()?, client.try_clone()?),
    ];
    shared
        .conns()
        .extend([(2 * number, client), (2 * number + 1, server)]);
    for (way, mut from, mut to) in ways {
        let shared = shared.clone();
        std::thread::spawn(move || {
            match pump(&shared, number, way, &mut from, &mut to) {
                // The end of one way is passed on; the other may go on.
                Ok(()) => to.finish_writing(),
                Err(_) => {
                    from.shutdown();
                    to.shutdown();
                }
            }
            if way == Way::Replies {
                let mut conns = shared.conns();
                conns.remove(&(2 * number));
                conns.remove(&(2 * number + 1));
            }
        });
    }
    Ok(())
}

/// Carries bytes until their end; an error cuts the connection.
fn pump(shared: &Shared, number: u64, way: Way, from: &mut Conn, to: &mut Conn) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let (allowed, cut, slice) = {
            let mut state = shared.state();
            if way == Way::Requests {
                let last = state.last.entry(number).or_default();
                last.extend_from_slice(&buffer[..count]);
                last.drain(..last.len().saturating_sub(256));
            }
            while state.stalled[way as usize] && !state.over {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.lost[way as usize] {
                continue;
            }
            let left = state.left[way as usize];
            let cut = left.is_some_and(|left| left <= count);
            let allowed = left.map_or(count, |left| left.min(count));
            state.left[way as usize] = left.map(|left| left - allowed).filter(|_| !cut);
            state.passed[way as usize] += allowed as u64;
            let left = state.stall_in[way as usize].map(|left| left.saturating_sub(allowed));
            state.stalled[way as usize] |= left == Some(0);
            state.stall_in[way as usize] = left.filter(|left| *left > 0);
            (allowed, cut, state.slice)
        };
        if slice {
            buffer[..allowed]
                .chunks(1)
                .try_for_each(|byte| to.write_all(byte))?;
        } else {
            to.write_all(&buffer[..allowed])?;
        }
        if cut {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}
