//! Tests of the whole, against real engines, real Redis servers and a fake engine that misbehaves; one module a concern.
// What a test measured is printed for whoever asks with `--nocapture`.
#![allow(clippy::print_stdout)]

#[path = "../fake-engine/engine.rs"]
mod engine;

mod cache;
mod cli;
mod explain;
mod fake_engine;
mod faults;
mod faults_agent;
mod faults_engine;
mod faults_hosts;
mod faults_inspects;
mod faults_kills;
mod faults_load;
mod faults_refusals;
mod faults_store;
mod faults_stream;
mod faults_threads;
mod filter;
mod fire;
mod handlers;
mod handlers_crowds;
mod handlers_engine;
mod handlers_filters;
mod handlers_input;
mod handlers_once;
mod handlers_queues;
mod handlers_runs;
mod healing;
mod hosts;
mod kit;
mod kit_itself;
mod lifetimes;
mod process;
mod readme;
mod recordings;
mod reload;
mod service;
mod session;
mod streams;
mod tidy;
