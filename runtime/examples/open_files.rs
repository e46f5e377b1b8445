//! A cache of open files that forgets by itself: weak values, and cleanups that close.
//!
//! Notice:
//! - The second request for `a.txt` opens nothing, because somebody still uses the first answer.
//! - The cache holds weak pointers only, so it keeps no file open. When the users let go and the heap
//!   is collected, the weak pointers are cleared and the cleanups close the files, on another thread.
//! - A cleanup cannot reach its object, which is gone. It owns what it needs: the only lasting
//!   `Arc<File>`. The object has a `std::sync::Weak` of it, which it upgrades to read.
//! - At the end as many descriptors are open as at the start (counted on Linux).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak as WeakFile};
use std::thread;
use std::time::Duration;

use sexton::{Gc, GcRefCell, Heap, Leaf, Mutation, Trace, Weak};

#[derive(Trace)]
struct OpenFile {
    file: Leaf<WeakFile<File>>,
}

impl OpenFile {
    fn read(&self) -> io::Result<String> {
        let file = self.file.upgrade().expect("the cleanup of a live object has not run");
        let mut text = String::new();
        let mut reader = &*file;
        reader.rewind()?;
        reader.read_to_string(&mut text)?;
        Ok(text)
    }
}

#[derive(Trace, Default)]
struct World<'gc> {
    /// Those who use files: what they hold stays open.
    users: GcRefCell<Vec<Gc<'gc, OpenFile>>>,
    /// All files that are open, as far as it knows.
    cache: GcRefCell<HashMap<PathBuf, Weak<'gc, OpenFile>>>,
}

impl<'gc> World<'gc> {
    fn open(&self, mc: &Mutation<'gc>, path: &Path) -> io::Result<Gc<'gc, OpenFile>> {
        if let Some(found) = self.cache.borrow().get(path).and_then(|weak| weak.upgrade(mc)) {
            println!("{} is open already", name(path));
            return Ok(found);
        }
        let file = Arc::new(File::open(path)?);
        println!("{} opened", name(path));
        let object = mc.alloc(OpenFile { file: Leaf::new(Arc::downgrade(&file)) });
        let name = name(path);
        mc.add_cleanup(object, move || {
            drop(file);
            println!("{name} closed by {}", thread::current().name().unwrap_or("a thread"));
        });
        self.cache.borrow_mut(mc).insert(path.to_owned(), mc.downgrade(object));
        Ok(object)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// How many descriptors the process has open, where the system lists them.
fn descriptors() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("sexton-example-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let result = visit(&directory);
    fs::remove_dir_all(&directory)?;
    result
}

fn visit(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let [a, b] = ["a.txt", "b.txt"].map(|name| directory.join(name));
    fs::write(&a, "alpha")?;
    fs::write(&b, "beta")?;
    let before = descriptors();

    let mut heap: Heap<World<'static>> = Heap::new(|_mc| World::default());
    heap.mutate(|mc, world| -> io::Result<()> {
        for path in [&a, &b, &a] {
            let file = world.open(mc, path)?;
            println!("{} says {:?}", name(path), file.read()?);
            world.users.borrow_mut(mc).push(file);
        }
        Ok(())
    })?;

    println!("the users of b.txt let go");
    heap.mutate(|mc, world| {
        world.users.borrow_mut(mc).remove(1);
    });
    heap.collect();
    heap.wait_for_cleanups(Duration::from_secs(5))?;

    println!("the users of a.txt let go");
    heap.mutate(|mc, world| world.users.borrow_mut(mc).clear());
    heap.collect();
    heap.wait_for_cleanups(Duration::from_secs(5))?;

    if let (Some(before), Some(after)) = (before, descriptors()) {
        println!("descriptors: {before} before, {after} after");
        assert_eq!(before, after);
    }
    Ok(())
}
