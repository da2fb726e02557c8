//! The line discipline: what a typed byte does to the line.
//!
//! The discipline only says which [`Edit`] a byte means. The line itself and the screen are the kernel's ([`super::super::console_line`]),
//! so a discipline that fails in the middle of a line loses nothing that was typed.

use super::Component;
use alloc::{format, string::String};
use core::sync::atomic::{AtomicBool, Ordering};
use namespace_bridge::TypedFunc;

const CONTROL_C: u8 = 3;

/// What a byte does to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Nothing.
    Ignore,
    /// Adds this byte at the end.
    Insert(u8),
    /// Takes the last character back.
    Erase,
    /// Takes the last word back.
    EraseWord,
    /// Takes everything back.
    EraseAll,
    /// Ends the line.
    End,
    /// Gives it up, and starts another.
    Abandon,
    /// Shows the line before, or the one behind, of those that were typed.
    Previous,
    /// See `Previous`.
    Next,
}

/// Understands keys.
pub trait LineDiscipline {
    /// What this byte means, on a line of `length` bytes.
    fn key(&self, byte: u8, length: usize) -> Edit;
}

/// The native default: backspace, Control-U and Control-C; a line ends with a carriage return, a line feed, or both.
#[derive(Debug)]
pub struct Plain {
    after_return: AtomicBool,
}

impl Plain {
    /// At the start of a line.
    pub const fn new() -> Self {
        Self { after_return: AtomicBool::new(false) }
    }
}

impl LineDiscipline for Plain {
    fn key(&self, byte: u8, _length: usize) -> Edit {
        let after_return = self.after_return.swap(byte == b'\r', Ordering::Relaxed);
        match byte {
            b'\n' if after_return => Edit::Ignore,
            b'\r' | b'\n' => Edit::End,
            0x08 | 0x7f => Edit::Erase,
            0x15 => Edit::EraseAll,
            CONTROL_C => Edit::Abandon,
            0x20..=0x7e | 0x80.. => Edit::Insert(byte),
            _ => Edit::Ignore,
        }
    }
}

/// The cell `line_discipline`: `key(byte, length)` gives the number of an edit, 0 to 8 in the order of [`Edit`], and for an insertion the byte in bits
/// 8 to 15.
pub struct ByCell;

type Key = TypedFunc<(i32, i32), i32>;

/// The component.
pub static COMPONENT: Component<Key> = Component::new("line_discipline", |cell| cell.typed_func("key"));

static DEFAULT: Plain = Plain::new();

impl LineDiscipline for ByCell {
    fn key(&self, byte: u8, length: usize) -> Edit {
        // The default follows what is typed, so that it can take over at any byte.
        let default = DEFAULT.key(byte, length);
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        let sense = |answer| match sense(answer)? {
            // Or nobody could get rid of one that makes nothing of any key.
            edit if byte == CONTROL_C && edit != Edit::Abandon => Err(format!("{edit:?}: Control-C gives a line up")),
            edit => Ok(edit),
        };
        COMPONENT.ask(|key| key.call((i32::from(byte), length)), sense).unwrap_or(default)
    }
}

fn sense(answer: i32) -> Result<Edit, String> {
    let edit = match answer.to_le_bytes() {
        [0, 0, 0, 0] => Edit::Ignore,
        [1, byte, 0, 0] if byte >= 0x20 && byte != 0x7f => Edit::Insert(byte),
        [2, 0, 0, 0] => Edit::Erase,
        [3, 0, 0, 0] => Edit::EraseWord,
        [4, 0, 0, 0] => Edit::EraseAll,
        [5, 0, 0, 0] => Edit::End,
        [6, 0, 0, 0] => Edit::Abandon,
        [7, 0, 0, 0] => Edit::Previous,
        [8, 0, 0, 0] => Edit::Next,
        _ => return Err(format!("edit {answer:#x}: there is no such edit")),
    };
    Ok(edit)
}
