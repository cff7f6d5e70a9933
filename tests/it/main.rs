//! Tests of the whole, against real engines, real Redis servers and a fake engine that misbehaves; one module a concern.

#[path = "../fake-engine/engine.rs"]
mod engine;

mod fake_engine;
mod faults;
mod faults_refusals;
mod faults_setting;
mod faults_store;
mod kit;
mod kit_itself;
