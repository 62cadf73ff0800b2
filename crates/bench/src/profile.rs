//! Parser of callgrind profiles: instructions by layer, and calls of the allocator.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};

/// Part of the program that an instruction is attributed to.
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
    /// Everything else: the standard library and small crates, outside of code of other layers.
    Other,
}

/// Crates of the workspace.
const OURS: [&str; 10] =
    ["session", "store", "wire", "transport", "worker", "meter", "model", "core", "auth", "bench"];

/// Entry points of the allocator: those of mimalloc, and those of the C library, which ciphers might use.
const ALLOCATE: [&str; 7] = [
    "mi_malloc_aligned",
    "mi_zalloc_aligned",
    "mi_realloc_aligned",
    "mi_malloc",
    "malloc",
    "calloc",
    "realloc",
];

/// A parsed profile.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// Number of instructions.
    pub(crate) total: u64,
    pub(crate) layers: BTreeMap<Layer, u64>,
    /// Number of blocks allocated or reallocated.
    pub(crate) allocations: u64,
    /// Allocations by callers, innermost first, as deep as the profile separates them.
    pub(crate) sites: BTreeMap<String, u64>,
}

/// Table of strings, which are named once and then numbered.
#[derive(Default)]
struct StringTable(HashMap<u64, String>);

impl StringTable {
    /// Resolves a reference: `(7) name` defines 7, `(7)` refers to it.
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
struct ProfileReader {
    profile: Profile,
    files: StringTable,
    functions: StringTable,
    objects: StringTable,
    file: String,
    function: String,
    object: String,
    /// Address of the first instruction of each allocator entry point, and its count.
    entries: HashMap<String, (u64, u64)>,
    /// Whether the next cost line is that of a call, which belongs to the callee.
    after_call: bool,
    layer: Option<Layer>,
    /// Layer of the preceding code in the function.
    near: Option<Layer>,
}

impl Profile {
    /// Parses callgrind's output (per instruction, positions not compressed).
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reader = ProfileReader::default();
        for (number, line) in text.lines().enumerate() {
            reader.line(line).with_context(|| format!("line {}: {line}", number + 1))?;
        }
        let ProfileReader { mut profile, entries, .. } = reader;
        let sum: u64 = profile.layers.values().sum();
        if profile.total == 0 || sum != profile.total {
            bail!("{sum} instructions were read of {}", profile.total);
        }
        for (function, (_, count)) in entries {
            let callers = function.split_once('\'').map_or("", |(_, callers)| callers);
            profile.allocations += count;
            *profile.sites.entry(callers.to_owned()).or_default() += count;
        }
        Ok(profile)
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

impl ProfileReader {
    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(rest) = line.strip_prefix("0x") {
            return self.cost(rest);
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
                self.near = None;
            }
            "ob" => {
                self.object = self.objects.resolve(value)?.to_owned();
                self.layer = None;
            }
            "cfn" => {
                self.functions.resolve(value)?;
            }
            "cfi" | "cfl" => {
                self.files.resolve(value)?;
            }
            "cob" => {
                self.objects.resolve(value)?;
            }
            // Call counts are recorded even while instructions are not.
            "calls" => self.after_call = true,
            "totals" => self.profile.total = value.parse()?,
            _ => {}
        }
        Ok(())
    }

    /// Layer of the current position: by source file, so that inlined code counts where it was written. Code
    /// of the standard library and of small crates counts for the code it is inlined in.
    fn layer(&mut self) -> Layer {
        if let Some(layer) = self.layer {
            return layer;
        }
        let named = layer_of_file(&self.file).or_else(|| layer_of_symbol(&self.function, &self.object));
        self.near = named.or(self.near);
        let layer = self.near.unwrap_or_else(|| owner(plain(&self.function)));
        *self.layer.insert(layer)
    }

    /// Parses `address line instructions`.
    fn cost(&mut self, line: &str) -> Result<()> {
        if std::mem::take(&mut self.after_call) {
            return Ok(());
        }
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next().unwrap_or_default(), 16)?;
        let count: u64 = words.nth(1).context("no instructions")?.parse()?;
        let layer = self.layer();
        *self.profile.layers.entry(layer).or_default() += count;
        if ALLOCATE.contains(&plain(&self.function)) {
            let entry = self.entries.entry(self.function.clone()).or_insert((address, count));
            if address < entry.0 {
                *entry = (address, count);
            }
        }
        Ok(())
    }
}

/// Name of a function without the callers that callgrind may append.
fn plain(function: &str) -> &str {
    function.split_once('\'').map_or(function, |(name, _)| name)
}

fn is_mimalloc(function: &str) -> bool {
    function.starts_with("mi_") || function.starts_with("_mi_")
}

fn layer_of_file(file: &str) -> Option<Layer> {
    let ours = file.split_once("crates/").and_then(|(_, rest)| rest.split_once('/'));
    if let Some(name) = ours.and_then(|(name, _)| OURS.into_iter().find(|ours| *ours == name)) {
        return Some(Layer::Ours(name));
    }
    match file {
        _ if file.contains("/quinn-proto-") => Some(Layer::Quic),
        _ if file.contains("/rustls-") || file.contains("/aws-lc") => Some(Layer::Crypto),
        _ if file.contains("mimalloc") => Some(Layer::Allocator),
        _ => None,
    }
}

/// Layer of a function without a source file.
fn layer_of_symbol(function: &str, object: &str) -> Option<Layer> {
    match plain(function) {
        function if is_crypto(function) => Some(Layer::Crypto),
        function if is_mimalloc(function) => Some(Layer::Allocator),
        _ if object.contains("/libc") || object.contains("/ld-") => Some(Layer::Libc),
        _ => None,
    }
}

fn is_crypto(function: &str) -> bool {
    const PARTS: [&str; 6] = ["aws_lc", "aesni", "gcm_", "gf128", "CRYPTO_", "EVP_"];
    PARTS.iter().any(|part| function.contains(part))
}

/// Layer of a function that is not inlined: the first of our crates or libraries in its name.
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

ob=(1) /bin/delivery
fl=(1) /home/me/crates/session/src/egress.rs
fn=(1) relay_session::egress::serve
0x10 10 100
fi=(2) /registry/quinn-proto-0.11.19/src/connection/mod.rs
0x14 20 5
fe=(3) /rustc/0/library/alloc/src/vec.rs
0x18 21 7
cfn=(2) mi_malloc_aligned'relay_session::egress::serve
calls=9 0
0x1c 22 28

fl=(4) ???
fn=(2)
0x44 0 20
0x40 0 3
cfn=(3) _mi_malloc_generic
calls=3 0
0x48 0 5

fn=(3)
0x80 0 5

totals: 140
";

    #[test]
    fn inlined_code_counts_where_it_was_written() {
        let profile = Profile::parse(SAMPLE).unwrap();
        assert_eq!(profile.layer(Layer::Ours("session")), 100);
        assert_eq!(profile.layer(Layer::Quic), 12, "with the library code it stands next to");
        assert_eq!(profile.layer(Layer::Allocator), 28);
        assert_eq!(profile.ours(), 100);
    }

    #[test]
    fn an_allocation_is_an_entry_into_the_allocator_while_counting() {
        let profile = Profile::parse(SAMPLE).unwrap();
        assert_eq!(profile.allocations, 3);
        assert_eq!(profile.sites["relay_session::egress::serve"], 3);
    }

    #[test]
    fn profile_with_a_wrong_total_is_rejected() {
        assert!(Profile::parse(&SAMPLE.replace("totals: 140", "totals: 141")).is_err());
        assert!(Profile::parse("").is_err());
    }
}
