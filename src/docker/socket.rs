//! The socket that a thread holds just now, so that a stop can shut it.

use std::sync::{Arc, Mutex, PoisonError};

use super::client::Closer;

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
