//! Features of each version, and those lost between two versions.
//!
//! A broadcast may be published on one version and watched on another; the relay bridges them. This module is
//! the only place that states what is lost; `docs/versions.md` is generated from it.

use std::fmt::Write as _;

use super::Version;

/// Protocol feature that not every version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Ids of the relays that an announce passed.
    HopIds,
    /// Route costs.
    Prices,
    /// Priority, maximum age and timescale of a track, as set by its publisher.
    TrackProperties,
    /// Presentation timestamps of frames.
    Timestamps,
    /// Groups in datagrams.
    Datagrams,
    /// Groups on request (FETCH).
    Fetch,
    /// Report of the first group of a subscription.
    FirstGroup,
    /// Report of the last group of a track.
    CleanEnd,
    /// Ranges that begin or end inside a group.
    FrameRanges,
    /// Request for older groups first.
    OrderHint,
    /// Report of groups that will not be delivered.
    Drops,
    /// Subscriptions with a group range and a maximum age.
    Ranges,
    /// Updates of live subscriptions.
    Updates,
    /// SETUP message of each side.
    Setup,
    /// Size of the initial set of announces.
    InitialSet,
    /// Route changes of a broadcast that stays announced.
    Replacement,
    /// Bitrate estimate of the connection.
    Bitrate,
    /// Round-trip time with the bitrate.
    RoundTrips,
    /// Request to move the session elsewhere.
    Goaway,
}

/// Scope of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeatureScope {
    /// From publisher to subscriber, or from a subscriber's request back to the publisher: both connections
    /// need a version with the feature.
    Broadcast,
    /// To the subscriber, whatever version its publisher uses: the relay derives it from its cache.
    Subscriber,
    /// Between the ends of one connection: the versions of other connections do not matter.
    Connection,
}

impl Feature {
    /// All features, in the order of the variants: broadcast and subscriber scope first, then connection scope.
    pub const ALL: &'static [Self] = &[
        Self::HopIds,
        Self::Prices,
        Self::TrackProperties,
        Self::Timestamps,
        Self::Datagrams,
        Self::Fetch,
        Self::FirstGroup,
        Self::CleanEnd,
        Self::FrameRanges,
        Self::OrderHint,
        Self::Drops,
        Self::Ranges,
        Self::Updates,
        Self::Setup,
        Self::InitialSet,
        Self::Replacement,
        Self::Bitrate,
        Self::RoundTrips,
        Self::Goaway,
    ];

    /// Returns a lower-case name of a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HopIds => "hop ids",
            Self::Prices => "prices",
            Self::TrackProperties => "track properties",
            Self::Timestamps => "timestamps",
            Self::Datagrams => "datagrams",
            Self::Fetch => "fetch",
            Self::FirstGroup => "first group",
            Self::CleanEnd => "clean end",
            Self::FrameRanges => "frame ranges",
            Self::OrderHint => "order hint",
            Self::Ranges => "ranges",
            Self::Updates => "updates",
            Self::Drops => "drops",
            Self::Setup => "setup",
            Self::InitialSet => "initial set",
            Self::Replacement => "replacement",
            Self::Bitrate => "bitrate",
            Self::RoundTrips => "round trips",
            Self::Goaway => "goaway",
        }
    }

    /// Returns a one-sentence description of the feature and of its absence.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::HopIds => {
                "An announce lists the ids of its original publisher and of the relays it passed; without \
                 ids only their number is known, and before moq-lite-03 not even that."
            }
            Self::Prices => {
                "An announce carries the cost of its route, warm and cold; without, the warm cost counts as 0 \
                 and the cold cost as the maximum."
            }
            Self::TrackProperties => {
                "Subscribers receive the priority, maximum age and timescale set by the publisher of a track \
                 (TRACK); without, they do not."
            }
            Self::Timestamps => "Frames carry a presentation timestamp, in ticks of the track's timescale.",
            Self::Datagrams => "A group of one small frame can be sent as a datagram, which may be lost.",
            Self::Fetch => "A single past group can be requested (FETCH).",
            Self::FirstGroup => "The first group of a subscription is reported before it arrives (START).",
            Self::CleanEnd => {
                "The end of a track reports its last group (END); without, a FIN ends the track, and groups \
                 in flight cannot be distinguished from lost ones."
            }
            Self::FrameRanges => {
                "Subscriptions and fetches can begin and end at a frame inside a group, and a group \
                 stream can begin at a later frame; without, groups are complete."
            }
            Self::OrderHint => "Subscriptions can request older groups first.",
            Self::Ranges => {
                "Subscriptions carry a first and a last group and a maximum age of groups that are not the \
                 latest; without, they begin at the latest group with a maximum age of five seconds."
            }
            Self::Updates => "Live subscriptions can be changed (SUBSCRIBE_UPDATE).",
            Self::Drops => "Groups that will not be delivered are reported (DROP); without, they are not.",
            Self::Setup => {
                "Each side sends its hop id and link cost at the start of the session (SETUP), a client also \
                 its role and path."
            }
            Self::InitialSet => {
                "The response to an announce request begins with the number of active broadcasts \
                 (ANNOUNCE_OK) or with their list (ANNOUNCE_INIT), so that the end of the initial set is \
                 known."
            }
            Self::Replacement => {
                "The route of a broadcast can change while it stays announced; without, the announce ends \
                 and is sent again."
            }
            Self::Bitrate => "The estimated bitrate of the connection is reported (PROBE).",
            Self::RoundTrips => "The round-trip time is reported with the bitrate (PROBE).",
            Self::Goaway => "A peer can be asked to move its session elsewhere before the close (GOAWAY).",
        }
    }

    /// Returns the scope of the feature.
    pub const fn reach(self) -> FeatureScope {
        match self {
            Self::HopIds
            | Self::Prices
            | Self::TrackProperties
            | Self::Timestamps
            | Self::Datagrams
            | Self::Fetch
            | Self::OrderHint => FeatureScope::Broadcast,
            Self::FirstGroup | Self::CleanEnd | Self::FrameRanges | Self::Drops => FeatureScope::Subscriber,
            Self::Ranges
            | Self::Updates
            | Self::Setup
            | Self::InitialSet
            | Self::Replacement
            | Self::Bitrate
            | Self::RoundTrips
            | Self::Goaway => FeatureScope::Connection,
        }
    }
}

