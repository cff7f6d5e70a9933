//! Tells the service manager how things are: `sd_notify`, one datagram a message. Without `$NOTIFY_SOCKET` all of it does nothing.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A manager whose queue is full may hold us up for so long, once a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// A failure was logged; the next ones are not.
    failed: AtomicBool,
}

impl Notifier {
    /// Looks at `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. An address that cannot be used is logged, and then there is no manager.
    pub fn of_process() -> Self {
        let text = |name| env::var(name).ok();
        let watchdog = watchdog(
            text("WATCHDOG_USEC").as_deref(),
            text("WATCHDOG_PID").as_deref(),
        );
        match text("NOTIFY_SOCKET").filter(|address| !address.is_empty()) {
            None => Notifier::default(),
            Some(address) => Notifier::new(&address, watchdog).unwrap_or_else(|error| {
                log::warn!("failed to use `NOTIFY_SOCKET` `{address}`: {error}");
                Notifier::default()
            }),
        }
    }

    fn new(address: &str, watchdog: Option<Duration>) -> io::Result<Self> {
        let peer = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Notifier {
            manager: Some((socket, peer)),
            watchdog,
            failed: AtomicBool::new(false),
        })
    }

    /// The start is complete.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is read again; [`Notifier::ready`] says when that is over.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// One line for `systemctl status`. Control characters become blanks: a line break would begin another message.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace(char::is_control, " ")));
    }

    /// The stop has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// All is well; to be said every [`Notifier::watchdog_interval`].
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often the manager wants to hear [`Notifier::watchdog`]: half the time after which it would end us. `None`: not at all.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    fn send(&self, message: &str) {
        let Some((socket, peer)) = &self.manager else {
            return;
        };
        match socket.send_to_addr(message.as_bytes(), peer) {
            Ok(_) => self.failed.store(false, Ordering::Relaxed),
            Err(error) if !self.failed.swap(true, Ordering::Relaxed) => {
                log::warn!("failed to notify service manager of `{message}`: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Half of `WATCHDOG_USEC`, unless it is meant for another process or is no number above 0.
fn watchdog(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let usec: u64 = usec?.parse().ok()?;
    (is_ours && usec > 0).then(|| Duration::from_micros(usec) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(address: &SocketAddr) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(address).expect("the address is free");
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a limit above 0");
        socket
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn tells_all(address: &str, manager: &UnixDatagram) {
        let notifier = Notifier::new(address, None).expect("an address");
        notifier.ready();
        notifier.status("4 containers\nMAINPID=1");
        notifier.watchdog();
        notifier.stopping();
        for message in [
            "READY=1",
            "STATUS=4 containers MAINPID=1",
            "WATCHDOG=1",
            "STOPPING=1",
        ] {
            assert_eq!(received(manager), message);
        }
    }

    #[test]
    fn a_socket_with_a_path_hears_one_datagram_a_message() {
        let path = env::temp_dir().join(format!("notify-{}", std::process::id()));
        let address = SocketAddr::from_pathname(&path).expect("a short path");
        let manager = receiver(&address);
        tells_all(&path.display().to_string(), &manager);

        // The manager goes and comes back.
        let notifier = Notifier::new(&path.display().to_string(), None).expect("an address");
        std::fs::remove_file(&path).expect("it was made above");
        notifier.ready();
        assert!(notifier.failed.load(Ordering::Relaxed));
        let manager = receiver(&address);
        notifier.ready();
        assert!(!notifier.failed.load(Ordering::Relaxed));
        assert_eq!(received(&manager), "READY=1");
        let _ = std::fs::remove_file(&path);
    }

    #[test]
    fn an_abstract_socket_hears_as_well() {
        let name = format!("docker-cache-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        tells_all(&format!("@{name}"), &receiver(&address));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notifier = Notifier::default();
        notifier.ready();
        notifier.status("x");
        assert_eq!(notifier.watchdog_interval(), None);
        assert!(Notifier::new(&"x".repeat(200), None).is_err());
    }

    #[test]
    fn the_watchdog_wants_half_its_time() {
        let own = std::process::id().to_string();
        let half = Some(Duration::from_secs(15));
        assert_eq!(watchdog(Some("30000000"), None), half);
        assert_eq!(watchdog(Some("30000000"), Some(&own)), half);
        assert_eq!(watchdog(Some("30000000"), Some("1")), None);
        assert_eq!(watchdog(Some("30000000"), Some("x")), None);
        assert_eq!(watchdog(Some("0"), None), None);
        assert_eq!(watchdog(Some("x"), None), None);
        assert_eq!(watchdog(None, None), None);
    }
}
