//! I/O traits without std: `Read`, `Write`, `Seek`, `BufRead`, `Cursor`, `Error`, as in `core2`.

pub use core2::io::*;
