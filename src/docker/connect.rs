//! How bytes reach an engine: over a Unix socket or over TCP, as one kind of transport for ureq.
//!
//! Both register their socket with the agent, so that shutting the agent frees a thread that is blocked in a read. Names are looked up here,
//! once per connection: ureq's own resolver would start a thread for each request, kept-alive connection or not.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};
use ureq::{Error, Timeout};

use crate::model::Address;

/// A peer that vanished without a word is noticed after 60 s + 3 x 10 s of silence, before the many minutes a bounded stream may last. Shorter
/// times would cost packets on every idle connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 3;

/// How long what we sent may stay unacknowledged; Linux counts keepalive probes against it as well.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The only limit where the caller gave none; all of ours give one.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// An agent whose connections lead to one engine, whatever the URLs of its requests say.
pub(super) fn agent(address: &Address, config: Config, alarm: Alarm) -> ureq::Agent {
    let dialer = Dialer {
        address: address.clone(),
        alarm,
    };
    ureq::Agent::with_parts(config, dialer, NoResolver)
}

/// When reads are to be given up, beside the limits that ureq knows: those are durations, and stay what they were when the request was sent.
#[derive(Clone, Default, Debug)]
pub(super) struct Alarm(Arc<Mutex<Option<Instant>>>);

impl Alarm {
    /// Reads from now on end then at the latest.
    pub(super) fn set(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    fn sooner(&self, timeout: NextTimeout) -> NextTimeout {
        let Some(at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else {
            return timeout;
        };
        let left = at.saturating_duration_since(Instant::now()).into();
        if timeout.after <= left {
            return timeout;
        }
        NextTimeout {
            after: left,
            reason: Timeout::PerRead,
            ..timeout
        }
    }
}

/// Opens connections to one engine, each time anew from the path or the name: both may lead elsewhere by then.
#[derive(Debug)]
struct Dialer {
    address: Address,
    alarm: Alarm,
}

impl<In: Transport> Connector<In> for Dialer {
    type Out = SocketTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<In>,
    ) -> Result<Option<SocketTransport>, Error> {
        let limit = details.timeout.not_zero();
        let limit = limit.map_or(CONNECT_LIMIT, |limit| *limit);
        let socket = match &self.address {
            Address::Unix(path) => connect_unix(&SockAddr::unix(path)?, limit),
            Address::Tcp { host, port } => connect_tcp(host, *port, limit),
        };
        let socket = socket.map_err(|cause| match is_timeout(&cause) {
            true => Error::Timeout(details.timeout.reason),
            false => Error::Io(cause),
        })?;
        let socket = Arc::new(SharedSocket(socket));
        let weak: Weak<SharedSocket> = Arc::downgrade(&socket);
        (details.register_shutdown)(weak)?;
        Ok(Some(SocketTransport {
            socket,
            alarm: self.alarm.clone(),
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
            read_limit: None,
            write_limit: None,
        }))
    }
}

/// Connects to a socket's path. A `connect` blocks there only when the engine no longer accepts and its queue is full; the write limit ends that.
fn connect_unix(address: &SockAddr, limit: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(limit))?;
    loop {
        match socket.connect(address) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
            Ok(()) => {
                socket.set_write_timeout(None)?;
                return Ok(socket);
            }
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

/// A socket that another thread may shut while this one reads.
struct SharedSocket(Socket);

impl ShutdownHandle for SharedSocket {
    fn shutdown(&self) {
        // It fails only where there is nothing left to shut.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connected socket, as ureq wants it.
struct SocketTransport {
    socket: Arc<SharedSocket>,
    alarm: Alarm,
    buffers: LazyBuffers,
    /// The limits that the socket has now; a system call is made only to change them.
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
}

impl fmt::Debug for SocketTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketTransport")
    }
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = not_over(timeout.for_write())?;
        let limit = timeout.not_zero().map(|limit| stepped(*limit));
        if limit != self.write_limit {
            self.socket.0.set_write_timeout(limit)?;
            self.write_limit = limit;
        }
        let mut socket = &self.socket.0;
        match socket.write_all(&self.buffers.output()[..amount]) {
            Err(cause) if is_timeout(&cause) => Err(Error::Timeout(timeout.reason)),
            other => other.map_err(Error::Io),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = not_over(self.alarm.sooner(timeout.for_read()))?;
        let limit = timeout.not_zero().map(|limit| stepped(*limit));
        if limit != self.read_limit {
            self.socket.0.set_read_timeout(limit)?;
            self.read_limit = limit;
        }
        let mut socket = &self.socket.0;
        let current = &mut self.read_limit;
        let outcome = read_on(
            &mut socket,
            self.buffers.input_append_buf(),
            limit,
            |left| {
                *current = Some(left);
                self.socket.0.set_read_timeout(Some(left))
            },
        );
        match outcome {
            Ok(amount) => {
                self.buffers.input_appended(amount);
                Ok(amount > 0)
            }
            Err(cause) if is_timeout(&cause) => Err(Error::Timeout(timeout.reason)),
            Err(cause) => Err(Error::Io(cause)),
        }
    }

    fn is_open(&mut self) -> bool {
        // Open and in order is a connection on which nothing waits: neither an end nor bytes that nobody asked for.
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let waits = rustix::net::recv(&self.socket.0, &mut byte, flags);
        matches!(waits, Err(rustix::io::Errno::WOULDBLOCK))
    }
}

/// Reads, and reads on after a signal with the time that is left: a socket with a limit is not taken up again by the kernel.
fn read_on(
    source: &mut impl Read,
    buffer: &mut [u8],
    limit: Option<Duration>,
    mut set_limit: impl FnMut(Duration) -> io::Result<()>,
) -> io::Result<usize> {
    let start = Instant::now();
    loop {
        match source.read(buffer) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {
                let Some(limit) = limit else { continue };
                let left = limit.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                set_limit(left)?;
            }
            outcome => return outcome,
        }
    }
}

/// A limit in whole steps, rounded up: a limit for a whole call is a little less with each read, and each change costs a system call.
fn stepped(limit: Duration) -> Duration {
    const STEP_MS: u128 = 10;
    let steps = limit.as_nanos().div_ceil(STEP_MS * 1_000_000);
    u64::try_from(steps * STEP_MS).map_or(Duration::MAX, Duration::from_millis)
}

/// A limit of zero would mean none to a socket.
fn not_over(timeout: NextTimeout) -> Result<NextTimeout, Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(timeout)
}

