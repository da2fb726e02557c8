//! Finds the emulator, or installs it.

use crate::apt;
use std::{fmt, path::PathBuf};

/// Name of the emulator's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// Debian's package that has it.
const PACKAGE: &str = "qemu-system-x86";

/// There is no emulator.
#[derive(Debug)]
pub enum QemuError {
    /// It is not installed, and this program may not or cannot do that.
    Missing,
    /// The package manager failed.
    Install(String),
}

impl fmt::Display for QemuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "`{PROGRAM}` is not installed: `apt-get install {PACKAGE}` (Debian, Ubuntu)"),
            Self::Install(why) => write!(f, "`{PROGRAM}` is missing and installing `{PACKAGE}` failed: {why}"),
        }
    }
}

impl std::error::Error for QemuError {}

/// The emulator in `PATH`.
///
/// # Errors
/// It is not installed.
pub fn find() -> Result<PathBuf, QemuError> {
    apt::find(PROGRAM).ok_or(QemuError::Missing)
}

/// The emulator; installs it first if it is missing, this is Debian, and we are root.
///
/// # Errors
/// It is missing and cannot be installed.
pub fn ensure() -> Result<PathBuf, QemuError> {
    match find() {
        Err(QemuError::Missing) if apt::is_usable() => {
            apt::install(&[PACKAGE]).map_err(QemuError::Install)?;
            find()
        }
        found => found,
    }
}
