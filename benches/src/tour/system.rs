//! What the tour asks of the operating system: descriptors, and how to open a file that may not be
//! one any more.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::path::Path;

/// Opens a regular file for reading, and nothing else.
///
/// What was a regular file when its directory was listed may have become a pipe since, and opening
/// a pipe waits for a writer, opening a device may do anything. So it is opened without waiting and
/// without following a link, and looked at again once it is open.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("no longer a regular file"))
    }
}

/// Reads the first bytes of a file.
pub(crate) fn read_head(mut file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.rewind()?;
    file.take(23).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether an open failed because the process, or the system, has too many files open.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Whether a directory is still open, as a process's current one is, but no longer in the tree:
/// then it can be listed, and is empty.
pub(crate) fn is_removed(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::nlink(metadata) == 0
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

/// How many descriptors the process has open; `None` where the system does not list them.
pub(crate) fn open_descriptors() -> Option<usize> {
    // The listing itself takes one.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// How many descriptors the process may have open.
pub(crate) fn descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        getrlimit(Resource::Nofile).current
    }
    #[cfg(not(unix))]
    {
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_without_waiting() {
        let top = tempfile::TempDir::new().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| top.path().join(name));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());

        assert_eq!(read_head(&open_regular(&file).unwrap()).unwrap(), b"text");
        assert!(open_regular(&link).is_err());
        // There is no writer: an ordinary open would wait for ever.
        assert!(open_regular(&pipe).is_err());
        assert!(open_regular(top.path()).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_counts_as_one_descriptor() {
        // Other tests of this process open files, too; but not as many.
        let before = open_descriptors().unwrap();
        let files: Vec<File> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
        let after = open_descriptors().unwrap();
        assert!((450..550).contains(&(after - before)), "{before} before, {after} after");
        drop(files);
    }
}
