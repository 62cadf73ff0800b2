//! Plain per-worker counters and histograms. Uses nothing, used by all.
