//! Tests of the whole, against real engines, real Redis servers and a fake engine that misbehaves; one module a concern.

#[path = "../fake-engine/engine.rs"]
mod engine;

mod cache;
mod cli;
mod fake_engine;
mod faults;
mod faults_agent;
mod faults_hosts;
mod faults_kills;
mod faults_refusals;
mod faults_setting;
mod faults_store;
mod faults_stream;
mod handlers;
mod kit;
mod kit_itself;
mod process;
mod readme;
mod session;
mod tidy;
