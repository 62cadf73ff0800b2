//! Kernel files that are read repeatedly through one descriptor.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Largest part of a file that is read: `memory.stat` has some 2 KiB, the others less.
const BYTES: usize = 16 * 1024;

/// A file below `/proc` or `/sys`, held open between reads.
///
/// An open file stays readable when the process has no free descriptor left, and when a later `open` of the same
/// path is refused. The last text is kept while the file cannot be read.
#[derive(Debug)]
pub(super) struct ProcFile {
    path: PathBuf,
    file: Option<File>,
    last: Last,
}

/// Result of the last read that succeeded.
#[derive(Debug)]
enum Last {
    /// No read has succeeded.
    Unread,
    /// The file does not exist.
    Absent,
    /// Text of the file.
    Text(String),
}

impl ProcFile {
    /// Creates a file that has not been read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, last: Last::Unread }
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// The file exists and cannot be read; [`Self::text`] keeps the last text, if any.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        // A control group that was removed and created again is another file.
        if let Some(text) = self.file.as_ref().and_then(|file| read(file).ok()) {
            self.last = Last::Text(text);
            return Ok(());
        }
        self.file = None;
        // `metadata` first: it detects a missing file without a free descriptor.
        let found = fs::metadata(&self.path).and_then(|_| File::open(&self.path));
        match found.and_then(|file| Ok((read(&file)?, file))) {
            Ok((text, file)) => {
                (self.file, self.last) = (Some(file), Last::Text(text));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.last = Last::Absent;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Text of the last successful read; `None` if the file does not exist or was never readable.
    pub(super) fn text(&self) -> Option<&str> {
        if let Last::Text(text) = &self.last { Some(text) } else { None }
    }

    /// Closes the descriptor.
    #[cfg(test)]
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Whether a descriptor is held.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Whether no read has succeeded yet.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self.last, Last::Unread)
    }
}

fn read(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; BYTES];
    let mut len = 0;
    loop {
        let rest = bytes.get_mut(len..).unwrap_or_default();
        match file.read_at(rest, len as u64) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn open_file_is_read_anew_after_its_path_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meminfo");
        fs::write(&path, "one").unwrap();
        let mut kept = ProcFile::new(path.clone());
        kept.refresh().unwrap();
        assert_eq!(kept.text(), Some("one"));
        // In place, as the kernel changes its files.
        fs::write(&path, "two").unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        kept.refresh().unwrap();
        assert_eq!(kept.text(), Some("two"));
    }

    #[test]
    fn absent_file_appears_and_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = ProcFile::new(folder.path().join("memory.max"));
        kept.refresh().unwrap();
        assert!(kept.text().is_none() && !kept.is_unread());
        fs::write(kept.path(), "1").unwrap();
        kept.refresh().unwrap();
        assert_eq!(kept.text(), Some("1"));
    }

    #[test]
    fn unreadable_file_keeps_the_last_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.current");
        let mut kept = ProcFile::new(path.clone());
        // A folder can be opened and not be read.
        fs::create_dir(&path).unwrap();
        assert!(kept.refresh().is_err() && kept.is_unread());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "7").unwrap();
        kept.refresh().unwrap();
        kept.close();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(kept.refresh().is_err());
        assert_eq!(kept.text(), Some("7"));
    }
}
