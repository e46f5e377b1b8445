//! Descriptions of cleanups: a label, the place of registration, the type of the closure. For
//! people.
//!
//! Invariant: a record without a description costs nothing and says nothing. Descriptions lie apart
//! from the records, in memory that the first one allocates. Each names the generation it is for.
//! So the next cleanup of a slot is not described by the words of the last one.
//!
//! Equal descriptions are kept once per process and never dropped: there are as many as there are
//! places in the program's text that register cleanups.

#![forbid(unsafe_code)]

use sexton_sync::PerProcess;
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Describes a cleanup, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Description {
    /// The label it was registered with.
    pub label: Option<&'static str>,
    /// Where it was registered. Known in diagnostic mode.
    pub site: Option<&'static Location<'static>>,
    /// The closure's type name, which holds the path of the function that it is written in.
    pub closure: Option<&'static str>,
}

impl Description {
    /// Describes a closure of type `F`.
    pub fn of<F>(label: Option<&'static str>, site: Option<&'static Location<'static>>) -> Self {
        Description { label, site, closure: Some(std::any::type_name::<F>()) }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.label, self.closure) {
            (Some(label), _) => write!(f, "\"{label}\"")?,
            (None, Some(closure)) => f.write_str(closure)?,
            (None, None) => f.write_str("(a cleanup without a label)")?,
        }
        match self.site {
            Some(site) => write!(f, ", registered at {site}"),
            None => Ok(()),
        }
    }
}

/// The number of a description. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DescriptionId(pub(crate) u32);

struct Known {
    ids: HashMap<Description, u32>,
    /// The number of the first of `descriptions`. In the child of a `fork` the numbers up to there
    /// are its ancestors'.
    first: u32,
    descriptions: Vec<Description>,
}

/// The largest number given so far, by this process or an ancestor.
static LAST: AtomicU32 = AtomicU32::new(0);

impl Known {
    fn new() -> Mutex<Self> {
        let first = LAST.load(Ordering::Relaxed) + 1;
        Mutex::new(Known { ids: HashMap::new(), first, descriptions: Vec::new() })
    }
}

/// Gives the descriptions of this process. Not a checker's lock: no protocol depends on it, and it
/// stands in a static.
fn known() -> MutexGuard<'static, Known> {
    static KNOWN: PerProcess<Mutex<Known>> = PerProcess::new();
    KNOWN.get(Known::new).lock().unwrap_or_else(PoisonError::into_inner)
}

impl DescriptionId {
    /// Gives the number of this description, a new one if need be. Takes a lock.
    pub(crate) fn of(description: Description) -> Self {
        let Known { ids, first, descriptions } = &mut *known();
        let id = ids.entry(description).or_insert_with(|| {
            let id = *first + descriptions.len() as u32;
            descriptions.push(description);
            // Relaxed: written with the lock held, and read by a child, whose memory is a copy.
            LAST.store(id, Ordering::Relaxed);
            id
        });
        DescriptionId(*id)
    }

    /// Gives the description of this number; an empty one if an ancestor of this process gave it.
    pub(crate) fn description(self) -> Description {
        let known = known();
        let index = self.0.checked_sub(known.first);
        index.and_then(|at| known.descriptions.get(at as usize).copied()).unwrap_or_default()
    }
}
