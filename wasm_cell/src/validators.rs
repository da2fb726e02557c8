//! Validators that one module leaves to the next.
//!
//! A validator keeps the types it has seen, so that it knows those of the next module as the same: most modules have types like
//! `(i32, i32) -> i32`. What it keeps is freed when it has seen many types.

use crate::features::FEATURES;
use alloc::vec::Vec;
use spin::Mutex;
use wasmparser::Validator;

/// Validators kept for later; more are thrown away.
const SPARE: usize = 4;

/// Types that a validator may have been shown. Each module that brings new ones adds to what every later one has to copy.
const TYPES: usize = 64;

/// Validators that are not at work.
#[derive(Default)]
pub(crate) struct Validators(Mutex<Vec<Reused>>);

/// A validator that may have validated other modules before.
pub(crate) struct Reused {
    /// Ready for a module.
    pub validator: Validator,
    /// Types of the modules before.
    types: usize,
}

impl Validators {
    /// A validator for one module.
    pub fn take(&self) -> Reused {
        let kept = self.0.lock().pop();
        kept.unwrap_or_else(|| Reused { validator: Validator::new_with_features(FEATURES), types: 0 })
    }

    /// Keeps a validator, for the next module, after it has accepted one with so many types. One that met an error is dropped instead.
    pub fn give_back(&self, mut used: Reused, types: usize) {
        used.types += types;
        if used.types > TYPES {
            return;
        }
        used.validator.reset();
        let mut kept = self.0.lock();
        if kept.len() < SPARE {
            kept.push(used);
        }
    }
}
