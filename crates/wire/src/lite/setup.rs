//! SETUP, the only message of each side's setup stream.

use relay_model::{Hop, Role, limits};

use super::{Body, Version};
use crate::{
    DecodeError,
    body::{BodyReader, put_bytes, put_str},
    varint,
};

// Parameter ids (draft-lcurley-moq-lite-05, SETUP; role: moq-net 0.3.18; cost, hop: deployed relays, captured).
const PROBE: u64 = 1;
const PATH: u64 = 2;
const ROLE: u64 = 3;
const COST: u64 = 4;
const HOP: u64 = 5;

/// Highest probe level; higher values read as this one (draft-lcurley-moq-lite-05, Probe Parameter).
const PROBE_MAX: u64 = 2;

/// Capabilities of a peer, sent once per session (draft-lcurley-moq-lite-05, SETUP).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Probe level: 0 none, 1 reports measurements, 2 also pads the connection on request.
    pub probe: u64,
    /// Raw path and query that the client connects to; only on transports without a URL.
    pub path: Option<String>,
    /// Direction to which the client limits itself; `None` = both.
    pub role: Option<Role>,
    /// Link cost of what the sender transmits; `None` = not declared.
    pub cost: Option<u64>,
    /// Hop id of the sender; never anonymous.
    pub hop: Option<Hop>,
}

const fn role_id(role: Role) -> u64 {
    match role {
        Role::Publisher => 1,
        Role::Subscriber => 2,
    }
}

const fn role_from_id(id: u64) -> Option<Role> {
    match id {
        1 => Some(Role::Publisher),
        2 => Some(Role::Subscriber),
        _ => None,
    }
}

impl Setup {
    fn parameter(&mut self, id: u64, value: &[u8]) -> Result<(), DecodeError> {
        match id {
            PROBE => self.probe = number(value)?.min(PROBE_MAX),
            PATH => {
                let path = std::str::from_utf8(value).map_err(|_| DecodeError::Utf8)?;
                self.path = (!path.is_empty()).then(|| path.to_owned());
            }
            ROLE => self.role = role_from_id(number(value)?),
            COST => self.cost = Some(number(value)?),
            HOP => self.hop = Some(Hop(number(value)?)).filter(|hop| *hop != Hop::ANONYMOUS),
            _ => {}
        }
        Ok(())
    }

    /// Returns the present integer parameters, in order of id.
    fn numbers(&self) -> impl Iterator<Item = (u64, u64)> {
        [
            (PROBE, Some(self.probe).filter(|level| *level != 0)),
            (ROLE, self.role.map(role_id)),
            (COST, self.cost),
            (HOP, self.hop.map(|hop| hop.0).filter(|hop| *hop != 0)),
        ]
        .into_iter()
        .filter_map(|(id, value)| Some((id, value?)))
    }
}

impl Body for Setup {
    fn read(_: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let count = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
        if count > limits::PARAMETERS {
            return Err(DecodeError::TooManyParameters);
        }
        let mut setup = Self::default();
        let mut seen = Vec::with_capacity(count.min(input.rest()));
        for _ in 0..count {
            let id = input.varint()?;
            if seen.contains(&id) {
                return Err(DecodeError::DuplicateParameter);
            }
            seen.push(id);
            setup.parameter(id, input.bytes()?)?;
        }
        Ok(setup)
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        let path = self.path.as_deref().filter(|path| !path.is_empty());
        varint::put(self.numbers().count() as u64 + u64::from(path.is_some()), out);
        for (id, value) in self.numbers() {
            let mut bytes = Vec::with_capacity(varint::size(value));
            varint::put(value, &mut bytes);
            varint::put(id, out);
            put_bytes(&bytes, out);
        }
        if let Some(path) = path {
            varint::put(PATH, out);
            put_str(path, out);
        }
    }
}

/// Parses a parameter value that is exactly one varint.
fn number(mut value: &[u8]) -> Result<u64, DecodeError> {
    let number = varint::get(&mut value).map_err(|_| DecodeError::MalformedParameter)?;
    if value.is_empty() { Ok(number) } else { Err(DecodeError::MalformedParameter) }
}
