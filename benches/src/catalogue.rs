//! What can be measured: kinds of work, their rows, what a builtin contender is, and medians.

mod builtin;
mod pauses;
mod row;
mod spread;
mod work;

pub(crate) use builtin::{Builtin, MACHINE, Out, SEXTON};
pub(crate) use pauses::{Measure, Moment, Pauses, Shape as PauseShape, Size as PauseSize, Way};
pub(crate) use row::{BEST, Limit, ROWS, Row};
pub(crate) use spread::Spread;
pub(crate) use work::Work;
