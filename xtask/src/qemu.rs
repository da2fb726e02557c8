//! Finds the emulator, or installs it.

use std::{
    fmt, io,
    path::PathBuf,
    process::{Command, Stdio},
};

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
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|p| p.is_file()).ok_or(QemuError::Missing)
}

/// The emulator; installs it first if it is missing, this is Debian, and we are root.
///
/// # Errors
/// It is missing and cannot be installed.
pub fn ensure() -> Result<PathBuf, QemuError> {
    match find() {
        Err(QemuError::Missing) if is_root() && apt_get(&["--version"]).is_ok() => {
            // A stale list of packages is worth a try.
            let _ = apt_get(&["update", "-q"]);
            apt_get(&["install", "-q", "-y", "--no-install-recommends", PACKAGE]).map_err(QemuError::Install)?;
            find()
        }
        found => found,
    }
}

fn apt_get(args: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let output = command.output().map_err(|e: io::Error| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(errors.lines().next_back().unwrap_or("no message").to_owned())
        }
    }
}

/// Whether the effective user is root (`/proc/self/status`, "Uid").
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:"));
    uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
