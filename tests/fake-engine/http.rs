//! Just enough HTTP/1.1 to be an engine: sockets of both kinds, requests, answers, chunks.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unix socket's path.
    Unix(PathBuf),
    /// `127.0.0.1:port`; port 0 lets the system choose.
    Tcp(String),
}

impl Place {
    /// Reads `unix:///path` and `tcp://address:port`.
    pub fn parse(url: &str) -> Option<Place> {
        match (url.strip_prefix("unix://"), url.strip_prefix("tcp://")) {
            (Some(path), _) if path.starts_with('/') => Some(Place::Unix(path.into())),
            (_, Some(address)) if address.contains(':') => Some(Place::Tcp(address.into())),
            _ => None,
        }
    }

    /// The URL that a Docker client takes.
    pub fn url(&self) -> String {
        match self {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(address) => format!("tcp://{address}"),
        }
    }

    /// Connects to it.
    pub fn connect(&self) -> io::Result<Conn> {
        Ok(match self {
            Place::Unix(path) => Conn::Unix(UnixStream::connect(path)?),
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Conn::Tcp(stream)
            }
        })
    }
}

/// A socket that accepts.
pub enum Listener {
    /// On a path.
    Unix(UnixListener),
    /// On a port.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens; answers as well where exactly. A socket's file that was left there is replaced, unless somebody still answers on it.
    pub fn bind(place: &Place) -> io::Result<(Listener, Place)> {
        match place {
            Place::Unix(path) => {
                match UnixStream::connect(path) {
                    Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        std::fs::remove_file(path)?;
                    }
                    Err(_) => {}
                }
                Ok((Listener::Unix(UnixListener::bind(path)?), place.clone()))
            }
            Place::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                let bound = Place::Tcp(listener.local_addr()?.to_string());
                Ok((Listener::Tcp(listener), bound))
            }
        }
    }

    /// Waits for the next client.
    pub fn accept(&self) -> io::Result<Conn> {
        Ok(match self {
            Listener::Unix(listener) => Conn::Unix(listener.accept()?.0),
            Listener::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Conn::Tcp(stream)
            }
        })
    }
}

/// A connected socket.
pub enum Conn {
    /// Through a path.
    Unix(UnixStream),
    /// Through a port.
    Tcp(TcpStream),
}

impl Conn {
    /// Another handle of the same socket.
    pub fn try_clone(&self) -> io::Result<Conn> {
        Ok(match self {
            Conn::Unix(stream) => Conn::Unix(stream.try_clone()?),
            Conn::Tcp(stream) => Conn::Tcp(stream.try_clone()?),
        })
    }

    /// Ends both directions; whoever reads or writes it is freed. One that is over already is no error.
    pub fn shutdown(&self) {
        let _ = match self {
            Conn::Unix(stream) => stream.shutdown(Shutdown::Both),
            Conn::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Says that nothing more will be written.
    pub fn finish_writing(&self) {
        let _ = match self {
            Conn::Unix(stream) => stream.shutdown(Shutdown::Write),
            Conn::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl Read for Conn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Conn::Unix(stream) => stream.read(buffer),
            Conn::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Conn::Unix(stream) => stream.write(bytes),
            Conn::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a client asked.
pub struct Request {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Without the version: `/containers/json`.
    pub path: String,
    /// The version in the path, `(1, 41)`.
    pub version: Option<(u32, u32)>,
    /// The query, decoded.
    pub query: BTreeMap<String, String>,
    /// The client wants the connection to stay.
    pub keep_alive: bool,
}

impl Request {
    /// Reads the next request; `None` when the client has hung up.
    pub fn read(reader: &mut BufReader<Conn>) -> io::Result<Option<Request>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, line));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (version, path) = split_version(path);
        let mut request = Request {
            method: method.to_owned(),
            path: decode(path),
            version,
            query: query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (decode(key), decode(value)))
                .collect(),
            keep_alive: true,
        };
        let mut body = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Ok(None);
            }
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                body = value.trim().parse().unwrap_or(0);
            }
            if name.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close")
            {
                request.keep_alive = false;
            }
        }
        io::copy(&mut reader.by_ref().take(body), &mut io::sink())?;
        Ok(Some(request))
    }
}

/// An answer that is not a stream.
pub struct Answer {
    /// `200`.
    pub status: u16,
    /// `application/json`, unless it is a text.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 with JSON; Docker ends each with a newline.
    pub fn json(text: impl Into<String>) -> Answer {
        let mut body = text.into().into_bytes();
        body.push(b'\n');
        Answer {
            status: 200,
            content_type: "application/json",
            body,
        }
    }

    /// An error in Docker's form.
    pub fn error(status: u16, message: &str) -> Answer {
        Answer {
            status,
            ..Answer::json(serde_json::json!({ "message": message }).to_string())
        }
    }

    /// A plain text.
    pub fn text(status: u16, body: &str) -> Answer {
        Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }
}

/// The reason that belongs to a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// `Sun, 22 Nov 2026 12:49:11 GMT`, from ns since 1970.
pub fn http_date(ns: i64) -> String {
    let (year, month, day, seconds) = civil(ns);
    let weekday = (ns.div_euclid(86_400_000_000_000) + 4).rem_euclid(7) as usize;
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][weekday],
        [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
        ][month - 1],
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// `2026-11-22T12:49:11.918845301Z`, from ns since 1970. Go leaves trailing zeros of the fraction out.
pub fn rfc3339(ns: i64) -> String {
    let (year, month, day, seconds) = civil(ns);
    let fraction = format!(".{:09}", ns.rem_euclid(1_000_000_000));
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        fraction.trim_end_matches('0').trim_end_matches('.')
    )
}

/// Year, month (1-12), day and second of the day, in the proleptic Gregorian calendar.
fn civil(ns: i64) -> (i64, usize, i64, i64) {
    let seconds = ns.div_euclid(1_000_000_000);
    // Count from 1 March of the year 0: leap days then stand at the end of a year.
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as usize, day, seconds.rem_euclid(86_400))
}

/// `/v1.41/info` is version 1.41 and `/info`.
fn split_version(path: &str) -> (Option<(u32, u32)>, &str) {
    let parsed = path.strip_prefix("/v").and_then(|rest| {
        let (version, path) = rest.split_at(rest.find('/')?);
        let (major, minor) = version.split_once('.')?;
        Some(((major.parse().ok()?, minor.parse().ok()?), path))
    });
    match parsed {
        Some((version, path)) => (Some(version), path),
        None => (None, path),
    }
}

/// Undoes percent encoding.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (escaped, bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 3;
            }
            (None, b'+') => {
                out.push(b' ');
                at += 1;
            }
            (None, byte) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
