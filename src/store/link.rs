//! One connection to Redis: commands out, replies in, all within the deadline of the request they belong to.
//!
//! Of the `redis` crate this takes the encoder and the parser. Its own connection limits each read and not the request, so that a slow server
//! could hold us for as many limits as there are replies, and it hides why a login was refused.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use redis::{Cmd, Parser, Value};
use socket2::{Domain, SockAddr, Socket, Type};

use super::commands::Pieces;
use crate::config::CachePlace;
use crate::model::Words;

/// An open connection. After any error it must be dropped: late bytes would be taken for the next answer.
pub(super) struct Link {
    wire: Box<dyn Wire>,
    parser: Parser,
}

/// What carries the bytes.
pub(super) trait Wire: Read + Write + Send {
    /// No single read from now on may take longer.
    fn limit_reads(&self, limit: Duration) -> io::Result<()>;

    /// No single write either.
    fn limit_writes(&self, limit: Duration) -> io::Result<()>;
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection failed, or the deadline passed (`TimedOut`).
    Io(io::Error),
    /// Something answered that does not speak Redis's protocol.
    Foreign,
}

impl Link {
    /// A connection over what carries bytes already.
    pub(super) fn over(wire: Box<dyn Wire>) -> Link {
        Link {
            wire,
            parser: Parser::new(),
        }
    }

    /// Sends encoded commands.
    pub(super) fn send(&mut self, commands: Pieces, deadline: Instant) -> Result<(), Trouble> {
        let mut wire = Timed::new(&mut *self.wire, deadline);
        let mut slices = commands.slices();
        let mut left = &mut slices[..];
        // Skips what is empty.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match wire.write_vectored(left) {
                Ok(0) => return Err(Trouble::Io(io::ErrorKind::WriteZero.into())),
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::Io(error)),
            }
        }
        Ok(())
    }

    /// Waits for the next reply.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Value, Trouble> {
        let mut stream = Timed::new(&mut *self.wire, deadline);
        let reply = self.parser.parse_value(&mut stream);
        reply.map_err(|error| match stream.failure {
            Some(failure) => Trouble::Io(failure),
            None if error.is_io_error() => Trouble::Io(io::ErrorKind::UnexpectedEof.into()),
            None => Trouble::Foreign,
        })
    }
}

/// Connects. The resolution of a name is not covered by the limit: the system offers none.
pub(super) fn connect(place: &CachePlace, limit: Duration) -> io::Result<Box<dyn Wire>> {
    Ok(match place {
        CachePlace::Unix(path) => Box::new(connect_unix(path)?),
        CachePlace::Tcp { host, port } => Box::new(connect_tcp(host, *port, limit)?),
    })
}

impl Wire for TcpStream {
    fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn limit_writes(&self, limit: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(limit))
    }
}

impl Wire for UnixStream {
    fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn limit_writes(&self, limit: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(limit))
    }
}

/// A unix socket whose listener is hung and whose queue is full blocks a plain connect for ever; without blocking it says so at once.
fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket
        .connect(&SockAddr::unix(path)?)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })?;
    socket.set_nonblocking(false)?;
    Ok(OwnedFd::from(socket).into())
}

/// Tries each address of the host, all within the limit.
fn connect_tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| {
        // The resolver's own texts come without a kind.
        io::Error::new(io::ErrorKind::HostUnreachable, error.to_string())
    })?;
    let deadline = Instant::now() + limit;
    let mut last: io::Error = io::ErrorKind::HostUnreachable.into();
    for address in addresses {
        match left(deadline).and_then(|left| TcpStream::connect_timeout(&address, left)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The connection, with each read and write limited to what is left of the request's time.
struct Timed<'a> {
    wire: &'a mut dyn Wire,
    deadline: Instant,
    /// Why the last read failed: the parser's own error hides it.
    failure: Option<io::Error>,
}

impl<'a> Timed<'a> {
    fn new(wire: &'a mut dyn Wire, deadline: Instant) -> Self {
        Timed {
            wire,
            deadline,
            failure: None,
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let limited = left(self.deadline).and_then(|left| self.wire.limit_reads(left));
            match limited.and_then(|()| self.wire.read(buffer)) {
                // The parser would take it for the end. Of a read with a limit on it the kernel does not go on by itself (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let error = timed_out(error);
                    let kind = error.kind();
                    self.failure = Some(error);
                    return Err(kind.into());
                }
                Ok(count) => return Ok(count),
            }
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buffer)])
    }

    fn write_vectored(&mut self, buffers: &[IoSlice]) -> io::Result<usize> {
        let limited = left(self.deadline).and_then(|left| self.wire.limit_writes(left));
        let count = limited.and_then(|()| self.wire.write_vectored(buffers));
        count.map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is left until the deadline; none is an error, as a timeout of zero would mean none at all.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// A read or write that ran into its limit says `WouldBlock`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// A reply as text; nothing where it is neither text nor a number.
pub(super) fn text(reply: &Value) -> Option<String> {
    match reply {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Double(number) => Some(number.to_string()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// A reply as a whole number.
pub(super) fn number(reply: &Value) -> Option<i64> {
    match reply {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// The replies within a reply.
pub(super) fn items(reply: &Value) -> &[Value] {
    reply.as_sequence().unwrap_or(&[])
}

/// A list of names. Those that are not UTF-8 are left out: no agent writes one, see [`foreign`].
pub(super) fn texts(reply: &Value) -> Vec<String> {
    items(reply).iter().filter_map(name).collect()
}

/// Appends the names of a list; with a `step` of two those of names and values that alternate, and the values. Names that are not UTF-8 are left
/// out likewise.
pub(super) fn append(words: &mut Words, listed: &Value, step: usize) {
    for chunk in items(listed).chunks_exact(step) {
        if let Ok(name) = str::from_utf8(bytes(&chunk[0])) {
            words.push(name);
            for value in &chunk[1..] {
                words.push(&String::from_utf8_lossy(bytes(value)));
            }
        }
    }
}

/// A list of names and values that alternate; names that are not UTF-8 are left out likewise.
pub(super) fn pairs(reply: &Value) -> Vec<(String, String)> {
    items(reply)
        .chunks_exact(2)
        .filter_map(|pair| Some((name(&pair[0])?, text(&pair[1])?)))
        .collect()
}

/// A reply as a name: unlike a text it is exact, so that it can be said back.
fn name(reply: &Value) -> Option<String> {
    match reply {
        Value::BulkString(bytes) => Some(std::str::from_utf8(bytes).ok()?.to_owned()),
        other => text(other),
    }
}

/// The bytes of a reply that is a name.
pub(super) fn bytes(reply: &Value) -> &[u8] {
    match reply {
        Value::BulkString(bytes) => bytes,
        _ => &[],
    }
}

/// The command that takes names out of a key that are not UTF-8, if there are any: nobody needs to be asked about those. They are every `step`th item
/// of the reply that listed what the key holds.
pub(super) fn foreign(verb: &str, key: &str, listed: &Value, step: usize) -> Option<Cmd> {
    let names = items(listed).iter().step_by(step).map(bytes);
    let names: Vec<&[u8]> = names
        .filter(|name| std::str::from_utf8(name).is_err())
        .collect();
    if names.is_empty() {
        return None;
    }
    let mut command = redis::cmd(verb);
    command.arg(key).arg(names);
    Some(command)
}
