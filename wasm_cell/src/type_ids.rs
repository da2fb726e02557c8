//! The ids that the code of one module uses for its types: different for different types.
//!
//! Ids have 31 bits, so two types of a large system share one now and then. The salts that the system has found for such
//! types come with the options; what collides inside the module gets a salt here.

use crate::error::CompileError;
use crate::types::{FuncType, SaltedId, TypeHash, TypeId};
use alloc::boxed::Box;
use alloc::vec::Vec;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// Ids for `types`, by the given salts as far as these keep the types apart.
pub(crate) fn assign(types: &[FuncType], salts: &[(TypeHash, u8)]) -> Result<Box<[SaltedId]>, CompileError> {
    let plain: Box<[SaltedId]> = if salts.is_empty() {
        types.iter().map(|t| t.hash.salted(0)).collect()
    } else {
        let salts: HashMap<TypeHash, u8> = salts.iter().copied().collect();
        types.iter().map(|t| t.hash.salted(salts.get(&t.hash).copied().unwrap_or(0))).collect()
    };
    if shared(types, &plain).is_none() { Ok(plain) } else { separate(types, &plain) }
}

/// An id that stands for two of the types, or for one of two ids of a type; `None` when ids and types are one to one.
pub(crate) fn shared(types: &[FuncType], ids: &[SaltedId]) -> Option<TypeId> {
    if types.len() < 2 {
        return None;
    }
    let mut pairs: Vec<(TypeHash, TypeId)> = types.iter().zip(ids).map(|(t, i)| (t.hash, i.id)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let twice = pairs.windows(2).find_map(|w| (w[0].0 == w[1].0).then_some(w[1].1));
    pairs.sort_unstable_by_key(|p| p.1);
    twice.or_else(|| pairs.windows(2).find_map(|w| (w[0].1 == w[1].1).then_some(w[0].1)))
}

/// Gives the later of two types with one id the next free salt.
fn separate(types: &[FuncType], wanted: &[SaltedId]) -> Result<Box<[SaltedId]>, CompileError> {
    let mut taken: HashMap<TypeId, TypeHash> = HashMap::new();
    let mut known: HashMap<TypeHash, SaltedId> = HashMap::new();
    let mut ids = Vec::with_capacity(types.len());
    for (ty, wanted) in types.iter().zip(wanted) {
        let id = match known.entry(ty.hash) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let mut candidates = core::iter::once(*wanted).chain((0..=u8::MAX).map(|salt| ty.hash.salted(salt)));
                let free = candidates.find(|c| !taken.contains_key(&c.id)).ok_or(CompileError::Limit {
                    what: "function types that share their ids",
                    value: taken.len() as u64 + 1,
                    limit: taken.len() as u64,
                })?;
                taken.insert(free.id, ty.hash);
                *place.insert(free)
            }
        };
        ids.push(id);
    }
    Ok(ids.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A type whose id of salt 0 is told by `low`.
    fn ty(low: u8, last: u8) -> FuncType {
        let mut hash = [7; 16];
        hash[0] = low;
        hash[15] = last;
        FuncType { params: Box::new([]), results: Box::new([]), hash: TypeHash(hash) }
    }

    fn salts(types: &[FuncType], given: &[(TypeHash, u8)]) -> Vec<u8> {
        let ids = assign(types, given).unwrap();
        assert!(types.iter().zip(&ids).all(|(t, id)| *id == t.hash.salted(id.salt)));
        assert_eq!(shared(types, &ids), None);
        ids.iter().map(|id| id.salt).collect()
    }

    #[test]
    fn types_that_do_not_collide_have_the_salts_that_are_given() {
        let types = [ty(1, 1), ty(2, 1), ty(1, 1)];
        assert_eq!(salts(&types, &[]), [0, 0, 0]);
        assert_eq!(salts(&types, &[(types[0].hash, 4), (ty(9, 9).hash, 1)]), [4, 0, 4]);
    }

    #[test]
    fn the_later_of_two_types_with_one_id_gets_another_salt() {
        let types = [ty(1, 1), ty(1, 2), ty(1, 1), ty(1, 3), ty(1, 2)];
        assert_eq!(salts(&types, &[]), [0, 1, 0, 1, 1]);
        assert_eq!(salts(&types, &[(types[0].hash, 1), (types[3].hash, 2)]), [1, 0, 1, 2, 0]);
    }

    #[test]
    fn an_id_for_two_types_and_two_ids_for_a_type_are_found() {
        let types = [ty(1, 1), ty(1, 2), ty(3, 1)];
        let ids =
            |salts: [u8; 3]| -> Vec<SaltedId> { types.iter().zip(salts).map(|(t, s)| t.hash.salted(s)).collect() };
        assert_eq!(shared(&types, &ids([0, 0, 0])), Some(types[0].hash.id(0)));
        assert_eq!(shared(&types, &ids([0, 1, 0])), None);
        let same = [ty(1, 1), ty(2, 2), ty(1, 1)];
        let two = [same[0].hash.salted(0), same[1].hash.salted(0), same[2].hash.salted(1)];
        assert!(shared(&same, &two).is_some());
    }
}
