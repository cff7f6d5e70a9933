//! Faults, what is promised of each, and the test that proves it with real processes. Each ends with the oracle: Redis equals the engines.
//!
//! Tests whose verdict is a time have names that begin with `timed_`; `make test` runs them after all others, one at a time. Where what a busy machine
//! does could be taken for a fault, they compare with a control: the same thing without the fault, at the same moments (`kit/pulse.rs`).
//!
//!
//! "Within 100 ms of the control" below means of at least fifty changes, one each 40 ms while the fault lasts: the time within which 95 of 100 show (in
//! Redis, and by their handlers) is at most 100 ms longer than the control's, and the slowest at most 400 ms later than the control's slowest.
//!
//! | # | fault | promised | test |
//! |---|---|---|---|
//! | 1 | the stream is cut after any byte of an event | no half line is taken, nothing is lost, nothing handled twice, no gap counted | `faults_stream::fault_1_…` |
//! | 2 | the stream goes silent without a FIN | noticed 2 s after the end that was asked for, resumed, counted (`reconnects`) | `faults_stream::timed_fault_2_…` |
//! | 3 | more than 256 events during an outage | one gap, counted (`gaps`) and said once; a resync heals; handlers get the differences, `EVENT_INFERRED=1` | `faults_stream::fault_3_…` (a fake and a private engine) |
//! | 4 | fewer | resumed with `since`, the overlap dropped, no gap, every handler runs once | `faults_stream::fault_4_…` |
//! | 5 | the engine dropped events while we were connected (also: our reader was frozen); the stream is renewed during a storm | found at the next renewal, which comes before the engine has forgotten the event; in a storm, by the next resync, as far as inspects show it; one gap counted, healed, handlers run once; a renewal itself misses nothing, though the engine takes seconds to say who it is | `faults_stream::fault_5_…`, `faults_stream::timed_fault_5_…` |
//! | 6 | dockerd stopped (a container dies meanwhile, live-restore), killed, frozen for 60 s; it accepts and does not answer | said to be down (within 30 s, though nothing is due to be asked), bounded waits, no thread or file leaked, Redis and handlers of other engines within 100 ms of the control | `faults_engine::timed_fault_6_…` |
//! | 7 | Redis is down while 20,000 events flow | the engine never waits (`docker rename` takes as long as on an engine without an agent), handlers run within 100 ms of the control | `faults_load::timed_fault_7_…` |
//! | 8 | a storm: 10,000 events in seconds, health checks on 300 containers | the engine drops none for us (unless for a bare reader beside us, too), is held up no more than by that reader, right within 1 s of its end, memory bounded, other engines within 100 ms of the control | `faults_load::timed_fault_8_…` |
//! | 9 | `--rm` churn, inspect answers 404, one inspect hangs, for more than a minute; 20 of 200 hang; so does the engine's word on a filter | only that container is late (the engine's others once, by half a second for the first that hangs and 50 ms for each further one); it is asked seldom, resyncs go on | `faults_inspects::timed_fault_9_…`, `faults_inspects::fault_9_…` |
//! | 10 | a list older than an event; names swapped by three renames | nothing is deleted or revived; no name ever points at another container | `faults_engine::fault_10_…` |
//! | 11 | the engine's clock steps back an hour (and on again), also while no agent listens; ours is an hour off | nothing lost, nothing from before our time told, no endless replay, no false gap; of what came while no agent listened a gap, and the differences | `faults_stream::fault_11_…` |
//! | 12 | every API version from 1.40 on, too old, too new, every schema, json-seq, lines of 10 MB, not UTF-8, unknown types, labels named `exitCode`, garbage | decoded or refused with a clear line, never a crash | `recordings::fault_12_…`; the corpus in `fixtures/fuzz` and the properties beside the decoders |
//! | 13 | another engine at the same address; one engine under two host ids; a copied engine id | noticed, never mixed, said in log and `STATUS=`; the copy is another engine | `faults_engine::fault_13_…` |
//! | 14 | Redis is killed and back empty, or with an old dump; flushed while idle; keys and members deleted or added by hand | right within 1 s of the reconnect, 5 s of a flush, one resync of a host's own, ten of shared sets; no handler runs for it | `faults_store::timed_fault_14_…` |
//! | 15 | Redis freezes within a report of 1,000 containers; a write breaks off in the middle | the writer is back after one deadline (5 s); the connection is not used again, every value is its own container's | `faults_store::timed_fault_15_…`, `faults_store::fault_15_…` |
//! | 16 | `LOADING`, `READONLY`, `MASTERDOWN`, `OOM`, `MISCONF`, `NOREPLICAS`, `BUSY`, `NOAUTH`, `WRONGPASS`, `NOPERM` (also for `MULTI`, a command, keys, the channel), `maxclients` | one line with the remedy, growing pauses, no panic; an ACL without scripts and dangerous commands is enough | `faults_refusals::fault_16_…` |
//! | 17 | the answer is lost after the transaction ran | the state is the same, the stream has each entry once | `faults_store::fault_17_…` |
//! | 18 | failover to a replica that missed the last writes; an old state without a broken connection | healed after the promotion; noticed by the heartbeat | `faults_store::fault_18_…` |
//! | 19 | the agent is killed with -9 a hundred times under churn (`DOCKER_CACHE_TEST_KILLS` for another number) | converges, nothing stays behind; what happened while it was away is handled once, jobs that waited run, a command that was cut off is reported | `faults_kills::fault_19_…` |
//! | 20 | it is frozen for longer than lease and TTL, with a transaction on the wire | it overwrites nothing newer | `faults_kills::fault_20_…` |
//! | 21 | two agents with one id | the second says so in log and `STATUS=` and writes nothing; takes over within 2 s of a request to stop, within 12 s of a kill | `faults_kills::timed_fault_21_…` |
//! | 22 | 64 descriptors; a log on a full disk, or that nobody reads; no memory for a batch (address space, control group); a panic in a reader, a syncer, core, writer; core or writer hangs | commands that find no descriptor say so, all else goes on; an end has a clear last line and a code, systemd starts it anew, and the successor heals; other engines notice nothing of one engine's panic; the watchdog is fed while Redis hangs, not while core or writer do | `faults_agent::fault_22_…`, `faults_threads::fault_22_…`, `faults_threads::timed_fault_22_…` |
//! | 23 | a host dies among ten; hosts come back while they are buried | lost within 15 s, expired once by one; who comes back is not harmed | `faults_hosts::timed_fault_23_…`, `faults_hosts::fault_23_…` |
