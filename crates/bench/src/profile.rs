//! Reads what callgrind wrote: instructions by the layer they belong to, and calls of the allocator.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};

/// Whose instructions they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// A crate of the workspace, by the name of its folder.
    Ours(&'static str),
    /// The QUIC library.
    Quic,
    /// TLS and ciphers.
    Crypto,
    /// The allocator.
    Allocator,
    /// The C library: copying and clearing memory.
    Libc,
    /// Everything else: the standard library and small crates, where they stand for themselves.
    Other,
}

/// Crates whose code is ours to make faster.
const OURS: [&str; 10] =
    ["session", "store", "wire", "transport", "worker", "meter", "model", "core", "auth", "bench"];

/// What the allocator is called for.
const ALLOCATE: [&str; 8] = [
    "mi_malloc",
    "mi_zalloc",
    "mi_calloc",
    "mi_realloc",
    "mi_malloc_aligned",
    "mi_zalloc_aligned",
    "mi_calloc_aligned",
    "mi_realloc_aligned",
];
const ALLOCATE_C: [&str; 3] = ["malloc", "calloc", "realloc"];

/// One profile.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// Instructions.
    pub(crate) total: u64,
    pub(crate) layers: BTreeMap<Layer, u64>,
    /// Blocks allocated or reallocated.
    pub(crate) allocations: u64,
    /// The same by who asked: the calling function, as deep as the profile separates callers.
    pub(crate) sites: HashMap<String, u64>,
}

/// Strings are named once and numbered.
#[derive(Default)]
struct Names(HashMap<u64, String>);

impl Names {
    /// `(7) name` gives 7 its name, `(7)` refers to it.
    fn resolve<'a>(&'a mut self, raw: &'a str) -> Result<&'a str> {
        let Some((number, name)) = raw.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
            return Ok(raw);
        };
        let number = number.parse()?;
        let name = name.trim_start();
        if !name.is_empty() {
            self.0.insert(number, name.to_owned());
        }
        self.0.get(&number).map(String::as_str).context("an unknown number of a name")
    }
}

#[derive(Default)]
struct Reader {
    profile: Profile,
    files: Names,
    functions: Names,
    objects: Names,
    file: String,
    function: String,
    object: String,
    callee: String,
    /// The next cost line is that of a call: it belongs to the callee.
    after_call: bool,
    layer: Option<Layer>,
}

impl Profile {
    /// Reads callgrind's output (positions not compressed).
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reader = Reader::default();
        for (number, line) in text.lines().enumerate() {
            reader.line(line).with_context(|| format!("line {}: {line}", number + 1))?;
        }
        let sum: u64 = reader.profile.layers.values().sum();
        let total = reader.profile.total;
        if total == 0 || sum != total {
            bail!("{sum} instructions were read of {total}");
        }
        Ok(reader.profile)
    }

    /// Instructions of all crates of the workspace.
    pub(crate) fn ours(&self) -> u64 {
        self.layers.iter().filter(|(layer, _)| matches!(layer, Layer::Ours(_))).map(|(_, count)| count).sum()
    }

    /// Instructions of one layer.
    pub(crate) fn layer(&self, layer: Layer) -> u64 {
        self.layers.get(&layer).copied().unwrap_or(0)
    }
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        if line.starts_with(|first: char| first.is_ascii_digit()) {
            return self.cost(line);
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { return Ok(()) };
        let value = value.trim_start();
        match key {
            "fl" | "fi" | "fe" => {
                self.file = self.files.resolve(value)?.to_owned();
                self.layer = None;
            }
            "fn" => {
                self.function = self.functions.resolve(value)?.to_owned();
                self.layer = None;
            }
            "ob" => {
                self.object = self.objects.resolve(value)?.to_owned();
                self.layer = None;
            }
            "cfn" => self.callee = self.functions.resolve(value)?.to_owned(),
            "cfi" | "cfl" => {
                self.files.resolve(value)?;
            }
            "cob" => {
                self.objects.resolve(value)?;
            }
            "calls" => {
                self.after_call = true;
                self.call(value)?;
            }
            "totals" => self.profile.total = value.parse()?,
            _ => {}
        }
        Ok(())
    }

    /// `line instructions`.
    fn cost(&mut self, line: &str) -> Result<()> {
        if std::mem::take(&mut self.after_call) {
            return Ok(());
        }
        let count: u64 = line.split(' ').nth(1).context("no instructions")?.parse()?;
        let layer = *self.layer.get_or_insert_with(|| layer_of(&self.file, &self.function, &self.object));
        *self.profile.layers.entry(layer).or_default() += count;
        Ok(())
    }

    /// `count line`.
    fn call(&mut self, value: &str) -> Result<()> {
        let callee = plain(&self.callee);
        let caller = plain(&self.function);
        let is_allocation = (ALLOCATE.contains(&callee) && !is_mimalloc(caller))
            || (ALLOCATE_C.contains(&callee) && !ALLOCATE_C.contains(&caller));
        if is_allocation {
            let count: u64 = value.split(' ').next().context("no count")?.parse()?;
            self.profile.allocations += count;
            *self.profile.sites.entry(self.function.clone()).or_default() += count;
        }
        Ok(())
    }
}

