//! Keys out of files, kept up with them.
//!
//! A file that is gone takes its keys along at once: removing it is how a key is revoked. One that cannot be
//! read or understood keeps those it had, as somebody may be writing it.

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
use tracing::{info, warn};

use super::{AccessError, Known, complaint::Complaint};
use crate::config::without_mark;

/// How often files are looked at: a session ends within a second of the removal of its key.
const PERIOD: Duration = Duration::from_millis(400);
/// Times of files are no finer than that anywhere.
const TICK: Duration = Duration::from_secs(3);
/// Largest file that is read: a set of as many keys as there may be.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where keys are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In these files: a key each, or a set.
    Files(Vec<PathBuf>),
    /// In `KID.jwk` of this folder.
    Folder(PathBuf),
}

/// Keeps the keys up with their files, for as long as it lives.
pub(super) struct Watcher {
    /// Dropped with it: the thread ends then.
    _alive: mpsc::SyncSender<()>,
}

impl Watcher {
    /// Reads the keys, and starts looking for changes.
    pub(super) fn start(source: Source, known: Arc<Known>) -> Result<Self, AccessError> {
        let mut shelf = Shelf::new(source);
        shelf.open().map_err(AccessError::Keys)?;
        let keys = shelf.keys();
        if keys.is_empty() {
            warn!("{}: there is no key yet: every token is refused", shelf.place().display());
        }
        known.set_keys(keys);
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                if shelf.look() {
                    let keys = shelf.keys();
                    info!(keys = keys.len(), "the keys that tokens are checked with have changed");
                    known.set_keys(keys);
                }
            }
        })?;
        Ok(Self { _alive: alive })
    }
}

/// The files of keys there are.
pub(super) fn all(source: Source) -> io::Result<Vec<PathBuf>> {
    Shelf::new(source).list()
}

/// What would keep a relay from starting with these keys.
pub(super) fn trouble(source: Source) -> Option<String> {
    Shelf::new(source).open().err()
}

/// The files, and what they held.
struct Shelf {
    source: Source,
    files: BTreeMap<PathBuf, Held>,
    /// What is wrong with them.
    trouble: Complaint,
}

/// What a file held when it was last understood.
struct Held {
    stamp: Stamp,
    /// Whether it was read long enough after its last change for the stamp to tell.
    settled: bool,
    /// Whether it holds a secret that others on this machine may read.
    is_exposed: bool,
    keys: Keys,
}

/// Tells one content of a file from another: what the system notes of it, the time of its last change
/// included, which no program can set.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
    device: u64,
}

impl Stamp {
    /// Whether the file was left alone for so long before `now` that another change would have another time.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        now.checked_sub(changed).is_some_and(|since| since > TICK)
    }
}

impl Shelf {
    fn new(source: Source) -> Self {
        Self { source, files: BTreeMap::new(), trouble: Complaint::default() }
    }

    /// The first look: what cannot be used then is refused.
    fn open(&mut self) -> Result<(), String> {
        let files = self.list().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no folder {}", self.place().display()),
            _ => format!("{}: {error}", self.place().display()),
        })?;
        for file in files {
            match (self.read(&file), &self.source) {
                (Ok(held), _) => {
                    if held.is_exposed {
                        warn!("{}: others may read it, and make tokens with it; chmod 600", file.display());
                    }
                    self.files.insert(file, held);
                }
                (Err(what), Source::Files(_)) => return Err(format!("{}: {what}", file.display())),
                // One bad file must not lock out everybody else.
                (Err(what), Source::Folder(_)) => warn!("{}: {what}: its tokens are refused", file.display()),
            }
        }
        Ok(())
    }

    /// Looks again. Whether other keys hold now.
    fn look(&mut self) -> bool {
        let files = match self.list() {
            Ok(files) => files,
            // A folder that is gone is one whose keys are.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let what = format!("{}: {error}: the keys of before hold", self.place().display());
                self.trouble.now(Some(&what));
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
                    trouble.push(format!("{}: {error}: the keys of before hold", file.display()));
                    continue;
                }
            };
            if self.files.get(&file).is_some_and(|held| held.settled && held.stamp == stamp) {
                continue;
            }
            match self.read(&file) {
                Ok(held) => {
                    changed |= self.files.get(&file).is_none_or(|before| before.keys != held.keys);
                    self.files.insert(file, held);
                }
                Err(what) if self.files.contains_key(&file) => {
                    trouble.push(format!("{}: {what}: the keys of before hold", file.display()));
                }
                Err(what) => trouble.push(format!("{}: {what}: its tokens are refused", file.display())),
            }
        }
        let trouble = trouble.join("; ");
        self.trouble.now(Some(trouble.as_str()).filter(|what| !what.is_empty()));
        changed
    }

    fn place(&self) -> &Path {
        match &self.source {
            Source::Folder(folder) => folder,
            Source::Files(files) => files.first().map_or(Path::new(""), PathBuf::as_path),
        }
    }

    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let folder = match &self.source {
            Source::Files(files) => return Ok(files.clone()),
            Source::Folder(folder) => folder,
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

    fn read(&self, file: &Path) -> Result<Held, String> {
        let is_folder = matches!(self.source, Source::Folder(_));
        read(file, name(file).filter(|_| is_folder))
    }

    /// All that hold. Of two with one name the first counts.
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

/// What a key in a folder is called: `NAME.jwk`, where NAME is one that a token can look up by ([`KeyId::file_stem`]).
fn name(file: &Path) -> Option<KeyId> {
    let is_key = file.extension().is_some_and(|extension| extension == "jwk");
    let id: KeyId = file.file_stem().filter(|_| is_key)?.to_str()?.parse().ok()?;
    id.file_stem().is_some().then_some(id)
}

fn stamp(file: &Path) -> io::Result<(Stamp, u32)> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(file)?;
    let stamp = Stamp {
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        bytes: found.len(),
        inode: found.ino(),
        device: found.dev(),
    };
    Ok((stamp, found.mode()))
}

fn read(file: &Path, name: Option<KeyId>) -> Result<Held, String> {
    let (stamp, mode) = stamp(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; `moq-relay token generate` makes keys (a relative path \
                                    starts where the relay is started)"
                .to_owned()
        }
        _ => error.to_string(),
    })?;
    let settled = stamp.is_settled(SystemTime::now());
    if stamp.bytes > FILE_BYTES {
        return Err(format!("it is larger than {FILE_BYTES} bytes"));
    }
    let text = without_mark(fs::read_to_string(file).map_err(|error| error.to_string())?);
    let (keys, faults) = match name {
        // In a folder the file says what a key is called, as deployed relays look it up.
        Some(id) => {
            let mut keys = Keys::new();
            let key = Key::parse(text.trim()).map_err(|error| error.to_string())?;
            keys.insert_as(id, key).map_err(|error| error.to_string())?;
            (keys, Vec::new())
        }
        None => Keys::parse(text.trim()).map_err(|error| error.to_string())?,
    };
    for (at, fault) in faults {
        warn!("{}: key {at} of the set: {fault}: its tokens are refused", file.display());
    }
    let is_exposed = mode & 0o004 != 0 && keys.iter().any(Key::is_private);
    Ok(Held { stamp, settled, is_exposed, keys })
}
