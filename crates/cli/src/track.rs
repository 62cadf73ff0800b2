//! Names of broadcast and track, from positional arguments or flags.

use crate::{
    args::TrackArgs,
    exit::{Exit, Failure},
};

/// Names of a track and its broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) broadcast: String,
    pub(crate) track: String,
}

impl TrackArgs {
    /// Takes the names that no flag gives from the front of `words`, and returns the rest.
    pub(crate) fn resolve(&self, words: &[String]) -> Result<(Named, Vec<String>), Failure> {
        let mut words = words.iter().cloned();
        let mut next = |flag: &Option<String>, what: &str| {
            flag.clone().or_else(|| words.next()).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("{what} is missing: URL BROADCAST TRACK, see --help"))
            })
        };
        let named =
            Named { broadcast: next(&self.broadcast, "BROADCAST")?, track: next(&self.track, "TRACK")? };
        Ok((named, words.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn names_come_by_place_or_by_flag() {
        let flags = |broadcast: Option<&str>, track: Option<&str>| TrackArgs {
            broadcast: broadcast.map(str::to_owned),
            track: track.map(str::to_owned),
        };
        let want = Named { broadcast: "b".into(), track: "t".into() };
        for (flags, line, rest) in [
            (flags(None, None), &["b", "t", "f"][..], &["f"][..]),
            (flags(Some("b"), Some("t")), &["f"], &["f"]),
            (flags(Some("b"), None), &["t"], &[]),
        ] {
            assert_eq!(flags.resolve(&words(line)).unwrap(), (want.clone(), words(rest)));
        }
        assert_eq!(flags(None, None).resolve(&words(&["b"])).unwrap_err().exit, Exit::Usage);
    }
}
