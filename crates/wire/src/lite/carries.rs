//! What each version can say, and what is lost between two of them.
//!
//! A broadcast may be published on one version and watched on another; the relay bridges them. This is the
//! one place that says at what price, and `docs/versions.md` is made from it.

use std::fmt::Write as _;

use super::Version;

/// Something that not every version can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// The ids of the relays that a broadcast passed.
    HopIds,
    /// What a route costs.
    Prices,
    /// Priority, age and timescale of a track, as its publisher set them.
    TrackProperties,
    /// When each frame is meant for.
    Timestamps,
    /// Groups in datagrams.
    Datagrams,
    /// Old groups on request.
    Fetch,
    /// The first group that will come is named.
    FirstGroup,
    /// The last group is named.
    CleanEnd,
    /// Ranges that begin and end inside a group.
    FrameRanges,
    /// The wish for older groups first.
    OrderHint,
    /// Groups that will not come are named.
    Drops,
    /// Subscriptions that say which groups they want, and how old.
    Ranges,
    /// Subscriptions that change.
    Updates,
    /// A message in which each side says what it is.
    Setup,
    /// How many announces make up the first answer.
    InitialSet,
    /// A route that changes while its broadcast stays.
    Replacement,
    /// What the connection carries.
    Bitrate,
    /// Round trips beside the bitrate.
    RoundTrips,
    /// The request to move elsewhere.
    Goaway,
}

/// How far something that is said gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// From publisher to subscriber, or from a subscriber's request back to the publisher: it takes a
    /// version that carries it on either side.
    Broadcast,
    /// To the subscriber, whatever its publisher speaks: the relay has it from what it holds.
    Subscriber,
    /// To the other end of one connection: the version on another connection does not matter.
    Connection,
}

impl Feature {
    /// All of them: first those of a broadcast, then those of a connection.
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

    /// A few lower-case words.
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

    /// One sentence: what there is, and what it is without.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::HopIds => {
                "An announce names the relays it passed and its original publisher; without ids only \
                 their number is known, and before moq-lite-03 not even that."
            }
            Self::Prices => {
                "An announce says what its route costs, warm and cold; a route without a price counts as \
                 free to join and dearest to start."
            }
            Self::TrackProperties => {
                "The publisher of a track says its priority, age and timescale (TRACK); without, nobody \
                 is told."
            }
            Self::Timestamps => {
                "Frames carry the time they are meant for, in ticks of the track's timescale."
            }
            Self::Datagrams => "A group of one small frame can go in a datagram, which may get lost.",
            Self::Fetch => "One old group can be asked for (FETCH).",
            Self::FirstGroup => "A subscription is told its first group before the group comes (START).",
            Self::CleanEnd => {
                "The end of a track names its last group (END); without, a FIN ends it and groups still \
                 on their way are not told from lost ones."
            }
            Self::FrameRanges => {
                "Subscriptions and fetches can begin and end at a frame inside a group, and a group \
                 stream can begin at a later frame; without, groups are whole."
            }
            Self::OrderHint => "Subscriptions can ask for older groups first.",
            Self::Ranges => {
                "Subscriptions say with which group they begin and end, and how long one that is \
                 superseded stays of use; without, they begin with the latest and five seconds are meant."
            }
            Self::Updates => "Subscriptions can change while they live (SUBSCRIBE_UPDATE).",
            Self::Drops => "Groups that will not come are named (DROP); without, nothing is said of them.",
            Self::Setup => {
                "Each side says what it is when the session begins (SETUP): its id and price, and of a \
                 client its role and path."
            }
            Self::InitialSet => {
                "The answer to an announce request begins with how many broadcasts there are \
                 (ANNOUNCE_OK) or with all of them (ANNOUNCE_INIT), so that one knows when one has seen \
                 them all."
            }
            Self::Replacement => {
                "The route of a broadcast can change while it stays announced; without, it ends and is \
                 announced again."
            }
            Self::Bitrate => "The bitrate is measured and told (PROBE).",
            Self::RoundTrips => "Round trips are measured and told beside the bitrate (PROBE).",
            Self::Goaway => "A session can be asked to move elsewhere before it is closed (GOAWAY).",
        }
    }

    /// How far it gets.
    pub const fn reach(self) -> Reach {
        match self {
            Self::HopIds
            | Self::Prices
            | Self::TrackProperties
            | Self::Timestamps
            | Self::Datagrams
            | Self::Fetch
            | Self::OrderHint => Reach::Broadcast,
            Self::FirstGroup | Self::CleanEnd | Self::FrameRanges | Self::Drops => Reach::Subscriber,
            Self::Ranges
            | Self::Updates
            | Self::Setup
            | Self::InitialSet
            | Self::Replacement
            | Self::Bitrate
            | Self::RoundTrips
            | Self::Goaway => Reach::Connection,
        }
    }
}

impl Version {
    /// Whether it can say that.
    pub fn carries(self, feature: Feature) -> bool {
        match feature {
            Feature::HopIds => self.has_hop_ids(),
            Feature::Prices => self.has_announce_ids(),
            Feature::TrackProperties | Feature::Fetch => self.has_tracks(),
            Feature::Timestamps | Feature::Datagrams => self.has_timestamps(),
            // What came in the place of OK. (OK has fields for a first and last group; peers leave them 0.)
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

/// What does not get through from a publisher on one version to a subscriber on another, or from its
/// request back: of the features of a broadcast, those that the subscriber's version does not carry, and
/// those that the publisher's does not and the relay cannot make up for. `tests/tests/bridging.rs` measures
/// all pairs against it.
pub fn lost(publisher: Version, subscriber: Version) -> impl Iterator<Item = Feature> {
    Feature::ALL.iter().copied().filter(move |feature| match feature.reach() {
        Reach::Broadcast => !(publisher.carries(*feature) && subscriber.carries(*feature)),
        Reach::Subscriber => !subscriber.carries(*feature),
        Reach::Connection => false,
    })
}

/// All of the above as tables in Markdown, oldest version first.
pub fn markdown() -> String {
    let mut out =
        String::from("What travels with a broadcast, from its publisher to its subscribers or back:\n\n");
    features(Reach::Broadcast, &mut out);
    out.push_str("\nWhat the relay has for a subscriber whatever its publisher speaks:\n\n");
    features(Reach::Subscriber, &mut out);
    out.push_str("\nWhat concerns one connection and nothing behind it:\n\n");
    features(Reach::Connection, &mut out);
    out.push_str("\nWhat is lost from a publisher on one version to a subscriber on another:\n\n");
    pairs(&mut out);
    out
}

fn reaching(reach: Reach) -> impl Iterator<Item = Feature> {
    Feature::ALL.iter().copied().filter(move |feature| feature.reach() == reach)
}

fn oldest_first() -> impl Iterator<Item = Version> + Clone {
    Version::every().rev()
}

/// Its number: what tells its name from the others'.
fn short(version: Version) -> &'static str {
    version.name().rsplit('-').next().unwrap_or_default()
}

fn features(reach: Reach, out: &mut String) {
    let mut rule = String::from("| --- | --- |");
    out.push_str("| feature | what it is |");
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
