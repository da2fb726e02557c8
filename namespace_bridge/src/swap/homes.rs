//! Two addresses for each function while a new version is not in service: its stable entry, which leads to the old version, and its own entry,
//! which nobody outside has and which leads to the new one.
//!
//! Code of the new version that runs before the commit (start function, `plank_restore`, …) must reach its own functions by reference too, so
//! meanwhile its slots, tables and globals hold own entries.
#![deny(unsafe_code)]

use crate::cell::StrongCrateRef;
use crate::instance::InstanceRecord;
use alloc::{sync::Arc, vec::Vec};
use hashbrown::HashMap;

/// The new versions of a swap, with both addresses of their functions.
pub(super) struct Homes {
    instances: Vec<Arc<InstanceRecord>>,
    /// Stable entry to own entry.
    own: HashMap<u64, u64>,
    /// Own entry to stable entry.
    stable: HashMap<u64, u64>,
}

impl Homes {
    /// Of these cells.
    pub(super) fn of<'a>(cells: impl Iterator<Item = &'a StrongCrateRef>) -> Homes {
        let mut homes = Homes { instances: Vec::new(), own: HashMap::new(), stable: HashMap::new() };
        for cell in cells {
            let (Some(body), Some(instance)) = (cell.body(), cell.instance()) else { continue };
            for (stable, own) in body.entries.homes() {
                homes.own.insert(stable as u64, own as u64);
                homes.stable.insert(own as u64, stable as u64);
            }
            homes.instances.push(instance);
        }
        homes
    }

    /// The new versions see themselves, until what this returns is dropped: then they see what everybody sees.
    pub(super) fn make_private(&self) -> Private<'_> {
        let private = Private(self);
        self.translate(&self.own);
        private
    }

    /// Replaces every address that is in the map. Takes no memory.
    fn translate(&self, map: &HashMap<u64, u64>) {
        if !map.is_empty() {
            self.instances.iter().for_each(|i| i.translate_references(|address| map.get(&address).copied()));
        }
    }
}

/// New versions that see themselves.
#[must_use]
pub(super) struct Private<'a>(&'a Homes);

impl Drop for Private<'_> {
    fn drop(&mut self) {
        self.0.translate(&self.0.stable);
    }
}
