//! The console: the first serial port.

mod input;

pub use input::{Received, deliver, next_received, read_within, receive, set_filtered, set_foreground};

use super::lock::InterruptLock;
use crate::console::{ConsolePort, Stream, print_to};
use core::fmt::{self, Write};
use uart_16550::{
    Config, Uart16550,
    backend::PioBackend,
    spec::registers::{IER, LSR},
};

/// I/O port of COM1.
const COM1: u16 = 0x3f8;

static UART: InterruptLock<Option<Uart16550<PioBackend>>> = InterruptLock::new(None);

/// Sets the port up. Without one, output is dropped.
///
/// # Safety
/// Nobody else may use COM1.
pub unsafe fn init() {
    // SAFETY: by the caller.
    let uart = unsafe { Uart16550::new_port(COM1) };
    if let Ok(mut uart) = uart
        && uart.init(Config::default()).is_ok()
    {
        *UART.lock() = Some(uart);
    }
}

/// Has the port interrupt when something was received: [`receive`] is to be called then.
pub fn enable_input() {
    if let Some(uart) = UART.lock().as_mut() {
        uart.enable_interrupts(IER::DATA_READY);
    }
}

/// What was received, if there is something.
fn try_read() -> Option<Received> {
    let mut uart = UART.lock();
    let uart = uart.as_mut()?;
    // The errors go when they are read, so before the byte.
    let errors = uart.lsr() & (LSR::OVERRUN_ERROR | LSR::PARITY_ERROR | LSR::FRAMING_ERROR | LSR::BREAK_INTERRUPT);
    uart.try_receive_byte().ok().map(|byte| Received { byte, errors: errors.bits() })
}

/// Writes bytes as they are: a line feed stays one.
pub fn write_raw(bytes: &[u8]) {
    if let Some(uart) = UART.lock().as_mut() {
        uart.send_bytes_exact(bytes);
    }
}

/// The port's console: both streams go to the serial port. A line feed becomes carriage return and line feed.
#[derive(Debug)]
pub struct BareConsole;

impl ConsolePort for BareConsole {
    fn write(&self, _stream: Stream, bytes: &[u8]) {
        let mut uart = UART.lock();
        let Some(uart) = uart.as_mut() else { return };
        for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
            if i > 0 {
                uart.send_bytes_exact(b"\r\n");
            }
            uart.send_bytes_exact(line);
        }
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        let present = UART.lock().is_some();
        match present {
            true => read_within(buffer, None),
            false => 0,
        }
    }
}

/// Formats to the serial port; usable before the platform is installed.
#[derive(Debug, Clone, Copy)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        BareConsole.write(Stream::Output, text.as_bytes());
        Ok(())
    }

    /// In one piece if it is short, so that lines of several tasks do not mix.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        print_to(&|bytes| BareConsole.write(Stream::Output, bytes), text);
        Ok(())
    }
}

/// Writes text from an exception handler, which may have interrupted the holder of the console: breaks its lock.
///
/// # Safety
/// The interrupted code must never go on: what it was printing is lost.
pub unsafe fn seize() {
    if UART.is_locked() {
        // SAFETY: the holder does not run any more.
        unsafe { UART.force_unlock() };
    }
}
