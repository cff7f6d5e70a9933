//! Faults, what is promised of each, and the test that proves it with real processes. Each ends with the oracle: Redis equals the engines.
//!
//! | # | fault | promised | test |
//! |---|---|---|---|
//! | 1 | the stream is cut after any byte of an event | no half line is taken, nothing is lost, nothing handled twice, no gap counted | `faults_stream::fault_1_…` |
//! | 2 | the stream goes silent without a FIN | noticed 20 s after the end that was asked for at the latest, resumed, counted (`reconnects`) | `faults_stream::fault_2_…` |
//! | 3 | more than 256 events during an outage | one gap, counted (`gaps`) and said once; a resync heals; handlers get the differences, `EVENT_INFERRED=1` | `faults_stream::fault_3_…` (a fake and a private engine) |
//! | 4 | fewer | resumed with `since`, the overlap dropped, no gap, every handler runs once | `faults_stream::fault_4_…` |
//! | 5 | the engine dropped events while we were connected (also: our reader was frozen) | found at the next renewal, one gap counted, healed, handlers run once | `faults_stream::fault_5_…` |
//! | 6 | dockerd stopped (a container dies meanwhile, live-restore), killed, frozen; it accepts and does not answer | bounded waits, no thread or file leaked, other engines under 100 ms late | `faults_engine::fault_6_…` |
//! | 7 | Redis is down while 20,000 events flow | the engine never waits (`docker rename` as fast as without an agent), handlers run at once | `faults_load::fault_7_…` |
//! | 8 | a storm: 10,000 events in seconds, health checks on 300 containers | the engine drops none for us, right within 1 s of its end, memory bounded, other engines not late | `faults_load::fault_8_…` |
//! | 9 | `--rm` churn, inspect answers 404, one inspect hangs | only that container is late; resyncs go on | `faults_engine::fault_9_…` |
//! | 10 | a list older than an event; names swapped by three renames | nothing is deleted or revived; no name ever points at another container | `faults_engine::fault_10_…` |
//! | 11 | the engine's clock steps back an hour (and on again), ours is an hour off | nothing lost, nothing from before our time told, no endless replay | `faults_stream::fault_11_…` |
//! | 12 | every API version from 1.40 on, too old, too new, every schema, json-seq, lines of 10 MB, not UTF-8, unknown types, labels named `exitCode`, garbage | decoded or refused with a clear line, never a crash | `recordings::fault_12_…`; the corpus in `fixtures/fuzz` and the properties beside the decoders |
//! | 13 | another engine at the same address; one engine under two host ids; a copied engine id | noticed, never mixed, said in log and `STATUS=`; the copy is another engine | `faults_engine::fault_13_…` |
