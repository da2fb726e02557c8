//! Third-party modules, fetched when a test runs: never part of this repository.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why packages cannot be had here.
#[derive(Debug)]
pub struct Unavailable(String);

impl Unavailable {
    /// With this reason.
    pub fn new(why: String) -> Unavailable {
        Unavailable(why)
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The unpacked contents of npm package `spec` (`name@version`), below `dir`; fetched by `npm pack` the first time.
///
/// # Errors
/// npm or tar is missing or fails, for example because there is no network.
pub fn fetch(dir: &Path, spec: &str) -> Result<PathBuf, Unavailable> {
    let home = dir.join(spec.replace('/', "+"));
    let package = home.join("package");
    if package.is_dir() {
        return Ok(package);
    }
    // Fetched and unpacked aside, so that nobody meets half a package.
    let aside = dir.join(format!("{}.{}", spec.replace('/', "+"), std::process::id()));
    std::fs::create_dir_all(&aside)
        .map_err(|e| Unavailable(format!("{spec}: cannot make {}: {e}", aside.display())))?;
    let npm = ["pack", "--silent", "--ignore-scripts", spec];
    let archive = run(Command::new("npm").args(npm).current_dir(&aside), spec)?;
    run(Command::new("tar").arg("-xzf").arg(archive.trim()).current_dir(&aside), spec)?;
    if std::fs::rename(&aside, &home).is_err() {
        // Another test was faster.
        let _ = std::fs::remove_dir_all(&aside);
    }
    if package.is_dir() { Ok(package) } else { Err(Unavailable(format!("{spec}: has no folder `package`"))) }
}

fn run(command: &mut Command, spec: &str) -> Result<String, Unavailable> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| Unavailable(format!("{spec}: {program} cannot be run: {e}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(Unavailable(format!("{spec}: {program} failed ({}): {}", output.status, errors.trim())))
    }
}

/// Whether what is fetched must be there: where tests run unattended (`CI` is set) everything should be at hand.
pub fn are_required() -> bool {
    std::env::var_os("CI").is_some_and(|v| !v.is_empty())
}
