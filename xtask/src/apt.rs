//! Debian's package manager, for programs that tests need.

use std::{
    io,
    path::PathBuf,
    process::{Command, Stdio},
};

/// A program in `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| p.is_file())
}

/// Whether packages can be installed: this is Debian, and we are root.
#[must_use]
pub fn is_usable() -> bool {
    is_root() && run(&["--version"]).is_ok()
}

/// Installs packages.
///
/// # Errors
/// What the package manager said last.
pub fn install(packages: &[&str]) -> Result<(), String> {
    // A stale list of packages is worth a try.
    let _ = run(&["update", "-q"]);
    run(&[&["install", "-q", "-y", "--no-install-recommends"], packages].concat())
}

fn run(args: &[&str]) -> Result<(), String> {
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
