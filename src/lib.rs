//! docker-cache: mirrors Docker engines into Redis and runs handlers on their events.

pub mod config;
pub mod model;

pub mod core;

pub mod docker;

pub mod store;
