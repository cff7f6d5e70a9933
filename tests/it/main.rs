//! Tests of the whole, against real engines, real Redis servers and a fake engine that misbehaves; one module a concern.

#[path = "../fake-engine/engine.rs"]
mod engine;

mod cache;
mod fake_engine;
mod filter;
mod healing;
mod hosts;
mod kit;
mod kit_itself;
mod lifetimes;
mod session;
mod streams;
