//! The machine that commands boot: QEMU, and an image that was given or is built now.

use crate::failure::{Failure, Kind};
use crate::progress;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use xtask::kernel::KernelError;
use xtask::machine::Machine;
use xtask::qemu;

/// The machine with the image that was given, or else with the one that `build` makes. What is cheap to check comes before
/// the build of a kernel.
pub fn machine(image: Option<&Path>, build: fn() -> Result<PathBuf, KernelError>) -> Result<Machine, Failure> {
    if let Some(missing) = image.filter(|i| !i.is_file()) {
        return Err(Failure::file(&missing.display().to_string(), "no such kernel image"));
    }
    let qemu = qemu::find().map_err(|e| system(&e))?;
    let image = match image {
        Some(image) => image.to_path_buf(),
        None => progress::during("building the kernel", build).map_err(|e| system(&e))?,
    };
    Ok(Machine::new(qemu, image))
}

fn system(e: &dyn Display) -> Failure {
    Failure::new(Kind::System, e.to_string())
}
