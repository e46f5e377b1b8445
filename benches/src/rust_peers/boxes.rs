//! `Box`.

use sexton_bench::{GARBAGE_PER_CYCLE, box_garbage_at_once, box_garbage_later, per};

use crate::measure::{Builtin, Out};
use crate::run::Work;

pub(super) static BOX: Builtin = Builtin { name: "box", rows: &["W1"], measure };

fn measure(work: Work, size: usize, out: &mut Out) -> Result<(), String> {
    if work == Work::W1 {
        out.put("W1", per(box_garbage_later(size, GARBAGE_PER_CYCLE), size as u64));
        out.put("W1@once", per(box_garbage_at_once(size), size as u64));
    }
    Ok(())
}
