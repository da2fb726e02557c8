//! The console, and the log that goes to it.
//!
//! [`print!`](crate::print) and [`println!`](crate::println) write to it, [`init_log`] sends the `log` crate's records there.

use crate::platform::platform;
use core::fmt::{self, Write};

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// What the program is asked for.
    Output,
    /// Reports about the program: log, progress, errors.
    Report,
}

/// What a port's console does.
pub trait ConsolePort: Sync {
    /// Writes bytes. What cannot be written is dropped.
    fn write(&self, stream: Stream, bytes: &[u8]);

    /// Reads at least one byte, waiting for it; 0 at the end of input.
    fn read(&self, buffer: &mut [u8]) -> usize;
}

/// Formats to a stream of the console.
#[derive(Debug)]
pub struct Writer(pub Stream);

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        platform().console().write(self.0, text.as_bytes());
        Ok(())
    }
}

/// Prints to the console's output.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print($crate::console::Stream::Output, format_args!($($arg)*)) };
}

/// Prints a line to the console's output.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", format_args!($($arg)*)) };
}

/// Prints a line to the console's reports.
#[macro_export]
macro_rules! eprintln {
    ($($arg:tt)*) => {
        $crate::console::print($crate::console::Stream::Report, format_args!("{}\n", format_args!($($arg)*)))
    };
}

/// Writes formatted text in one piece if it is short, so that lines of several tasks do not mix.
pub fn print(stream: Stream, text: fmt::Arguments<'_>) {
    print_to(&|bytes| platform().console().write(stream, bytes), text);
}

/// The same for any sink.
pub(crate) fn print_to(sink: &dyn Fn(&[u8]), text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], used: 0, sink };
    let _ = line.write_fmt(text);
    line.flush();
}

/// Collects output up to a size.
struct Line<'a> {
    bytes: [u8; 512],
    used: usize,
    sink: &'a dyn Fn(&[u8]),
}

impl Line<'_> {
    fn flush(&mut self) {
        if self.used > 0 {
            (self.sink)(&self.bytes[..self.used]);
            self.used = 0;
        }
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let bytes = text.as_bytes();
        if bytes.len() > self.bytes.len() - self.used {
            self.flush();
        }
        if bytes.len() > self.bytes.len() {
            (self.sink)(bytes);
        } else {
            self.bytes[self.used..self.used + bytes.len()].copy_from_slice(bytes);
            self.used += bytes.len();
        }
        Ok(())
    }
}

struct ConsoleLog;

impl log::Log for ConsoleLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            print(Stream::Report, format_args!("[{} {}] {}\n", record.level(), record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// Sends log records up to `level` to the console. Returns whether this is the first log; otherwise the one that was
/// installed before stays, with the new level.
pub fn init_log(level: log::LevelFilter) -> bool {
    log::set_max_level(level);
    log::set_logger(&ConsoleLog).is_ok()
}