impl Version {
    /// Returns whether the version has the feature.
    pub fn carries(self, feature: Feature) -> bool {
        match feature {
            Feature::HopIds => self.has_hop_ids(),
            Feature::Prices => self.has_announce_ids(),
            Feature::TrackProperties | Feature::Fetch => self.has_tracks(),
            Feature::Timestamps | Feature::Datagrams => self.has_timestamps(),
            // START and END replaced OK. (OK has fields for both groups, which peers leave 0.)
            Feature::FirstGroup | Feature::CleanEnd => !self.has_subscribe_ok(),
            Feature::FrameRanges => self.has_frame_ranges(),
            Feature::OrderHint => self.has_order_hint(),
            Feature::Ranges | Feature::Updates => self.has_ranges(),
            Feature::Drops => self.has_drops(),
            Feature::Setup => self.has_setup(),
            Feature::InitialSet => self.has_announce_ok() || self.has_announce_init(),
            Feature::Replacement => self.replaces_announces(),
            Feature::Bitrate => self.has_probe(),
            Feature::RoundTrips => self.has_round_trips(),
            Feature::Goaway => self.has_goaway(),
        }
    }
}

/// Returns the features lost between a publisher on one version and a subscriber on another: of the features
/// of a broadcast, those that the subscriber's version lacks, and those that the publisher's lacks and the
/// relay cannot supply. `tests/tests/bridging.rs` measures all pairs against it.
pub fn lost(publisher: Version, subscriber: Version) -> impl Iterator<Item = Feature> {
    Feature::ALL.iter().copied().filter(move |feature| match feature.reach() {
        FeatureScope::Broadcast => !(publisher.carries(*feature) && subscriber.carries(*feature)),
        FeatureScope::Subscriber => !subscriber.carries(*feature),
        FeatureScope::Connection => false,
    })
}

/// Renders the tables of `docs/versions.md` in Markdown, oldest version first.
pub fn markdown() -> String {
    let mut out = String::from("Features of a broadcast, from its publisher to its subscribers or back:\n\n");
    features(FeatureScope::Broadcast, &mut out);
    out.push_str(
        "\nFeatures that the relay supplies to a subscriber whatever version its publisher uses:\n\n",
    );
    features(FeatureScope::Subscriber, &mut out);
    out.push_str("\nFeatures of one connection:\n\n");
    features(FeatureScope::Connection, &mut out);
    out.push_str("\nFeatures lost from a publisher on one version to a subscriber on another:\n\n");
    pairs(&mut out);
    out
}

fn reaching(reach: FeatureScope) -> impl Iterator<Item = Feature> {
    Feature::ALL.iter().copied().filter(move |feature| feature.reach() == reach)
}

fn oldest_first() -> impl Iterator<Item = Version> + Clone {
    Version::every().rev()
}

/// Returns the number of the version, the last part of its name.
fn short(version: Version) -> &'static str {
    version.name().rsplit('-').next().unwrap_or_default()
}

fn features(reach: FeatureScope, out: &mut String) {
    let mut rule = String::from("| --- | --- |");
    out.push_str("| feature | description |");
    for version in oldest_first() {
        // Writing to a `String` cannot fail, here and below.
        let _ = write!(out, " {} |", short(version));
        rule.push_str(" --- |");
    }
    let _ = writeln!(out, "\n{rule}");
    for feature in reaching(reach) {
        let _ = write!(out, "| {} | {} |", feature.name(), feature.describe());
        for version in oldest_first() {
            out.push_str(if version.carries(feature) { " yes |" } else { " no |" });
        }
        out.push('\n');
    }
}

fn pairs(out: &mut String) {
    out.push_str("| published on | watched on | lost |\n| --- | --- | --- |\n");
    for publisher in oldest_first() {
        for subscriber in oldest_first() {
            let names: Vec<&str> = lost(publisher, subscriber).map(Feature::name).collect();
            let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            let _ = writeln!(out, "| {} | {} | {names} |", short(publisher), short(subscriber));
        }
    }
}
