//! All that is known of Docker's API: how its bytes are read, what it is asked, how it is reached.
//!
//! No thread is started here and nothing is retried: every call blocks its caller, ends within its own limit or when its [`socket::Closer`]
//! is closed, and says what came of it.

pub mod client;
mod connect;
pub mod document;
#[cfg(test)]
mod fake;
mod http;
mod json;
mod mask;
mod rows;
pub mod socket;
mod stream;
mod time;
pub mod wire;