/// A function's name without the callers that callgrind may have put behind it.
fn plain(function: &str) -> &str {
    function.split_once('\'').map_or(function, |(name, _)| name)
}

fn is_mimalloc(function: &str) -> bool {
    function.starts_with("mi_") || function.starts_with("_mi_")
}

/// By the source file, so that inlined code counts where it was written; code of the standard
/// library and of small crates counts for whose function it is part of.
fn layer_of(file: &str, function: &str, object: &str) -> Layer {
    let crates = file.split_once("crates/").and_then(|(_, rest)| rest.split_once('/'));
    if let Some(ours) = crates.and_then(|(name, _)| OURS.into_iter().find(|ours| *ours == name)) {
        return Layer::Ours(ours);
    }
    let function = plain(function);
    if file.contains("/quinn-proto-") {
        return Layer::Quic;
    }
    if file.contains("/rustls-") || file.contains("/aws-lc") || is_crypto(function) {
        return Layer::Crypto;
    }
    if file.contains("mimalloc") || is_mimalloc(function) {
        return Layer::Allocator;
    }
    if object.contains("/libc") || object.contains("/ld-") {
        return Layer::Libc;
    }
    owner(function)
}

fn is_crypto(function: &str) -> bool {
    const PARTS: [&str; 6] = ["aws_lc", "aesni", "gcm_", "gf128", "CRYPTO_", "EVP_"];
    PARTS.iter().any(|part| function.contains(part))
}

/// Who a function of no file of ours belongs to: the first of our crates or libraries it names.
fn owner(function: &str) -> Layer {
    let ours = OURS.into_iter().filter_map(|name| {
        let at = function.find(&format!("relay_{name}::"))?;
        Some((at, Layer::Ours(name)))
    });
    let libraries = [("quinn_proto::", Layer::Quic), ("rustls::", Layer::Crypto)]
        .into_iter()
        .filter_map(|(name, layer)| Some((function.find(name)?, layer)));
    ours.chain(libraries).min_by_key(|(at, _)| *at).map_or(Layer::Other, |(_, layer)| layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
version: 1
events: Ir
summary: 137

ob=(1) /bin/delivery
fl=(1) /home/me/crates/session/src/egress.rs
fn=(1) relay_session::egress::serve
10 100
fi=(2) /registry/quinn-proto-0.11.19/src/connection/mod.rs
20 5
fe=(3) /rustc/0/library/alloc/src/vec.rs
21 7
cfn=(2) mi_malloc_aligned
calls=3 0
22 25
fl=(4) ???
fn=(2)
0 20
cfn=(3) mi_malloc
calls=3 0
0 5

fn=(3)
0 5

totals: 137
";

    #[test]
    fn inlined_code_counts_where_it_was_written() {
        let profile = Profile::parse(SAMPLE).unwrap();
        assert_eq!(profile.layer(Layer::Ours("session")), 107, "and the standard library for its caller");
        assert_eq!(profile.layer(Layer::Quic), 5);
        assert_eq!(profile.layer(Layer::Allocator), 25);
        assert_eq!(profile.ours(), 107);
    }

    #[test]
    fn an_allocation_is_a_call_into_the_allocator_from_outside() {
        let profile = Profile::parse(SAMPLE).unwrap();
        assert_eq!(profile.allocations, 3);
        assert_eq!(profile.sites["relay_session::egress::serve"], 3);
    }

    #[test]
    fn a_profile_that_does_not_add_up_is_refused() {
        assert!(Profile::parse(&SAMPLE.replace("totals: 137", "totals: 138")).is_err());
        assert!(Profile::parse("").is_err());
    }
}
