//! How bytes reach an engine: a socket, found by a path or by a name, whose reads end in time and which another thread may shut.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::model::Address;

/// A peer that vanished without a word is noticed after 60 s + 3 x 10 s of silence, before the many minutes a bounded stream may last. Shorter
/// times would cost packets on every idle connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 3;

/// How long what we sent may stay unacknowledged; Linux counts keepalive probes against it as well.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How long a question may wait to be taken. It is short, and finds room in the socket's buffer; only filters may be long.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The shortest limit of a read: less would only turn in circles.
const SHORTEST: Duration = Duration::from_millis(1);

/// A socket that another thread may shut while this one reads.
pub(super) struct Shared(Socket);

impl Shared {
    pub(super) fn shut(&self) {
        // It fails only where there is nothing left to shut.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connected socket.
pub(super) struct Transport {
    socket: Arc<Shared>,
    /// The limit that its reads have now; a system call is made only to change it.
    limit: Duration,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transport").field(&self.socket.0).finish()
    }
}

impl Transport {
    /// Connects, within this limit. Path and name are looked up each time anew: both may lead elsewhere by then.
    pub(super) fn connect(address: &Address, limit: Duration) -> io::Result<Transport> {
        let socket = match address {
            Address::Unix(path) => connect_unix(&SockAddr::unix(path)?, limit),
            Address::Tcp { host, port } => connect_tcp(host, *port, limit),
        };
        let socket = socket.map_err(|cause| match is_timeout(&cause) {
            true => timeout("it did not accept the connection in time"),
            false => cause,
        })?;
        socket.set_write_timeout(Some(SEND_LIMIT))?;
        Ok(Transport::over(socket))
    }

    pub(super) fn over(socket: Socket) -> Transport {
        Transport {
            socket: Arc::new(Shared(socket)),
            limit: Duration::ZERO,
        }
    }

    /// For who is to shut it.
    pub(super) fn shared(&self) -> Weak<Shared> {
        Arc::downgrade(&self.socket)
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket.0).write_all(bytes)
    }

    /// Waits until `by` for bytes; 0 is their end.
    ///
    /// A read's limit is a duration, and to set it is a system call. So it is set to a part of the time that is left, which stays a fair limit for a
    /// while, and whoever is woken too early reads on.
    pub(super) fn receive(&mut self, into: &mut [u8], by: Instant) -> io::Result<usize> {
        loop {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if !(left / 2..=left).contains(&self.limit) {
                let limit = (left - left / 4).max(SHORTEST);
                self.socket.0.set_read_timeout(Some(limit))?;
                self.limit = limit;
            }
            match (&self.socket.0).read(into) {
                Err(cause) if is_timeout(&cause) || is_interrupted(&cause) => {}
                outcome => return outcome,
            }
        }
    }

    /// Open and in order is a connection on which nothing waits: neither an end nor bytes that nobody asked for.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let waits = rustix::net::recv(&self.socket.0, &mut byte, flags);
        matches!(waits, Err(rustix::io::Errno::WOULDBLOCK))
    }
}

/// Connects to a socket's path. A `connect` blocks there only when the engine no longer accepts and its queue is full; the write limit ends that.
fn connect_unix(address: &SockAddr, limit: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(limit.max(SHORTEST)))?;
    loop {
        match socket.connect(address) {
            Err(cause) if is_interrupted(&cause) => {}
            Err(cause) => return Err(cause),
            Ok(()) => return Ok(socket),
        }
    }
}

