//! Faults, what is promised of each, and the test that proves it with real processes. Each ends with the oracle: Redis equals the engines.
//!
//! | # | fault | promised | test |
//! |---|---|---|---|
