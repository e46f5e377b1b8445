//! A cleanup cannot capture the session, not even in a wrapper that claims to be `Send`.

use sexton::{Heap, Leaf, Mutation};

struct Claimed<'a, 'gc>(&'a Mutation<'gc>);

unsafe impl Send for Claimed<'_, '_> {}

impl<'gc> Claimed<'_, 'gc> {
    fn session(&self) -> &Mutation<'gc> {
        self.0
    }
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let claimed = Claimed(mc);
        mc.add_cleanup(gc, move || println!("{:?}", claimed.session()));
    });
}
