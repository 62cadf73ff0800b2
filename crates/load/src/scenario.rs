//! Load scenarios.

use std::time::Duration;

use clap::ValueEnum;

/// A named load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 1 publisher, 30 fps of 4,000 B, groups of 60, 200 viewers.
    Video,
    /// 1 publisher, 30 fps of 40,000 B, groups of 60, 20 viewers.
    Hd,
    /// 4 publishers, 50 fps of 300 B, groups of 5, 200 viewers of one each.
    Audio,
    /// 10 publishers, 10 messages/s of 300 B, one a group, 500 viewers of one each.
    Chat,
    /// 1 publisher, 1 fps of 1,000 B, groups of 10, 1,000 viewers: what a connection weighs.
    Memory,
    /// The video load, joined by 200 viewers one after the other: how soon the first byte is there.
    Join,
}

/// Parameters of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Publishers, each with a broadcast of one track.
    pub publishers: u32,
    /// Frames per second of each publisher.
    pub fps: u32,
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// Frames of a group.
    pub group_frames: u64,
    /// Viewers in all; the `i`-th watches publisher `i % publishers`.
    pub viewers: u32,
}

impl Scenario {
    /// All scenarios, in the order of reports.
    pub const ALL: [Self; 6] = [Self::Video, Self::Hd, Self::Audio, Self::Chat, Self::Memory, Self::Join];

    /// Name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Hd => "hd",
            Self::Audio => "audio",
            Self::Chat => "chat",
            Self::Memory => "memory",
            Self::Join => "join",
        }
    }

    /// Parameters of the scenario.
    pub fn shape(self) -> Shape {
        let (publishers, fps, frame_bytes, group_frames, viewers) = match self {
            Self::Video | Self::Join => (1, 30, 4_000, 60, 200),
            Self::Hd => (1, 30, 40_000, 60, 20),
            Self::Audio => (4, 50, 300, 5, 200),
            Self::Chat => (10, 10, 300, 1, 500),
            Self::Memory => (1, 1, 1_000, 10, 1_000),
        };
        Shape { publishers, fps, frame_bytes, group_frames, viewers }
    }
}

impl Shape {
    /// Time between two frames of a publisher.
    pub fn period(&self) -> Duration {
        Duration::from_secs(1) / self.fps
    }

    /// Delay of the `index`-th publisher behind the first: evenly spread over a period, as for independent ones.
    pub fn offset(&self, index: u32) -> Duration {
        self.period() * index / self.publishers
    }

    /// Group and index in it of a publisher's `number`-th frame.
    pub fn place(&self, number: u64) -> (u64, u64) {
        (number / self.group_frames, number % self.group_frames)
    }
}
