//! The feature table of [`super::carries`] against the known differences of the versions.

use super::{
    carries::{Feature, FeatureScope, lost},
    *,
};

fn carried(version: Version) -> Vec<Feature> {
    Feature::ALL.iter().copied().filter(|feature| version.carries(*feature)).collect()
}

#[test]
fn versions_carry_what_the_protocol_gave_them() {
    use Feature::*;
    assert_eq!(carried(V01), [InitialSet]);
    assert_eq!(carried(V02), [InitialSet]);
    assert_eq!(carried(V03), [OrderHint, Drops, Ranges, Updates, Bitrate]);
    assert_eq!(carried(V04), [HopIds, OrderHint, Drops, Ranges, Updates, Bitrate, RoundTrips, Goaway]);
    let v05 = [
        HopIds,
        TrackProperties,
        Timestamps,
        Datagrams,
        Fetch,
        FirstGroup,
        CleanEnd,
        OrderHint,
        Drops,
        Ranges,
        Updates,
        Setup,
        InitialSet,
        Replacement,
        Bitrate,
        RoundTrips,
        Goaway,
    ];
    assert_eq!(carried(V05), v05);
    // Prices and frame ranges were added, the order hint removed.
    let v06: Vec<Feature> = Feature::ALL.iter().copied().filter(|feature| *feature != OrderHint).collect();
    assert_eq!(carried(V06), v06);
}

#[test]
fn what_either_side_cannot_say_is_lost() {
    use Feature::*;
    let lost = |publisher, subscriber| lost(publisher, subscriber).collect::<Vec<Feature>>();
    assert_eq!(lost(V06, V06), [OrderHint]);
    assert_eq!(lost(V05, V05), [Prices, FrameRanges]);
    // The relay serves frame ranges, first groups and last groups from its cache.
    assert_eq!(lost(V05, V06), [Prices, OrderHint]);
    assert_eq!(lost(V06, V05), [Prices, FrameRanges, OrderHint]);
    let old = [Prices, TrackProperties, Timestamps, Datagrams, Fetch];
    assert_eq!(lost(V04, V05), [&old[..], &[FrameRanges]].concat());
    assert_eq!(lost(V05, V04), [&old[..], &[FirstGroup, CleanEnd, FrameRanges]].concat());
    assert_eq!(lost(V03, V03), [&[HopIds], &old[..], &[FirstGroup, CleanEnd, FrameRanges]].concat());
    let v02 = [&[HopIds], &old[..], &[FirstGroup, CleanEnd, FrameRanges, OrderHint, Drops]].concat();
    assert_eq!(lost(V02, V01), v02);
    for (one, other) in all().flat_map(|one| all().map(move |other| (one, other))) {
        assert!(lost(other, other).iter().all(|feature| lost(one, other).contains(feature)));
        assert!(lost(one, other).iter().all(|feature| feature.reach() != FeatureScope::Connection));
    }
}

#[test]
fn every_feature_is_listed_once_and_can_be_told_from_the_others() {
    for (place, feature) in Feature::ALL.iter().enumerate() {
        assert_eq!(*feature as usize, place, "`ALL` lists the variants in order, without gaps");
    }
    assert_eq!(Feature::ALL.last(), Some(&Feature::Goaway));
    let names: std::collections::HashSet<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
    assert_eq!(names.len(), Feature::ALL.len());
    for feature in Feature::ALL {
        assert!(feature.describe().ends_with('.') && !feature.describe().contains('|'), "{feature:?}");
        assert!(all().any(|version| version.carries(*feature)), "{feature:?}");
        assert!(!all().all(|version| version.carries(*feature)), "{feature:?} exists in every version");
    }
}
