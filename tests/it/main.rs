//! Black-box tests through the facade: one binary, a module per topic.

mod cleanups;
mod collect;
mod limits;
mod on_drop;
mod program;
mod roots;
mod send_sync;
mod sessions;
mod trace;
mod ui;
mod weak;
mod world;
