//! Loads: published content, and the counted part of it.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A named load: one publisher of one track, and viewers on the same worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeliveryScenario {
    /// 30 fps of 4,000 B, groups of 60.
    Video,
    /// 30 fps of 40,000 B, groups of 30.
    Hd,
    /// 50 fps of 300 B, groups of 5.
    Audio,
    /// 10 messages/s of 300 B, one per group.
    Chat,
}

/// Parameters of a scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveryShape {
    /// Frames per second.
    pub(crate) fps: u32,
    /// Bytes per frame.
    pub(crate) frame_bytes: usize,
    /// Frames per group.
    pub(crate) group_frames: u64,
    /// Frames before counting begins, for congestion windows, path MTU and tables to grow.
    pub(crate) warmup: u64,
    /// Counted frames, in whole groups.
    pub(crate) counted: u64,
}

impl DeliveryScenario {
    /// Parameters of the scenario.
    pub(crate) fn shape(self) -> DeliveryShape {
        let (fps, frame_bytes, group_frames, warmup, counted) = match self {
            Self::Video => (30, 4_000, 60, 60, 180),
            Self::Hd => (30, 40_000, 30, 60, 60),
            Self::Audio => (50, 300, 5, 50, 400),
            Self::Chat => (10, 300, 1, 20, 300),
        };
        DeliveryShape { fps, frame_bytes, group_frames, warmup, counted }
    }

    /// Name on the command line, in files and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Hd => "hd",
            Self::Audio => "audio",
            Self::Chat => "chat",
        }
    }
}

impl DeliveryShape {
    /// Time between two frames.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs(1) / self.fps
    }

    /// Group and index within it of the `number`-th frame.
    pub(crate) fn place(&self, number: u64) -> (u64, u64) {
        (number / self.group_frames, number % self.group_frames)
    }
}
