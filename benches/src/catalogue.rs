//! What can be measured: kinds of work, their rows, and what a builtin contender is.

mod builtin;
mod row;
mod work;

pub(crate) use builtin::{Builtin, MACHINE, Out, SEXTON};
pub(crate) use row::{Limit, ROWS, Row};
pub(crate) use work::Work;
