//! Uniqueness of type ids: one 31-bit id stands for one function type, everywhere.
//!
//! Compiled code compares ids only (D4), so the registry proves, before any code of a module can run, that its ids mean
//! the same types as everybody else's. Entries count their users and go with the last of them.
#![deny(unsafe_code)]

use crate::error::TypeCollision;
use alloc::{sync::Arc, vec::Vec};
use hashbrown::{HashMap, hash_map::Entry};
use spin::Mutex;
use wasm_cell::types::{FuncType, TypeHash};

struct Known {
    hash: TypeHash,
    first_cell: Arc<str>,
    users: usize,
}

static REGISTRY: Mutex<Option<HashMap<u32, Known>>> = Mutex::new(None);

/// A share of the registry's entries; gives them back when dropped.
#[derive(Debug, Default)]
pub struct TypeShares(Vec<TypeHash>);

impl TypeShares {
    /// Registers function types for a cell. On a collision nothing is registered.
    pub fn register<'a>(
        cell: &Arc<str>,
        types: impl IntoIterator<Item = &'a FuncType>,
    ) -> Result<TypeShares, TypeCollision> {
        let mut guard = REGISTRY.lock();
        let registry = guard.get_or_insert_default();
        let mut shares = TypeShares(Vec::new());
        for ty in types {
            let id = ty.hash.id();
            match registry.entry(id.0) {
                Entry::Occupied(mut known) if known.get().hash == ty.hash => known.get_mut().users += 1,
                Entry::Occupied(known) => {
                    let error = TypeCollision {
                        id,
                        first: known.get().hash,
                        first_cell: known.get().first_cell.clone(),
                        second: ty.hash,
                        second_cell: cell.clone(),
                    };
                    drop(guard);
                    drop(shares);
                    return Err(error);
                }
                Entry::Vacant(place) => {
                    place.insert(Known { hash: ty.hash, first_cell: cell.clone(), users: 1 });
                }
            }
            shares.0.push(ty.hash);
        }
        Ok(shares)
    }
}

impl Drop for TypeShares {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut guard = REGISTRY.lock();
        let Some(registry) = guard.as_mut() else { return };
        for hash in self.0.drain(..) {
            if let Entry::Occupied(mut known) = registry.entry(hash.id().0) {
                known.get_mut().users -= 1;
                if known.get().users == 0 {
                    known.remove();
                }
            }
        }
    }
}

/// Number of types that are registered now.
pub fn registered_types() -> usize {
    REGISTRY.lock().as_ref().map_or(0, HashMap::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_cell::types::ValType;

    fn ty(first: u8, last: u8) -> FuncType {
        let mut hash = [7; 16];
        hash[0] = first;
        hash[15] = last;
        FuncType { params: [ValType::I32].into(), results: [].into(), hash: TypeHash(hash) }
    }

    #[test]
    fn one_id_for_two_types_is_refused_by_both_names_and_leaves_nothing_behind() {
        let (a, b) = (Arc::<str>::from("registry-a"), Arc::<str>::from("registry-b"));
        let first = TypeShares::register(&a, [&ty(201, 1)]).unwrap();
        let error = TypeShares::register(&b, [&ty(202, 1), &ty(201, 2)]).unwrap_err();
        assert_eq!((&*error.first_cell, &*error.second_cell), ("registry-a", "registry-b"));
        // The id that was free before the failed registration is free again.
        let again = TypeShares::register(&b, [&ty(202, 9)]).unwrap();
        drop((first, again));
        TypeShares::register(&b, [&ty(201, 2)]).unwrap();
    }
}
