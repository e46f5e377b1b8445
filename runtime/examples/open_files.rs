//! A cache of open files that forgets by itself: weak values, and cleanups that close. Used by one
//! thread, and by two that share it.
//!
//! Notice:
//! - The second request for `a.txt` opens nothing, because the first answer is still in use.
//! - The cache holds weak pointers only, so it keeps no file open. When the users let go and the
//!   heap is collected, the weak pointers are cleared and the cleanups close the files, on another
//!   thread.
//! - A cleanup cannot reach its object, which is gone. It owns what it needs: the only lasting
//!   `Arc` of the file. The object has a `std::sync::Weak` of it, which it upgrades to read.
//! - The cache is the same program in both modes. A `GcMutex` costs a heap of one thread's own a
//!   little, where a `GcRefCell` would do.
//! - At the end as many descriptors are open as at the start (counted on Linux).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak as WeakFile};
use std::thread;
use std::time::Duration;

use sexton::{Gc, GcMutex, Heap, Leaf, Mode, Mutation, Payload, Shared, Trace, Weak};

#[derive(Trace)]
struct OpenFile {
    /// Locked to read: a file has one position.
    file: Leaf<WeakFile<Mutex<File>>>,
}

impl OpenFile {
    fn read(&self) -> io::Result<String> {
        let file = self.file.upgrade().expect("the cleanup of a live object has not run");
        let mut file = file.lock().expect("it is not poisoned");
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(text)
    }
}

#[derive(Trace, Default)]
struct World<'gc> {
    /// Those who use files: what they hold stays open.
    users: GcMutex<Vec<Gc<'gc, OpenFile>>>,
    /// All files that are open, as far as it knows.
    cache: GcMutex<HashMap<PathBuf, Weak<'gc, OpenFile>>>,
}

impl<'gc> World<'gc> {
    fn open<M: Mode>(&self, mc: &Mutation<'gc, M>, path: &Path) -> io::Result<Gc<'gc, OpenFile>>
    where
        OpenFile: Payload<M>,
    {
        // Held until the file is in the cache, so that no other thread opens it as well.
        let mut cache = self.cache.lock(mc);
        if let Some(found) = cache.get(path).and_then(|weak| weak.upgrade(mc)) {
            println!("{} is open already", name(path));
            return Ok(found);
        }
        let file = Arc::new(Mutex::new(File::open(path)?));
        println!("{} opened", name(path));
        let object = mc.alloc(OpenFile { file: Leaf::new(Arc::downgrade(&file)) });
        let name = name(path);
        mc.add_cleanup(object, move || {
            drop(file);
            println!("{name} closed by {}", thread::current().name().unwrap_or("a thread"));
        });
        cache.insert(path.to_owned(), mc.downgrade(object));
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
    println!("-- one thread");
    on_one_thread(&a, &b)?;
    println!("-- two threads");
    on_two_threads(&a, &b)?;
    if let (Some(before), Some(after)) = (before, descriptors()) {
        println!("descriptors: {before} before, {after} after");
        assert_eq!(before, after);
    }
    Ok(())
}

/// Opens a file, reads it, and goes on using it.
fn use_file<'gc, M: Mode>(mc: &Mutation<'gc, M>, world: &World<'gc>, path: &Path) -> io::Result<()>
where
    OpenFile: Payload<M>,
{
    let file = world.open(mc, path)?;
    println!("{} says {:?}", name(path), file.read()?);
    world.users.lock(mc).push(file);
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(5);

fn on_one_thread(a: &Path, b: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut heap: Heap<World<'static>> = Heap::new(|_mc| World::default());
    heap.mutate(|mc, world| [a, b, a].iter().try_for_each(|path| use_file(mc, world, path)))?;

    println!("the users of b.txt let go");
    heap.mutate(|mc, world| _ = world.users.lock(mc).remove(1));
    heap.collect();
    heap.wait_for_cleanups(PATIENCE)?;

    println!("the users of a.txt let go");
    heap.mutate(|mc, world| world.users.lock(mc).clear());
    heap.collect();
    heap.wait_for_cleanups(PATIENCE)?;
    Ok(())
}

fn on_two_threads(a: &Path, b: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let heap: Heap<World<'static>, Shared> = Heap::new(|_mc| World::default());
    let read = |paths: [&Path; 2]| {
        let mut mutator = heap.attach();
        paths.iter().try_for_each(|path| mutator.mutate(|mc, world| use_file(mc, world, path)))
    };
    thread::scope(|scope| {
        let threads = [[a, b], [b, a]].map(|paths| scope.spawn(move || read(paths)));
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;

    println!("all users let go");
    let mut mutator = heap.attach();
    mutator.mutate(|mc, world| world.users.lock(mc).clear());
    // However the threads took turns, each file was opened once.
    assert_eq!(mutator.collect().queued_cleanups, 2);
    heap.wait_for_cleanups(PATIENCE)?;
    Ok(())
}
