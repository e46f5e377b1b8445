//! The file index: a node in the heap per directory, file and link.
//!
//! Nodes link to their parent and their children, so every directory is part of a cycle, and the
//! index goes as a whole once the root lets go of it. The lists of what is still to be done are in
//! the heap too: between two sessions the walk keeps nothing but the heap, and recursion is
//! nowhere.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sexton::{Gc, GcCell, GcRefCell, Leaf, Mutation, Trace};

use super::open_files::{Log, OpenFiles, OpenSlot};
use super::skipped::Skipped;
use super::system::is_out_of_descriptors;

/// The root of the tour's heap.
#[derive(Trace, Default)]
pub(crate) struct Index<'gc> {
    top: GcCell<Option<Gc<'gc, Node<'gc>>>>,
    /// Directories found and not listed yet, the next one last.
    unlisted: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
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
    head: Cell<Head>,
    open: OpenSlot<'gc>,
}

/// The first bytes of a file.
#[derive(Clone, Copy, Default)]
struct Head {
    bytes: [u8; Head::CAPACITY],
    len: u8,
}

impl Head {
    const CAPACITY: usize = 23;
}

/// What the walk has found so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) directories: u64,
    pub(crate) files: u64,
    pub(crate) links: u64,
    pub(crate) bytes_read: u64,
}

/// How a step of the walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// There may be more to do.
    More,
    /// Nothing is left to do.
    Finished,
    /// Many files are open: a collection should close those that were evicted.
    CollectFirst,
    /// The system refused another descriptor, and nothing was done.
    OutOfDescriptors,
}

/// Files read in one session: enough that its cost vanishes, and few enough that progress shows.
const FILES_PER_SESSION: usize = 256;

impl<'gc> Index<'gc> {
    /// Starts the index with the directory that the tour is of.
    pub(crate) fn plant(&self, mc: &Mutation<'gc>, path: &Path) {
        let top = Node::alloc(mc, path.as_os_str().to_owned(), None);
        self.top.set(mc, Some(top));
        self.unlisted.borrow_mut(mc).push(top);
    }

    /// Lists the next directory, or says that all are.
    pub(crate) fn list_next(
        &self,
        mc: &Mutation<'gc>,
        found: &mut Found,
        skipped: &mut Skipped,
    ) -> Step {
        let Some(directory) = self.unlisted.borrow_mut(mc).pop() else {
            return Step::Finished;
        };
        let path = directory.path();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if is_out_of_descriptors(&error) => {
                self.unlisted.borrow_mut(mc).push(directory);
                return Step::OutOfDescriptors;
            }
            Err(error) => {
                skipped.note(&path, error);
                return Step::More;
            }
        };
        found.directories += 1;
        let mut children = directory.children.borrow_mut(mc);
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    skipped.note(&path, error);
                    break;
                }
            };
            let kind = match Kind::of(&entry) {
                Ok(kind) => kind,
                Err(why) => {
                    skipped.note(&entry.path(), why);
                    continue;
                }
            };
            let node = Node::alloc(mc, entry.file_name(), Some(directory));
            children.push(node);
            match kind {
                Kind::Directory => self.unlisted.borrow_mut(mc).push(node),
                Kind::File => {
                    self.files.borrow_mut(mc).push(node);
                    found.files += 1;
                }
                Kind::Link => found.links += 1,
            }
        }
        // It stays for as long as the index does, so it may as well be exact.
        children.shrink_to_fit();
        Step::More
    }

    /// Reads the first bytes of files not read yet, until all are or it is time for another
    /// session.
    pub(crate) fn read_next(
        &self,
        mc: &Mutation<'gc>,
        log: &Arc<Log>,
        found: &mut Found,
        skipped: &mut Skipped,
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
                // Some were read: whether the next one cannot be is for the next session to find
                // out.
                Err(error) if is_out_of_descriptors(&error) && nth > 0 => return Step::More,
                Err(error) if is_out_of_descriptors(&error) => return Step::OutOfDescriptors,
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

    /// Gives up on the step that could not be made, so that the next one is another.
    pub(crate) fn skip_step(&self, mc: &Mutation<'gc>, skipped: &mut Skipped) {
        let why = "too many open files, even with the cache empty";
        let unread = self.files.borrow().get(self.read.get()).copied();
        if let Some(file) = unread {
            self.read.set(self.read.get() + 1);
            skipped.note(&file.path(), why);
        } else if let Some(directory) = self.unlisted.borrow_mut(mc).pop() {
            skipped.note(&directory.path(), why);
        }
    }

    /// Unlinks every open file.
    pub(crate) fn evict_all(&self, mc: &Mutation<'gc>) {
        self.open_files.evict_all(mc);
    }

    /// Lets go of the whole index.
    pub(crate) fn clear(&self, mc: &Mutation<'gc>) {
        self.top.set(mc, None);
        self.unlisted.borrow_mut(mc).clear();
        self.files.borrow_mut(mc).clear();
        self.read.set(0);
        self.open_files.evict_all(mc);
    }
}

impl<'gc> Node<'gc> {
    fn alloc(
        mc: &Mutation<'gc>,
        name: OsString,
        parent: Option<Gc<'gc, Node<'gc>>>,
    ) -> Gc<'gc, Self> {
        mc.alloc(Node {
            name: Leaf::new(name.into_boxed_os_str()),
            parent,
            children: GcRefCell::default(),
            head: Cell::default(),
            open: GcCell::default(),
        })
    }

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
        let file = open_files.open(mc, path, &self.open, log)?;
        let mut head = Head::default();
        head.len = file.read_head(&mut head.bytes)? as u8;
        self.head.set(head);
        Ok(u64::from(head.len))
    }
}

/// What the walk does with a directory entry.
enum Kind {
    Directory,
    File,
    /// A symbolic link that leads somewhere. It is a node of its own and never followed, so links
    /// that lead back up cannot make the walk endless.
    Link,
}

impl Kind {
    /// Looks at the entry without opening it; or says why it is skipped.
    fn of(entry: &DirEntry) -> Result<Kind, String> {
        let kind = entry.file_type().map_err(|error| error.to_string())?;
        if kind.is_dir() {
            Ok(Kind::Directory)
        } else if kind.is_file() {
            Ok(Kind::File)
        } else if kind.is_symlink() {
            match fs::metadata(entry.path()) {
                Ok(_) => Ok(Kind::Link),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err("a link to nothing".to_owned())
                }
                Err(error) => Err(format!("a link that leads nowhere: {error}")),
            }
        } else {
            Err(format!("{}, which is never opened", special(kind)))
        }
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
