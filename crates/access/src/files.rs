//! Keys from local files, reloaded when the files change.
//!
//! Removing a file revokes its keys at once. A file that cannot be read or parsed keeps its previous keys, as it
//! may be in the middle of being written.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, SystemTime},
};

use relay_auth::{Key, KeyId, Keys};
use thiserror::Error;
use tracing::{info, warn};

use super::{AccessError, LocalPolicy, log_once::LogOnce};
use relay_config::without_mark;

/// Polling interval: sessions are closed within a second of the removal of their key.
const PERIOD: Duration = Duration::from_millis(400);
/// Coarsest timestamp granularity of any file system.
const TICK: Duration = Duration::from_secs(3);
/// Largest file that is read, bytes: room for a set with the maximum number of keys.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Failure to use a key file or folder; names the cause.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct KeyFileError(String);

/// Location of the keys.
#[derive(Clone, Debug)]
pub(super) enum KeySource {
    /// These files, each holding one key or a set.
    Files(Vec<PathBuf>),
    /// The `KID.jwk` files of this folder.
    Folder(PathBuf),
}

/// Reloads keys when their files change, until dropped.
pub(super) struct KeyWatcher {
    /// Dropping the sender ends the thread.
    _alive: mpsc::SyncSender<()>,
}

impl KeyWatcher {
    /// Reads the keys, and starts polling for changes.
    pub(super) fn start(source: KeySource, known: Arc<LocalPolicy>) -> Result<Self, AccessError> {
        let mut shelf = KeyFiles::new(source);
        shelf.open().map_err(|error| AccessError::Keys(error.to_string()))?;
        let keys = shelf.keys();
        if keys.is_empty() {
            warn!("{}: there is no key yet: every token is refused", shelf.place().display());
        }
        known.set_keys(keys);
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                if shelf.poll() {
                    let keys = shelf.keys();
                    info!(keys = keys.len(), "token verification keys changed");
                    known.set_keys(keys);
                }
            }
        })?;
        Ok(Self { _alive: alive })
    }
}

/// Lists the key files.
pub(super) fn all(source: KeySource) -> io::Result<Vec<PathBuf>> {
    KeyFiles::new(source).list()
}

/// First error that would keep a relay from starting with these keys.
pub(super) fn startup_error(source: KeySource) -> Option<String> {
    KeyFiles::new(source).open().err().map(|error| error.to_string())
}

/// Key files with their last usable contents.
struct KeyFiles {
    source: KeySource,
    files: BTreeMap<PathBuf, KeyFile>,
    /// Failure logged last.
    failure: LogOnce,
}

/// Keys of a file as of its last successful parse.
struct KeyFile {
    stamp: FileStamp,
    /// Whether it was read long enough after its last change for any later change to alter the stamp.
    is_stable: bool,
    /// Whether it holds a private key that others on this machine may read.
    is_exposed: bool,
    keys: Keys,
}

/// File metadata that changes with the content. Includes `ctime`, which no program can set.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
    device: u64,
}

impl FileStamp {
    /// Whether the file was unchanged for so long before `now` that a further change gets another timestamp.
    fn is_unchanged_since(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        now.checked_sub(changed).is_some_and(|since| since > TICK)
    }
}

impl KeyFiles {
    fn new(source: KeySource) -> Self {
        Self { source, files: BTreeMap::new(), failure: LogOnce::new("all key files can be read again") }
    }

