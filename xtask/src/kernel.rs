//! Builds the kernel image, and the tool that feeds it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why there is no kernel image.
#[derive(Debug)]
pub enum KernelError {
    /// The sources are not where they were when this program was built. Give the image by path, or run in the source tree.
    NoSources(PathBuf),
    /// cargo could not be started.
    Cargo(io::Error),
    /// The build failed; cargo said why.
    Build,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSources(root) => write!(f, "no sources at {}: give the kernel image by path", root.display()),
            Self::Cargo(error) => write!(f, "cargo cannot be started: {error}"),
            Self::Build => write!(f, "the kernel, or a tool for it, does not build; see cargo's messages above"),
        }
    }
}

impl std::error::Error for KernelError {}

/// The root of the source tree this program was built from.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The arguments of cargo that build nano_core (the alias `kbuild`).
pub const BUILD: [&str; 7] = ["build", "-p", "nano_core", "--features", "bare_metal", "--profile", "kernel"];

/// Builds nano_core and returns the path of the image. cargo's messages go to standard error.
///
/// # Errors
/// The sources are gone, or do not build.
pub fn build() -> Result<PathBuf, KernelError> {
    build_with(&[])
}

/// Builds nano_core with what only tests need (features `inject` and `conformance`), and returns the path of the image.
///
/// # Errors
/// As for [`build`].
pub fn build_testing() -> Result<PathBuf, KernelError> {
    build_with(&["--features", "inject,conformance"])
}

/// Builds the command line `planks` and returns its path. As a part of a test of its own, so that it is the one that the tests of the
/// workspace have built: built alone, what it depends on would have other features.
///
/// # Errors
/// As for [`build`].
pub fn build_planks() -> Result<PathBuf, KernelError> {
    let args = ["test", "--release", "--workspace", "--features", "planks/bench", "--no-run", "--test", "scripts"];
    cargo(&args, "planks")
}

fn build_with(more: &[&str]) -> Result<PathBuf, KernelError> {
    cargo(&[&BUILD[..], more].concat(), "nano_core")
}

/// Runs cargo, and returns the path of the executable of this name that it made.
fn cargo(args: &[&str], name: &str) -> Result<PathBuf, KernelError> {
    let root = workspace();
    if !root.join("nano_core/Cargo.toml").is_file() {
        return Err(KernelError::NoSources(root));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).args(["--quiet", "--message-format", "json-render-diagnostics"]).current_dir(root);
    let output = cargo.stderr(Stdio::inherit()).stdin(Stdio::null()).output().map_err(KernelError::Cargo)?;
    if !output.status.success() {
        return Err(KernelError::Build);
    }
    executable(&String::from_utf8_lossy(&output.stdout), name).ok_or(KernelError::Build)
}

/// Finds the path of the image in cargo's messages, one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    let name = format!("\"name\":\"{name}\"");
    let line = messages.lines().find(|l| l.contains(&name) && l.contains(KEY))?;
    let rest = &line[line.find(KEY)? + KEY.len()..];
    Some(PathBuf::from(rest[..rest.find('"')?].replace("\\\\", "\\")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"nano_core"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"nano_core"},"executable":"/a/kernel/nano_core","fresh":true}"#,
        );
        assert_eq!(executable(messages, "nano_core"), Some(PathBuf::from("/a/kernel/nano_core")));
        assert_eq!(executable(messages, "planks"), None);
        assert_eq!(executable("{}", "nano_core"), None);
    }
}
