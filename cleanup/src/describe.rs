//! Descriptions of cleanups: a label, the place of registration, the type of the closure. For people.
//!
//! Invariant: a record without a description costs nothing and says nothing. Descriptions lie apart from the
//! records, in memory that the first one allocates, and each names the generation it is for, so that a slot's
//! next cleanup is not described by its last one's words.
//!
//! Equal descriptions are kept once per process and never dropped: there are as many as there are places in the
//! program's text that register cleanups.

#![forbid(unsafe_code)]

use crate::sync::{OnceLock, PlainMutex};
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;

/// What is known of a cleanup.
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
    /// A description of a closure of type `F`.
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

#[derive(Default)]
struct Known {
    ids: HashMap<Description, u32>,
    descriptions: Vec<Description>,
}

fn known() -> &'static PlainMutex<Known> {
    static KNOWN: OnceLock<PlainMutex<Known>> = OnceLock::new();
    KNOWN.get_or_init(PlainMutex::default)
}

impl DescriptionId {
    /// The number of this description, a new one if need be. Takes a lock.
    pub(crate) fn of(description: Description) -> Self {
        let Known { ids, descriptions } = &mut *known().lock();
        let id = ids.entry(description).or_insert_with(|| {
            descriptions.push(description);
            descriptions.len() as u32
        });
        DescriptionId(*id)
    }

    /// The description of this number.
    pub(crate) fn description(self) -> Description {
        let index = (self.0 as usize).checked_sub(1);
        index.and_then(|at| known().lock().descriptions.get(at).copied()).unwrap_or_default()
    }
}