    /// Reads all files at the start. A listed file that cannot be used is an error; one in a folder, a warning.
    fn open(&mut self) -> Result<(), KeyFileError> {
        let files = self.list().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KeyFileError(format!("there is no folder {}", self.place().display())),
            _ => KeyFileError(format!("{}: {error}", self.place().display())),
        })?;
        for file in files {
            match (self.read(&file), &self.source) {
                (Ok(held), _) => {
                    if held.is_exposed {
                        warn!(
                            "{}: private key readable by others, who can sign tokens with it; chmod 600",
                            file.display()
                        );
                    }
                    self.files.insert(file, held);
                }
                (Err(what), KeySource::Files(_)) => {
                    return Err(KeyFileError(format!("{}: {what}", file.display())));
                }
                // One bad file must not lock out everybody else.
                (Err(what), KeySource::Folder(_)) => {
                    warn!("{}: {what}: its tokens are refused", file.display())
                }
            }
        }
        Ok(())
    }

    /// Polls the files. Returns whether the keys changed.
    fn poll(&mut self) -> bool {
        let files = match self.list() {
            Ok(files) => files,
            // Removing the folder removes its keys.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let what = format!("{}: {error}; keeping the previous keys", self.place().display());
                self.failure.failed(&what);
                return false;
            }
        };
        let mut trouble = Vec::new();
        let before = self.files.len();
        self.files.retain(|file, _| files.contains(file));
        let mut changed = self.files.len() != before;
        for file in files {
            let stamp = match stamp(&file) {
                Ok((stamp, _)) => stamp,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    changed |= self.files.remove(&file).is_some();
                    trouble.push(format!("{} is gone: its tokens are refused", file.display()));
                    continue;
                }
                Err(error) => {
                    trouble.push(format!("{}: {error}; keeping the previous keys", file.display()));
                    continue;
                }
            };
            if self.files.get(&file).is_some_and(|held| held.is_stable && held.stamp == stamp) {
                continue;
            }
            match self.read(&file) {
                Ok(held) => {
                    changed |= self.files.get(&file).is_none_or(|before| before.keys != held.keys);
                    self.files.insert(file, held);
                }
                Err(what) if self.files.contains_key(&file) => {
                    trouble.push(format!("{}: {what}; keeping the previous keys", file.display()));
                }
                Err(what) => trouble.push(format!("{}: {what}: its tokens are refused", file.display())),
            }
        }
        let trouble = trouble.join("; ");
        self.failure.update(Some(trouble.as_str()).filter(|what| !what.is_empty()));
        changed
    }

    fn place(&self) -> &Path {
        match &self.source {
            KeySource::Folder(folder) => folder,
            KeySource::Files(files) => files.first().map_or(Path::new(""), PathBuf::as_path),
        }
    }

    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let folder = match &self.source {
            KeySource::Files(files) => return Ok(files.clone()),
            KeySource::Folder(folder) => folder,
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if name(&path).is_some() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn read(&self, file: &Path) -> Result<KeyFile, KeyFileError> {
        let is_folder = matches!(self.source, KeySource::Folder(_));
        read(file, name(file).filter(|_| is_folder))
    }

    /// Keys of all files; of two keys with the same `kid` the first is used.
    fn keys(&self) -> Keys {
        let mut keys = Keys::new();
        for (file, held) in &self.files {
            for error in keys.absorb(&held.keys) {
                warn!("{}: {error}: its tokens are refused", file.display());
            }
        }
        keys
    }
}

/// `kid` of a key file in a folder: the stem of `KID.jwk`, if a token can name it ([`KeyId::file_stem`]).
fn name(file: &Path) -> Option<KeyId> {
    let is_key = file.extension().is_some_and(|extension| extension == "jwk");
    let id: KeyId = file.file_stem().filter(|_| is_key)?.to_str()?.parse().ok()?;
    id.file_stem().is_some().then_some(id)
}

fn stamp(file: &Path) -> io::Result<(FileStamp, u32)> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(file)?;
    let stamp = FileStamp {
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        bytes: found.len(),
        inode: found.ino(),
        device: found.dev(),
    };
    Ok((stamp, found.mode()))
}

fn read(file: &Path, name: Option<KeyId>) -> Result<KeyFile, KeyFileError> {
    let text_of = |error: &dyn std::fmt::Display| KeyFileError(error.to_string());
    let (stamp, mode) = stamp(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyFileError(
            "there is no such file; `moq-relay token generate` makes keys (a relative path starts where the relay is \
             started)"
                .to_owned(),
        ),
        _ => text_of(&error),
    })?;
    let settled = stamp.is_unchanged_since(SystemTime::now());
    if stamp.bytes > FILE_BYTES {
        return Err(KeyFileError(format!("it is larger than {FILE_BYTES} bytes")));
    }
    let text = without_mark(fs::read_to_string(file).map_err(|error| text_of(&error))?);
    let (keys, faults) = match name {
        // In a folder the file name determines the `kid`, as deployed relays look keys up.
        Some(id) => {
            let mut keys = Keys::new();
            let key = Key::parse(text.trim()).map_err(|error| text_of(&error))?;
            keys.insert_as(id, key).map_err(|error| text_of(&error))?;
            (keys, Vec::new())
        }
        None => Keys::parse(text.trim()).map_err(|error| text_of(&error))?,
    };
    for (at, fault) in faults {
        warn!("{}: key {at} of the set: {fault}: its tokens are refused", file.display());
    }
    let is_exposed = mode & 0o004 != 0 && keys.iter().any(Key::is_private);
    Ok(KeyFile { stamp, is_stable: settled, is_exposed, keys })
}
