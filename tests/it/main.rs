//! Tests of the whole, against real engines, real Redis servers and a fake engine that misbehaves; one module a concern.

#[path = "../fake-engine/engine.rs"]
mod engine;

mod cli;
mod fake_engine;
mod handlers;
mod kit;
mod kit_itself;
mod process;
mod tidy;
