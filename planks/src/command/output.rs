//! Standard output, which may go away at any time: `planks … | head` ends quietly.

use crate::failure::{Failure, Kind};
use crate::printable::Printable;
use serde_json::Value;
use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

/// Exit code when the reader of the output is gone: what a shell reports for a program ended by SIGPIPE.
pub const PIPE_CLOSED: u8 = 141;

/// Standard output of a command.
pub struct Output {
    out: BufWriter<Stdout>,
    /// Whether results are wanted as JSON.
    pub json: bool,
}

impl Output {
    /// Standard output.
    pub fn new(json: bool) -> Output {
        Output { out: BufWriter::new(io::stdout()), json }
    }

    /// Writes text. Control characters of the guest's names are escaped.
    pub fn print(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        write!(self.out, "{}", Printable(text)).map_err(failed)
    }

    /// Writes a line, as [`Output::print`] does.
    pub fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.out, "{}", Printable(text)).map_err(failed)
    }

    /// Writes a value as a line of JSON.
    pub fn value(&mut self, value: &Value) -> Result<(), Failure> {
        // JSON escapes control characters in its own way.
        writeln!(self.out, "{value}").map_err(failed)
    }

    /// Sends what was written on its way.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(failed)
    }
}

/// The failure for output that cannot be written.
fn failed(e: io::Error) -> Failure {
    match e.kind() {
        ErrorKind::BrokenPipe => std::process::exit(i32::from(PIPE_CLOSED)),
        _ => Failure::new(Kind::File, format!("standard output: {e}")),
    }
}

/// Tells a person something on standard error. Where nobody listens there is nobody to tell that, either.
pub fn tell(what: core::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
