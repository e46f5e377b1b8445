//! Black-box tests through the facade: one binary, a module per topic.

mod back_pressure;
mod cleanups;
mod collect;
mod collections;
mod contexts;
mod derive;
mod diagnosis;
mod dying;
mod erased;
mod executor;
#[cfg(unix)]
#[expect(unsafe_code, reason = "forks")]
mod forks;
mod hunt;
mod identity;
mod ledger;
mod lifecycle;
mod limits;
mod local;
mod locks;
mod map_root;
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "asks the system for a large page")]
mod memory;
mod on_drop;
mod owned_mutators;
mod parallel;
mod phases;
mod program;
mod reentrancy;
mod roots;
mod send_sync;
mod sessions;
mod shared;
mod shared_ops;
mod shared_stress;
mod slices;
mod stalls;
mod stress;
mod strings;
#[cfg(target_os = "linux")]
mod threads;
mod tickets;
mod trace;
mod ui;
mod weak;
mod world;
