//! What is made to go wrong.

use core::fmt;
use core::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The guest traps, fails or panics in the host, or overflows its stack, at a random step of its work.
    Guest,
    /// A request to the platform is refused: memory, mappings, frames, unwind registrations.
    Refusal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 2] = [Kind::Guest, Kind::Refusal];

    /// Its name, for reports and command lines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Guest => "guest",
            Kind::Refusal => "refusal",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such kind of fault")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Kind, UnknownKind> {
        Kind::ALL.into_iter().find(|k| k.name() == name).ok_or(UnknownKind)
    }
}
