//! A service manager's ear: what an agent tells it by `NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::TempDir;
use super::seconds;

/// Listens until it is dropped.
pub struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    /// Listens on a socket of its own.
    pub fn new() -> Manager {
        let folder = TempDir::new();
        let socket = UnixDatagram::bind(folder.join("n"))
            .unwrap_or_else(|error| panic!("failed to listen: {error}"));
        Manager { socket, folder }
    }

    /// Where it listens, for `NOTIFY_SOCKET`.
    pub fn path(&self) -> String {
        self.folder.join("n").to_string_lossy().into_owned()
    }

    /// The next message; `None` when none came in time.
    pub fn next(&self, limit: Duration) -> Option<String> {
        let limit = limit.max(Duration::from_millis(1));
        self.socket
            .set_read_timeout(Some(limit))
            .unwrap_or_else(|error| panic!("failed to limit a read: {error}"));
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message that begins so and holds this text, and answers all up to it.
    #[track_caller]
    pub fn hears(&self, beginning: &str, wanted: &str) -> Vec<String> {
        let end = Instant::now() + seconds(30);
        let mut heard = Vec::new();
        while let Some(message) = self.next(end.saturating_duration_since(Instant::now())) {
            let found = message.starts_with(beginning) && message.contains(wanted);
            heard.push(message);
            if found {
                return heard;
            }
        }
        panic!("no `{beginning}…{wanted}` came, but {heard:?}")
    }

    /// How often the watchdog is fed within so long, from now on.
    pub fn fed_within(&self, time: Duration) -> usize {
        while self.next(Duration::ZERO).is_some() {}
        let end = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < end {
            let message = self.next(end.saturating_duration_since(Instant::now()));
            count += usize::from(message.as_deref() == Some("WATCHDOG=1"));
        }
        count
    }
}
