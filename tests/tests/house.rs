//! Promise: files, functions, types and names stay within the limits of CONTRIBUTING.md. Reads the sources as text.

#![allow(missing_docs)]
#![expect(clippy::print_stdout, reason = "the figures, for the next tightening")]

#[path = "house/circles.rs"]
mod circles;
#[path = "house/measure.rs"]
mod measure;
#[path = "house/source.rs"]
mod source;

use measure::Figures;
use source::Tree;

/// Limits of the whole tree, by the name of the figure. A share is in percent.
const LIMITS: &[(&str, Bound)] = &[
    ("median file", Bound::AtMost(150.0)),
    ("p90 file", Bound::AtMost(400.0)),
    ("largest file", Bound::AtMost(600.0)),
    ("functions over 70 lines", Bound::AtMost(3.0)),
    ("panicking calls in the binary", Bound::AtMost(2.0)),
    ("unfinished code", Bound::AtMost(0.0)),
    ("doc comments that open with a question word", Bound::AtMost(1.0)),
    ("distinct type names", Bound::AtLeast(85.0)),
    ("test names over 60 characters", Bound::AtMost(0.0)),
    ("test share", Bound::AtLeast(37.0)),
    ("uses of lite outside its dialect", Bound::AtMost(0.0)),
];

/// Largest number of fields of a struct.
const FIELDS: usize = 20;
/// Largest number of methods of a type in one crate.
const METHODS: usize = 40;

/// Figures that do not meet their limit yet, with the value they have. They may only improve, and a line goes once its
/// figure meets the limit.
const PENDING: &[(&str, f64)] = &[];

/// The same for structs with more than [`FIELDS`] fields.
const PENDING_FIELDS: &[(&str, usize)] = &[];

/// The same for types with more than [`METHODS`] methods.
const PENDING_METHODS: &[(&str, usize)] = &[];

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    /// The same bound at another limit.
    fn at(self, limit: f64) -> Self {
        match self {
            Self::AtMost(_) => Self::AtMost(limit),
            Self::AtLeast(_) => Self::AtLeast(limit),
        }
    }
}

#[test]
fn figures_of_the_tree_stay_within_limits() {
    let tree = Tree::read();
    let figures = Figures::of(&tree);
    println!("{figures}");
    let mut wrong = Vec::new();
    for &(name, bound) in LIMITS {
        let value = figures.value(name);
        let pending = PENDING.iter().find(|pending| pending.0 == name).map(|pending| pending.1);
        match (bound.holds(value), pending) {
            (true, None) => {}
            (true, Some(_)) => {
                wrong.push(format!("{name}: {value} meets its limit; remove its pending line"))
            }
            (false, None) => wrong.push(format!("{name}: {value} is beyond its limit")),
            (false, Some(pending)) if !bound.at(pending).holds(value) => {
                wrong.push(format!("{name}: {value} is worse than {pending}"));
            }
            (false, Some(pending)) if (value - pending).abs() > f64::EPSILON => {
                println!("{name}: tighten the pending value {pending} to {value}");
            }
            (false, Some(_)) => {}
        }
    }
    wrong.extend(oversized("fields", FIELDS, &figures.fields, PENDING_FIELDS));
    wrong.extend(oversized("methods", METHODS, &figures.methods, PENDING_METHODS));
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", figures.evidence());
}

/// Names the types with more than `limit` parts that are not pending, or have more than their pending number.
fn oversized(what: &str, limit: usize, counts: &[(usize, String)], pending: &[(&str, usize)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (count, name) in counts.iter().filter(|(count, _)| *count > limit) {
        match pending.iter().find(|pending| pending.0 == name) {
            Some(&(_, most)) if *count <= most => {}
            Some(&(_, most)) => wrong.push(format!("{name} has {count} {what}, more than {most}")),
            None => wrong.push(format!("{name} has {count} {what}, more than {limit}")),
        }
    }
    let is_over = |name: &str| counts.iter().any(|(count, found)| found == name && *count > limit);
    wrong.extend(
        pending
            .iter()
            .filter(|pending| !is_over(pending.0))
            .map(|pending| format!("{} has at most {limit} {what}; remove its pending line", pending.0)),
    );
    wrong
}

#[test]
fn module_circles_are_listed_with_a_reason() {
    let tree = Tree::read();
    let listed = circles::listed();
    let found = circles::found(&tree);
    println!("{found:#?}");
    let mut wrong = Vec::new();
    for circle in &found {
        if !listed.iter().any(|allowed| allowed.covers(circle)) {
            wrong.push(format!("{circle} is not listed\n{}", circles::edges(&tree, circle)));
        }
    }
    wrong.extend(
        listed
            .iter()
            .filter(|allowed| !found.iter().any(|circle| allowed.covers(circle)))
            .map(|allowed| format!("{} is listed and no longer there", allowed.circle)),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
