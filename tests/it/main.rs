//! Black-box tests through the facade: one binary, a module per topic.

mod back_pressure;
mod cleanups;
mod collect;
mod diagnosis;
mod dying;
mod executor;
mod hunt;
mod ledger;
mod lifecycle;
mod limits;
mod local;
mod on_drop;
mod parallel;
mod program;
mod reentrancy;
mod roots;
mod send_sync;
mod sessions;
mod shared;
mod stalls;
mod stress;
mod tickets;
mod trace;
mod ui;
mod weak;
mod world;
