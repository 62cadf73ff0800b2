//! Files that are polled for changes by reading them.
//!
//! File system events are not used: certificates are replaced by rename (most tools), by retargeting a symlink
//! (certbot) or a symlink to their folder (Kubernetes), in place (cp), or on another machine (NFS), and no event
//! covers all of these. The files have a few KiB; reading them takes microseconds.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;

use super::{CertificateLoadError, pem};

/// Interval at which a lasting failure is logged again.
const AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// Files that are read together.
pub(super) struct Watched {
    files: Vec<PathBuf>,
    /// Digest of the contents in use.
    used: Digest,
    /// Digest of the contents at the last poll.
    seen: Digest,
}

/// SHA-256 of the contents of all files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

/// Content of each file.
pub(super) type Contents = Vec<Result<Vec<u8>, CertificateLoadError>>;

/// Result of a poll.
pub(super) enum FilePoll {
    /// The contents in use.
    Used,
    /// Contents that changed since the last poll; a write may be in progress.
    Unsettled,
    /// New contents, unchanged since the last poll.
    Other(Contents, Digest),
}

impl Watched {
    /// Reads `files` for the first time. Their contents count as in use.
    pub(super) fn new(files: Vec<PathBuf>) -> (Self, Contents) {
        let (contents, digest) = read(&files);
        (Self { files, used: digest, seen: digest }, contents)
    }

    /// Reads the files again; with `hurry` a change counts as settled at once.
    pub(super) fn poll(&mut self, hurry: bool) -> FilePoll {
        let (contents, digest) = read(&self.files);
        let settled = hurry || digest == self.seen;
        self.seen = digest;
        match settled {
            _ if digest == self.used => FilePoll::Used,
            false => FilePoll::Unsettled,
            true => FilePoll::Other(contents, digest),
        }
    }

    /// Marks the contents with this digest as in use.
    pub(super) fn used(&mut self, digest: Digest) {
        self.used = digest;
    }

    /// File names for the log.
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

/// Rate limit of a failure's log line: once, and again every day while it lasts.
#[derive(Default)]
pub(super) struct FailureLimit {
    last: Option<(String, SystemTime)>,
}

impl FailureLimit {
    /// Whether `text` is due at `now`; records it as logged.
    pub(super) fn is_due(&mut self, text: String, now: SystemTime) -> bool {
        let due = self.last.as_ref().is_none_or(|(last, at)| {
            *last != text || now.duration_since(*at).is_ok_and(|since| since >= AGAIN)
        });
        if due {
            self.last = Some((text, now));
        }
        due
    }

    /// Clears the failure. Returns whether one was logged.
    pub(super) fn is_over(&mut self) -> bool {
        self.last.take().is_some()
    }

    /// Current failure, if any.
    pub(super) fn now(&self) -> Option<&str> {
        self.last.as_ref().map(|(text, _)| text.as_str())
    }
}
