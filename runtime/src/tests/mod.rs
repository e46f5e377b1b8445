//! The model of the threads that help to collect. Under `--cfg loom` it runs, and nothing else.

#[cfg(loom)]
mod loom_gc_threads;
