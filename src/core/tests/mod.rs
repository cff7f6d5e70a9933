//! The core among models of what it works with: `cases` prove one sentence each, `simulation` tries what nobody thought of.

mod cases;
mod docker;
mod simulation;
mod store;
mod words;
mod world;
