//! Lines from the console: the line that is typed, those before it, and what is on the screen.
//!
//! What a key means is the line discipline's affair ([`crate::components::line_discipline`]); it is done here.

use crate::components::line_discipline::{Edit, LineDiscipline};
use alloc::{collections::VecDeque, string::String, vec::Vec};
use runtime_port::{console::Stream, platform, print, println};

/// Longest line, in bytes.
const LONGEST: usize = 4096;

/// Lines that are remembered.
const REMEMBERED: usize = 32;

/// Reads lines.
#[derive(Debug, Default)]
pub struct LineReader {
    line: Vec<u8>,
    /// Lines typed before, the last one at the end.
    history: VecDeque<Vec<u8>>,
    /// Which of them is shown, counted from the last; 0: none.
    shown: usize,
}

impl LineReader {
    /// Reads a line, showing what is typed. `None`: there is nowhere to read from.
    pub fn read(&mut self, prompt: &str, discipline: &dyn LineDiscipline) -> Option<String> {
        self.line.clear();
        self.shown = 0;
        print!("{prompt}");
        loop {
            let mut byte = [0];
            if platform().console().read(&mut byte) == 0 {
                return None;
            }
            match discipline.key(byte[0], self.line.len()) {
                Edit::Ignore => {}
                Edit::Insert(byte) => self.insert(byte),
                Edit::Erase => self.erase(),
                Edit::EraseWord => {
                    while self.line.last().is_some_and(u8::is_ascii_whitespace) {
                        self.erase();
                    }
                    while self.line.last().is_some_and(|b| !b.is_ascii_whitespace()) {
                        self.erase();
                    }
                }
                Edit::EraseAll => self.erase_all(),
                Edit::End => {
                    println!();
                    self.remember();
                    return Some(String::from_utf8_lossy(&self.line).into_owned());
                }
                Edit::Abandon => {
                    println!("^C");
                    self.line.clear();
                    self.shown = 0;
                    print!("{prompt}");
                }
                Edit::Previous => self.show(self.shown + 1),
                Edit::Next => self.show(self.shown.saturating_sub(1)),
            }
        }
    }

    fn insert(&mut self, byte: u8) {
        if self.line.len() < LONGEST && self.line.try_reserve(1).is_ok() {
            self.line.push(byte);
            echo(&[byte]);
        }
    }

    /// Takes the last character back, on the screen too.
    fn erase(&mut self) {
        if self.line.is_empty() {
            return;
        }
        // A character of UTF-8 ends with bytes 10xxxxxx and starts with another.
        while self.line.pop().is_some_and(|b| b & 0xc0 == 0x80) {}
        echo(b"\x08 \x08");
    }

    fn erase_all(&mut self) {
        while !self.line.is_empty() {
            self.erase();
        }
    }

    /// Puts a line typed before, counted from the last, in the place of this one.
    fn show(&mut self, back: usize) {
        if back > self.history.len() {
            return;
        }
        self.erase_all();
        self.shown = back;
        if let Some(line) = self.history.len().checked_sub(back).and_then(|at| self.history.get(at)) {
            let bytes = line.clone();
            bytes.into_iter().for_each(|byte| self.insert(byte));
        }
    }

    fn remember(&mut self) {
        if self.line.is_empty() || self.history.back() == Some(&self.line) || self.history.try_reserve(1).is_err() {
            return;
        }
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(self.line.clone());
    }
}

fn echo(bytes: &[u8]) {
    platform().console().write(Stream::Output, bytes);
}