/// Our own limit, that is; `TimedOut` is the kernel's word for a peer that keepalive found gone.
fn is_timeout(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::WouldBlock
}

/// The dialer knows where to go.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SOON: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn transport(socket: Socket) -> SocketTransport {
        SocketTransport {
            socket: Arc::new(SharedSocket(socket)),
            alarm: Alarm::default(),
            buffers: LazyBuffers::new(1024, 1024),
            read_limit: None,
            write_limit: None,
        }
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
    fn a_signal_does_not_end_a_read() {
        struct Interrupted(u32);
        impl Read for Interrupted {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                self.0 -= 1;
                match self.0 {
                    0 => Ok(3),
                    _ => Err(io::ErrorKind::Interrupted.into()),
                }
            }
        }
        let mut limits = Vec::new();
        let read = read_on(&mut Interrupted(4), &mut [0; 8], Some(PATIENCE), |left| {
            limits.push(left);
            Ok(())
        });
        assert_eq!(read.expect("it comes in the end"), 3);
        assert_eq!(limits.len(), 3);
        assert!(limits.is_sorted_by(|a, b| a >= b) && limits[0] < PATIENCE);
        let unlimited = read_on(&mut Interrupted(4), &mut [0; 8], None, |_| unreachable!());
        assert_eq!(unlimited.expect("it comes in the end"), 3);
        let over = read_on(
            &mut Interrupted(9),
            &mut [0; 8],
            Some(Duration::ZERO),
            |_| Ok(()),
        );
        assert!(is_timeout(&over.unwrap_err()));
    }

    #[test]
    fn a_limit_grows_to_the_next_step_and_never_shrinks() {
        for (limit, step) in [
            (1, 10_000),
            (9_999, 10_000),
            (10_000, 10_000),
            (10_001, 20_000),
        ] {
            let stepped = stepped(Duration::from_micros(limit));
            assert_eq!(stepped, Duration::from_micros(step), "{limit}");
        }
        assert!(stepped(Duration::MAX) >= Duration::from_secs(u64::MAX / 1000));
    }

    #[test]
    fn only_a_connection_on_which_nothing_waits_is_used_again() {
        let pair = || Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a pair is free");
        let (ours, theirs) = pair();
        let mut ours = transport(ours);
        assert!(ours.is_open());
        (&theirs).write_all(b"x").expect("there is room");
        assert!(!ours.is_open());
        let (ours, theirs) = pair();
        let mut ours = transport(ours);
        drop(theirs);
        assert!(!ours.is_open());
    }
}
