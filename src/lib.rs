//! docker-cache: mirrors Docker engines into Redis and runs handlers on their events.

pub mod config;
pub mod model;

pub mod core;

pub mod docker;

pub mod store;
pub mod handlers;
pub mod command;
pub mod notify;
pub mod logging;
pub mod threads;
