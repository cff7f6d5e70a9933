//! docker-cache mirrors Docker engines into Redis and runs handlers on their events.
//!
//! # The way of the data
//!
//! ```text
//!                  /events (one blocking stream)
//!  docker engine ───────────────► reader ────┐
//!        ▲                                   │ Input            ┌─► writer ──► Redis (one transaction a round trip)
//!        │ list, inspect                     ▼                  │      └ Stored ─► inbox
//!        └────────────────────── syncer ──► inbox ──► core ─────┤
//!                                   ▲                 (driver)  │
//!                                   └──────── ask (bounded) ◄───┤
//!                                                               └─► handlers ──► sh -c (own process group) ── Ended ─► inbox
//! ```
//!
//! # Threads
//!
//! | thread | body | blocks on | ends when |
//! |---|---|---|---|
//! | `main` | [`agent`] | the end of a thread that should not end | core has ended |
//! | `signals` | [`agent`] | signals | the process ends |
//! | `reload`, with a file | [`reload`] | an ask; the file system; the core's word that it is done | the process ends |
//! | `core` | [`driver`] | the inbox, until the next deadline | the core says that all is done, or panics |
//! | `writer` | [`writer`] | a request; Redis, 5 s at most | its requests' sender is dropped |
//! | `read:<engine>` | [`reader`] | an order; the engine's stream | its orders' sender is dropped and its socket shut: at the end, or when the engine leaves the file |
//! | `sync:<engine>` | [`syncer`] | an ask; the engine, 20 s at most | its asks' sender is dropped and its socket shut, likewise |
//! | `slow:<engine>`, up to 12 | [`syncer`] | an inspect that hangs | none is left |
//! | `next:<engine>`, at the end of a stream | [`reader`] | the engine, which it asks who it is | the next stream is open |
//! | `handler:<n>` | [`handlers`] | a job; its command | idle for 10 s |
//!
//! # Queues
//!
//! | queue | from, to | bound | when full |
//! |---|---|---|---|
//! | inbox | all, core | 16,384 events and 64 answers an engine; one reply of the store; one end a command; one reload | the engine's events are lost, which counts as a gap; nothing else can fill it |
//! | orders | core, reader | one | cannot be: one is given when the last has ended |
//! | reloads | signals, reload | one | one that waits will see what is there now |
//! | asks | core, syncer | one list and two asks | cannot be: core counts them |
//! | requests | core, writer | one | cannot be: core counts it |
//! | jobs | core, handlers | `--workers`, and the first command of each entry | cannot be: core counts them |
//! | dirty set | in core | one entry a container, 32 MB of documents | containers are inspected again later |
//! | happenings | in core | 10,000 an engine | the oldest is dropped, one `gap` entry says so |
//! | waiting jobs | in core | 100,000 or 160 MB an entry | the newest is dropped, counted and said |
//!
//! No send between threads blocks. The modules stand here in the order in which they read best. Three packages of their own take unsafe code, which is
//! forbidden here: `allocator/` is the memory of the static binary, `memcpy/` what copies it, `spawn/` starts the commands' shells.

pub mod args;

pub mod glob;

pub mod config;

pub mod model;

pub mod core;

pub mod docker;

pub mod store;

pub mod queue;

pub mod inbox;

pub mod reader;

pub mod syncer;

pub mod writer;

pub mod handlers;

pub mod command;

pub mod engines;

pub mod driver;

pub mod threads;

pub mod logging;

pub mod notify;

pub mod reload;

pub mod agent;

pub mod explain;

pub mod fire;

#[cfg(test)]
mod corpus;
