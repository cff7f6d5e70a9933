//! Tests of the whole, against real engines, real Redis servers and a fake engine that misbehaves; one module a concern.

#[path = "../fake-engine/engine.rs"]
mod engine;

mod fake_engine;
mod faults;
mod faults_engine;
mod faults_load;
mod faults_stream;
mod kit;
mod kit_itself;
mod recordings;