/// Connects to the first address of a name that answers; each gets an equal share of the time that is left.
fn connect_tcp(host: &str, port: u16, limit: Duration) -> io::Result<Socket> {
    let deadline = Instant::now() + limit;
    let addresses: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|cause| io::Error::new(io::ErrorKind::AddrNotAvailable, cause))?
        .collect();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        match socket.connect_timeout(&SockAddr::from(*address), share) {
            Ok(()) => {
                guard_tcp(&socket)?;
                return Ok(socket);
            }
            // Here, other than in a read, this kind is our own limit.
            Err(cause) if cause.kind() == io::ErrorKind::TimedOut => {
                last = io::ErrorKind::WouldBlock.into();
            }
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

/// Lets the kernel notice a peer that vanished.
fn guard_tcp(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

/// A limit of ours that is over, with what did not happen in time.
pub(super) fn timeout(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, what)
}

/// Our own limit, that is; `TimedOut` is the kernel's word for a peer that keepalive found gone.
pub(super) fn is_timeout(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::WouldBlock
}

fn is_interrupted(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::Interrupted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SOON: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn pair() -> (Transport, Socket) {
        let (ours, theirs) =
            Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a pair is free");
        (Transport::over(ours), theirs)
    }

    #[test]
    fn a_tcp_peer_that_vanishes_is_noticed_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let socket = connect_tcp("127.0.0.1", port, PATIENCE).expect("somebody listens");
        let told = (
            socket.keepalive().expect("it tells"),
            socket.tcp_keepalive_time().expect("it tells"),
            socket.tcp_keepalive_interval().expect("it tells"),
            socket.tcp_keepalive_retries().expect("it tells"),
            socket.tcp_user_timeout().expect("it tells"),
            socket.tcp_nodelay().expect("it tells"),
        );
        let expected = (
            true,
            KEEPALIVE_AFTER,
            KEEPALIVE_EVERY,
            KEEPALIVE_TRIES,
            Some(UNACKNOWLEDGED),
            true,
        );
        assert_eq!(told, expected);
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        // Where the name has an IPv6 address too, nobody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        connect_tcp("localhost", port, PATIENCE).expect("somebody listens");
        drop(listener);
        let refused = connect_tcp("localhost", port, PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn an_engine_that_does_not_accept_holds_nobody_for_ever() {
        let name = format!("docker-cache-full-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let address = SockAddr::unix(&path).expect("the name is short");
        let deaf = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket is free");
        deaf.bind(&address).expect("the name is free");
        deaf.listen(0).expect("it is bound");
        let mut waiting = Vec::new();
        let start = Instant::now();
        let cause = loop {
            match connect_unix(&address, SOON) {
                Ok(socket) => waiting.push(socket),
                Err(cause) => break cause,
            }
            assert!(waiting.len() < 100, "its queue is never full");
        };
        std::fs::remove_file(&path).expect("it was bound");
        assert!(is_timeout(&cause), "{cause}");
        assert!(start.elapsed() >= SOON, "{:?}", start.elapsed());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }

    #[test]
    fn a_read_ends_at_its_time_and_not_before() {
        for limit in [1, 3, 50, 300].map(Duration::from_millis) {
            let (mut ours, _theirs) = pair();
            let start = Instant::now();
            let cause = ours.receive(&mut [0; 8], start + limit).unwrap_err();
            assert!(is_timeout(&cause), "{cause}");
            assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
            assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
            assert!(ours.limit <= limit.max(SHORTEST), "{:?}", ours.limit);
        }
        // What is over is over, whatever waits.
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"x").expect("there is room");
        assert!(is_timeout(
            &ours.receive(&mut [0; 8], Instant::now()).unwrap_err()
        ));
        assert_eq!(
            ours.receive(&mut [0; 8], Instant::now() + PATIENCE).ok(),
            Some(1)
        );
    }

    #[test]
    fn the_limit_of_reads_is_seldom_changed() {
        let (mut ours, mut theirs) = pair();
        let mut limits = Vec::new();
        for _ in 0..100 {
            theirs.write_all(b"x").expect("there is room");
            let by = Instant::now() + PATIENCE;
            ours.receive(&mut [0; 8], by).expect("it is there");
            limits.push(ours.limit);
        }
        limits.dedup();
        assert_eq!(limits.len(), 1, "{limits:?}");
    }

    #[test]
    fn only_a_connection_on_which_nothing_waits_is_used_again() {
        let (ours, mut theirs) = pair();
        assert!(ours.is_open());
        theirs.write_all(b"x").expect("there is room");
        assert!(!ours.is_open());
        let (ours, theirs) = pair();
        drop(theirs);
        assert!(!ours.is_open());
    }
}
