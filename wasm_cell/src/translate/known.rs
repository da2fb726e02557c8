//! Values that are at hand already: what was computed before, where every way leads by.
//!
//! Accesses through one pointer all need the memory's base and the pointer with 64 bits, and compiled programs have them in long rows. An
//! instruction that is not made need not be found superfluous, and in most functions without loops nobody looks for such
//! ([`crate::generator::Effort`]).
//!
//! What is known in a block of wasm is known in those inside it; when it is left by a branch, what was learned inside is forgotten. A call
//! makes all of it be forgotten, since what lives across a call must be kept on the stack: to compute it again costs no more. What a loop
//! needs is different: it is made once, at the start of the function, and is known everywhere.
//!
//! Constants are made anew each time: the back end does not, and one that is shared would live from its first use to its last.

use alloc::vec::Vec;
use cranelift_codegen::ir::Value;
use hashbrown::HashMap;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Address of the data block.
    Data,
    /// A word of the data block that never changes, by offset.
    Word(i32),
    /// A value with 64 bits, the upper ones zero.
    Wide(Value),
    /// Sum of two values.
    Sum(Value, Value),
}

/// What is known at the current position.
#[derive(Default)]
pub(super) struct Known {
    /// What was made at the start of the function.
    everywhere: HashMap<What, Value>,
    here: HashMap<What, Value>,
    /// What was learned here, in order; some of it may be forgotten already.
    learned: Vec<What>,
}

/// A point in the history of what was learned.
#[derive(Clone, Copy)]
pub(super) struct Mark(usize);

impl Known {
    /// Nothing is known.
    pub fn clear(&mut self) {
        self.everywhere.clear();
        self.here.clear();
        self.learned.clear();
    }

    pub fn everywhere(&self, what: What) -> Option<Value> {
        self.everywhere.get(&what).copied()
    }

    pub fn here(&self, what: What) -> Option<Value> {
        self.here.get(&what).copied()
    }

    pub fn learn_everywhere(&mut self, what: What, value: Value) {
        self.everywhere.insert(what, value);
    }

    pub fn learn_here(&mut self, what: What, value: Value) {
        self.here.insert(what, value);
        self.learned.push(what);
    }

    pub fn mark(&self) -> Mark {
        Mark(self.learned.len())
    }

    /// Forgets what was learned since.
    pub fn back_to(&mut self, mark: Mark) {
        for what in self.learned.drain(mark.0..) {
            self.here.remove(&what);
        }
    }

    /// Forgets what would have to be kept on the stack.
    pub fn forget_at_call(&mut self) {
        self.here.clear();
    }
}
