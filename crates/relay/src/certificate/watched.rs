//! Files that are read again and again, so that a change is noticed however it was made.
//!
//! They are read, not watched for events: certificates change by rename (most tools), by a symlink that is
//! turned (certbot), by a folder behind a symlink that is turned (Kubernetes), in place (cp), or on another
//! machine (NFS), and no event tells of all of these. They are a few KiB, and a read of them costs microseconds.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;

use super::{Error, pem};

/// What is wrong for longer than that is said again.
const AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// Files that belong together.
pub(super) struct Watched {
    files: Vec<PathBuf>,
    /// Of what is in use.
    used: Digest,
    /// Of what was there at the last look.
    seen: Digest,
}

/// SHA-256 of what all of the files hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

/// What each file holds.
pub(super) type Contents = Vec<Result<Vec<u8>, Error>>;

/// What a look found.
pub(super) enum Look {
    /// What is in use.
    Used,
    /// Something that came since the last look: somebody may be writing still.
    Unsettled,
    /// Something else than what is in use, as it was at the last look.
    Other(Contents, Digest),
}

impl Watched {
    /// Reads `files` for the first time. They are in use once [`Watched::used`] says so.
    pub(super) fn new(files: Vec<PathBuf>) -> (Self, Contents) {
        let (contents, digest) = read(&files);
        (Self { files, used: digest, seen: digest }, contents)
    }

    /// Reads them again; `hurry`: what is there is whole, somebody says.
    pub(super) fn look(&mut self, hurry: bool) -> Look {
        let (contents, digest) = read(&self.files);
        let settled = hurry || digest == self.seen;
        self.seen = digest;
        match settled {
            _ if digest == self.used => Look::Used,
            false => Look::Unsettled,
            true => Look::Other(contents, digest),
        }
    }

    /// What had this digest is in use now.
    pub(super) fn used(&mut self, digest: Digest) {
        self.used = digest;
    }

    /// The files, for people.
    pub(super) fn shown(&self) -> String {
        self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

fn read(files: &[PathBuf]) -> (Contents, Digest) {
    let contents: Contents = files.iter().map(|file| pem::read(file)).collect();
    let mut context = digest::Context::new(&digest::SHA256);
    for content in &contents {
        let (kind, bytes) = match content {
            Ok(text) => (0, text.clone()),
            Err(error) => (1, error.to_string().into_bytes()),
        };
        context.update(&[kind]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(&bytes);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    (contents, Digest(out))
}

/// What was said of something that is wrong: once, and again every day while it lasts.
#[derive(Default)]
pub(super) struct Said {
    last: Option<(String, SystemTime)>,
}

impl Said {
    /// Whether `text` is to be said at `now`, which is done then.
    pub(super) fn is_due(&mut self, text: String, now: SystemTime) -> bool {
        let due = self.last.as_ref().is_none_or(|(last, at)| {
            *last != text || now.duration_since(*at).is_ok_and(|since| since >= AGAIN)
        });
        if due {
            self.last = Some((text, now));
        }
        due
    }

    /// What was wrong is well again. Whether anything had been said.
    pub(super) fn is_over(&mut self) -> bool {
        self.last.take().is_some()
    }

    /// What is wrong now.
    pub(super) fn now(&self) -> Option<&str> {
        self.last.as_ref().map(|(text, _)| text.as_str())
    }
}
