//! What can be measured: kinds of work, their rows, and what a builtin contender is.

mod builtin;
mod row;
mod work;

pub(crate) use builtin::{Builtin, MACHINE, Out, SEXTON};
#[cfg(test)]
pub(crate) use row::ROWS;
pub(crate) use row::{BEST, Limit, Row};
pub(crate) use work::Work;
