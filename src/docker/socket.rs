//! What threads wait on, so that a stop can shut it: all that one client opens, and the client that a thread has just now.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::connect::Shared;

/// Ends what another thread waits for.
#[derive(Clone, Default, Debug)]
pub struct Closer(Arc<Watched>);

#[derive(Default, Debug)]
struct Watched {
    closed: AtomicBool,
    sockets: Mutex<Vec<Weak<Shared>>>,
}

impl Closer {
    /// Shuts all sockets. Whoever is blocked on one returns at once, and every later call fails, with [`DockerErrorKind::Closed`].
    ///
    /// [`DockerErrorKind::Closed`]: super::client::DockerErrorKind::Closed
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        let sockets = std::mem::take(&mut *self.sockets());
        sockets
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|one| one.shut());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// One more socket to shut. An error: it is too late for any.
    pub(super) fn watch(&self, socket: Weak<Shared>) -> io::Result<()> {
        let mut sockets = self.sockets();
        sockets.retain(|one| one.strong_count() > 0);
        sockets.push(socket);
        match self.is_closed() {
            true => Err(io::ErrorKind::NotConnected.into()),
            false => Ok(()),
        }
    }

    fn sockets(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Shared>>> {
        let sockets = self.0.sockets.lock();
        sockets.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shared between a thread that connects again and again, and whoever stops it.
#[derive(Clone, Default, Debug)]
pub struct Socket(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    shut: bool,
    closer: Option<Closer>,
}

impl Socket {
    /// This is what is to be closed from now on. `false`: it was closed at once, for there will be no more connections.
    pub fn hold(&self, closer: Closer) -> bool {
        let mut state = self.lock();
        if state.shut {
            closer.close();
            return false;
        }
        state.closer = Some(closer);
        true
    }

    /// Closes what is held now, and whatever comes later.
    pub fn shut(&self) {
        let mut state = self.lock();
        state.shut = true;
        if let Some(closer) = state.closer.take() {
            closer.close();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
