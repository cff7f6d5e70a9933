//! The store against a real Redis.

mod batches;
mod connection;
mod dead;
mod janitor;
mod leases;

use super::*;

fn fenced(applied: Result<Applied, StoreError>) -> Fenced {
    match applied {
        Ok(Applied::Fenced(fenced)) => fenced,
        other => panic!("the transaction was not refused: {other:?}"),
    }
}

fn overdue(beaten: Result<Beaten, StoreError>) -> Vec<String> {
    match beaten {
        Ok(Beaten::Done { overdue }) => overdue,
        other => panic!("the heartbeat failed: {other:?}"),
    }
}

const A: EngineIndex = EngineIndex(0);
const B: EngineIndex = EngineIndex(1);
