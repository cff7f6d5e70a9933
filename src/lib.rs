//! docker-cache: mirrors Docker engines into Redis and runs handlers on their events.

pub mod config;
pub mod core;
pub mod model;
pub mod store;
