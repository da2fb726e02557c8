//! WASI preview1 for command-line programs: what clang, Rust, Go and AssemblyScript modules import.
//!
//! The functions are written against [`GuestMemory`] and know nothing of cells; the engine registers them in a
//! namespace. A guest sees its arguments, the environment it is given, the standard streams, clocks, random bytes, and
//! the directories it is given, which no path of it can leave.

mod clock;
mod descriptor;
mod errno;
mod functions;
mod link;
mod memory;
mod path;
mod process;
mod stat;
mod stream;
#[cfg(test)]
mod tests;

pub use errno::Errno;
pub use functions::{FUNCTIONS, Function};
pub use link::{Exit, define};
pub use memory::GuestMemory;
pub use stream::{Input, Output};

use descriptor::{Descriptor, Descriptors, OpenDir};
use std::io;
use std::path::Path;

/// Module name under which the functions are imported.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// State of one guest.
#[derive(Debug)]
pub struct Wasi {
    args: Vec<String>,
    environment: Vec<String>,
    descriptors: Descriptors,
    exit: Option<u32>,
}

impl Wasi {
    /// A guest with these arguments (the first is the program's name), no environment, and these streams.
    pub fn new(args: Vec<String>, input: Input, output: Output, errors: Output) -> Wasi {
        let mut descriptors = Descriptors::default();
        for d in [Descriptor::Input(input), Descriptor::Output(output), Descriptor::Output(errors)] {
            // Three fit.
            let _ = descriptors.insert(d);
        }
        Wasi { args, environment: Vec::new(), descriptors, exit: None }
    }

    /// Adds `NAME=VALUE` to the environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push(format!("{name}={value}"));
    }

    /// Gives the guest a directory of the host under a name.
    pub fn preopen(&mut self, host: &Path, name: &str) -> io::Result<()> {
        let dir = cap_std::fs::Dir::open_ambient_dir(host, cap_std::ambient_authority())?;
        let opened = Descriptor::Directory(OpenDir { dir, preopened_as: Some(name.to_string()) });
        self.descriptors.insert(opened).map(drop).map_err(|_| io::Error::other("too many directories"))
    }

    /// The status with which the guest ended itself, if it has.
    pub fn exit_status(&self) -> Option<u32> {
        self.exit
    }
}

/// Arguments of a call, each zero-extended to 64 bits.
struct Args<'a>(&'a [u64]);

impl Args<'_> {
    fn u32(&self, i: usize) -> u32 {
        self.u64(i) as u32
    }

    fn u64(&self, i: usize) -> u64 {
        self.0.get(i).copied().unwrap_or(0)
    }
}

/// Why a call does not return 0.
enum Stop {
    /// The guest learns of it.
    Errno(Errno),
    /// The guest has ended itself.
    Exit(u32),
}

impl From<Errno> for Stop {
    fn from(e: Errno) -> Stop {
        Stop::Errno(e)
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Stop {
        Stop::Errno(e.into())
    }
}

type Outcome = Result<(), Stop>;
