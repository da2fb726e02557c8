//! Standard input, output and error.

use crate::console::{ConsolePort, Stream};
use std::io::{ErrorKind, Read, Write};

/// The hosted console port.
#[derive(Debug)]
pub struct HostedConsole;

impl ConsolePort for HostedConsole {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        // A closed pipe is no reason to stop: what nobody reads is dropped, as the interface says.
        let _ = match stream {
            Stream::Output => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Stream::Report => std::io::stderr().lock().write_all(bytes),
        };
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        loop {
            match std::io::stdin().lock().read(buffer) {
                Ok(n) => return n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return 0,
            }
        }
    }
}
