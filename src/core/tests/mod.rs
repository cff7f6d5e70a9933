//! The core among models of what it works with: `cases` prove one sentence each, `room` and `spread` hold many engines, `simulation` tries what nobody
//! thought of.

mod cases;
mod docker;
mod room;
mod simulation;
mod spread;
mod store;
mod words;
mod world;
