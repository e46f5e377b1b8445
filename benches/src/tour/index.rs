//! The file index: a node in the heap per directory, file and link.
//!
//! Nodes link to their parent and their children, so every directory is part of a cycle, and the
//! index goes as a whole once the root lets go of it.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use sexton::{Gc, GcCell, GcRefCell, Leaf, Mutation, Trace};
use walkdir::DirEntry;

use super::open_files::{Log, OpenFiles, OpenSlot};
use super::skipped::Skipped;
use super::system::is_out_of_descriptors;

/// The root of the tour's heap.
#[derive(Trace, Default)]
pub(crate) struct Index<'gc> {
    /// The directory that the tour is of, and those below it on the way to the latest entry.
    way: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
    /// Regular files, in the order found.
    files: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
    /// How many of `files` have been read.
    read: Cell<usize>,
    open_files: OpenFiles<'gc>,
}

/// A directory entry.
#[derive(Trace)]
pub(crate) struct Node<'gc> {
    name: Leaf<Box<OsStr>>,
    parent: Option<Gc<'gc, Node<'gc>>>,
    children: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
    open: OpenSlot<'gc>,
}

/// What the walk has found so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) directories: u64,
    pub(crate) files: u64,
    pub(crate) links: u64,
    pub(crate) bytes_read: u64,
}

/// How a session of reading ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// There may be more to read.
    More,
    /// Nothing is left to read.
    Finished,
    /// Many files are open: a collection should close those that were evicted.
    CollectFirst,
    /// The system refused another descriptor.
    OutOfDescriptors,
}

/// Files listed or read in one session: its cost vanishes, and progress shows.
pub(crate) const FILES_PER_SESSION: usize = 256;

impl<'gc> Index<'gc> {
    /// Adds an entry of the tree, in the order of a walk from its top downwards.
    pub(crate) fn add(
        &self,
        mc: &Mutation<'gc>,
        entry: &DirEntry,
        found: &mut Found,
        skipped: &mut Skipped,
    ) {
        let mut way = self.way.borrow_mut(mc);
        way.truncate(entry.depth());
        let kind = entry.file_type();
        // The top was found to be a directory, though it may be a link to one.
        let is_directory = kind.is_dir() || entry.depth() == 0;
        if let Some(why) = unusable(entry).filter(|_| !is_directory) {
            return skipped.note(entry.path(), why);
        }
        let parent = way.last().copied();
        let name = if parent.is_some() { entry.file_name() } else { entry.path().as_os_str() };
        let node = mc.alloc(Node {
            name: Leaf::new(name.into()),
            parent,
            children: GcRefCell::default(),
            open: GcCell::default(),
        });
        parent.inspect(|parent| parent.children.borrow_mut(mc).push(node));
        if is_directory {
            way.push(node);
            found.directories += 1;
        } else if kind.is_file() {
            self.files.borrow_mut(mc).push(node);
            found.files += 1;
        } else {
            found.links += 1;
        }
    }

    /// Reads the first bytes of files not read yet, until all are or it is time for another
    /// session. What is refused a descriptor though `none_are_open` is skipped.
    pub(crate) fn read_next(
        &self,
        mc: &Mutation<'gc>,
        log: &Arc<Log>,
        found: &mut Found,
        skipped: &mut Skipped,
        none_are_open: bool,
    ) -> Step {
        for nth in 0..FILES_PER_SESSION {
            if log.is_full() {
                return Step::CollectFirst;
            }
            let Some(&node) = self.files.borrow().get(self.read.get()) else {
                return Step::Finished;
            };
            let path = node.path();
            match node.read(mc, &path, &self.open_files, log) {
                Ok(bytes) => found.bytes_read += bytes,
                Err(error) if is_out_of_descriptors(&error) && (nth > 0 || !none_are_open) => {
                    return Step::OutOfDescriptors;
                }
                Err(error) => skipped.note(&path, error),
            }
            self.read.set(self.read.get() + 1);
        }
        Step::More
    }

    /// Goes back over the last `count` files, the newest first, as programs do: some are open
    /// still. What can no longer be read was readable a moment ago, and has been counted.
    pub(crate) fn look_again(&self, mc: &Mutation<'gc>, log: &Arc<Log>, count: usize) {
        for &node in self.files.borrow().iter().rev().take(count) {
            if log.is_full() {
                break;
            }
            let _ = node.read(mc, &node.path(), &self.open_files, log);
        }
    }

    /// Unlinks every open file.
    pub(crate) fn evict_all(&self, mc: &Mutation<'gc>) {
        self.open_files.evict_all(mc);
    }

    /// Lets go of the whole index.
    pub(crate) fn clear(&self, mc: &Mutation<'gc>) {
        self.way.borrow_mut(mc).clear();
        self.files.borrow_mut(mc).clear();
        self.read.set(0);
        self.open_files.evict_all(mc);
    }
}

impl<'gc> Node<'gc> {
    /// The way to it from the directory that the process is in: the names up to the top, joined.
    fn path(&self) -> PathBuf {
        let mut names: Vec<&OsStr> = vec![&self.name];
        let mut parent = self.parent;
        while let Some(node) = parent {
            names.push(&Gc::as_ref(node).name);
            parent = node.parent;
        }
        names.into_iter().rev().collect()
    }

    fn read(
        &self,
        mc: &Mutation<'gc>,
        path: &Path,
        open_files: &OpenFiles<'gc>,
        log: &Arc<Log>,
    ) -> io::Result<u64> {
        Ok(open_files.open(mc, path, &self.open, log)?.read_head()?.len() as u64)
    }
}

/// Why an entry is skipped, without opening it. A link that leads somewhere is a node of its own
/// and never followed, so links that lead back up cannot make the walk endless.
fn unusable(entry: &DirEntry) -> Option<String> {
    let kind = entry.file_type();
    if !kind.is_symlink() {
        let is_special = !kind.is_file() && !kind.is_dir();
        return is_special.then(|| format!("{}, which is never opened", special(kind)));
    }
    match fs::metadata(entry.path()) {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("a link to nothing".into()),
        Err(error) => Some(format!("a link that leads nowhere: {error}")),
    }
}

#[cfg(unix)]
fn special(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "a special file",
    }
}

#[cfg(not(unix))]
fn special(_: fs::FileType) -> &'static str {
    "a special file"
}
