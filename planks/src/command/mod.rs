//! The commands of `planks`, one file each. What they print goes through [`Output`].

#[cfg(feature = "bench")]
mod bench;
mod boot;
mod compile;
mod demo;
mod inject;
mod machine;
mod objdump;
mod objects;
pub mod output;
mod run;
mod shell;
mod swap;
mod wast;

#[cfg(feature = "bench")]
pub use bench::BenchArgs;
pub use boot::BootArgs;
pub use compile::CompileArgs;
pub use demo::DemoArgs;
pub use inject::InjectArgs;
pub use objdump::ObjdumpArgs;
pub use output::Output;
pub use run::RunArgs;
pub use shell::ShellArgs;
pub use swap::{SwapArgs, WatchArgs};
pub use wast::WastArgs;

use crate::failure::Failure;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Success,
    /// With this status of the program it ran.
    Status(u8),
}

/// A command with its arguments.
pub trait Run {
    /// Runs it.
    fn run(self, out: &mut Output) -> Result<Ending, Failure>;
}
