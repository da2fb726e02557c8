//! Ids of function types: in the whole system one id stands for one type, and one type has one id.
//!
//! Compiled code compares 31-bit ids only (D4), so before any code of a module can run, the registry proves that its ids
//! mean the same types as everybody else's. Two types whose ids collide get different salts: the one that came later gets
//! the first salt whose id is free, and keeps it until its last user is gone. There is one registry, because function
//! references pass between namespaces.
//!
//! A user *claims* its types in one step, so tasks that load at the same time agree. What it gets may differ from what its
//! code was compiled with; then the code is compiled again, while the claim keeps the new ids for it.
#![deny(unsafe_code)]

use crate::error::TypeCollision;
use alloc::{string::ToString, sync::Arc, vec::Vec};
use core::iter::once;
use hashbrown::{HashMap, hash_map::Entry};
use spin::Mutex;
use wasm_cell::types::{FuncType, SaltedId, TypeHash, TypeId};

#[derive(Default)]
struct Registry {
    types: HashMap<TypeId, Known>,
    /// Salts of those types whose salt is not 0.
    salts: HashMap<TypeHash, u8>,
}

struct Known {
    hash: TypeHash,
    salt: u8,
    first_cell: Arc<str>,
    users: usize,
}

static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

impl Registry {
    /// The salt of a type: the one it has, else `preferred` if the id is free, else the first that is.
    fn salt(&self, hash: TypeHash, preferred: u8) -> Option<u8> {
        let has = |salt: u8| self.types.get(&hash.id(salt)).is_some_and(|k| k.hash == hash);
        match self.salts.get(&hash) {
            Some(salt) => Some(*salt),
            None if has(0) => Some(0),
            None => once(preferred).chain(0..=u8::MAX).find(|s| !self.types.contains_key(&hash.id(*s))),
        }
    }

    fn add(&mut self, user: &Arc<str>, hash: TypeHash, SaltedId { id, salt }: SaltedId) {
        match self.types.entry(id) {
            Entry::Occupied(mut known) => known.get_mut().users += 1,
            Entry::Vacant(place) => {
                place.insert(Known { hash, salt, first_cell: user.clone(), users: 1 });
                if salt != 0 {
                    self.salts.insert(hash, salt);
                }
            }
        }
    }

    fn remove(&mut self, id: TypeId) {
        let Entry::Occupied(mut known) = self.types.entry(id) else { return };
        known.get_mut().users -= 1;
        if known.get().users == 0 {
            let known = known.remove();
            if known.salt != 0 {
                self.salts.remove(&known.hash);
            }
        }
    }

    /// Why code that has the id `compiled` for a type does not fit, when `here` is the type's id.
    fn collision(&self, user: &Arc<str>, ty: &FuncType, compiled: TypeId, here: TypeId) -> TypeCollision {
        let (cell, ty_text, id, salts) = (user.clone(), ty.to_string(), compiled, Vec::new());
        let first_cell = |id| self.types.get(&id).map_or_else(|| user.clone(), |k| k.first_cell.clone());
        match self.types.get(&compiled) {
            Some(other) if other.hash != ty.hash => {
                TypeCollision::Taken { cell, ty: ty_text, id, holder: other.first_cell.clone(), salts }
            }
            _ => TypeCollision::Renamed { cell, ty: ty_text, id, here, holder: first_cell(here), salts },
        }
    }

    /// The salts among these ids' that are not 0.
    fn salts_of(&self, ids: &[TypeId]) -> Vec<(TypeHash, u8)> {
        let known = ids.iter().filter_map(|id| self.types.get(id)).filter(|k| k.salt != 0);
        let mut salts: Vec<_> = known.map(|k| (k.hash, k.salt)).collect();
        salts.sort_unstable();
        salts.dedup();
        salts
    }
}

/// A share of the registry's entries; gives them back when dropped.
#[derive(Debug, Default)]
pub struct TypeShares(Vec<TypeId>);

impl TypeShares {
    /// Registers function types for a user: a cell, or a symbol. Each comes with the id that the user's code has for it; it
    /// gets that if it is free and the type has no other. If some type gets another, the collision says why, and the shares
    /// are what the code has to be compiled for.
    ///
    /// # Errors
    /// [`TypeCollision::Exhausted`]; then nothing is registered.
    pub fn claim<'a>(
        user: &Arc<str>,
        types: impl IntoIterator<Item = (&'a FuncType, SaltedId)>,
    ) -> Result<(TypeShares, Option<TypeCollision>), TypeCollision> {
        let types = types.into_iter();
        let mut shares = TypeShares(Vec::with_capacity(types.size_hint().0));
        let mut guard = REGISTRY.lock();
        let registry = guard.get_or_insert_default();
        let mut collision = None;
        for (ty, compiled) in types {
            let Some(salt) = registry.salt(ty.hash, compiled.salt) else {
                drop(guard);
                drop(shares);
                return Err(TypeCollision::Exhausted { cell: user.clone(), ty: ty.to_string() });
            };
            let given = ty.hash.salted(salt);
            if given.id != compiled.id && collision.is_none() {
                collision = Some(registry.collision(user, ty, compiled.id, given.id));
            }
            registry.add(user, ty.hash, given);
            shares.0.push(given.id);
        }
        if let Some(TypeCollision::Taken { salts, .. } | TypeCollision::Renamed { salts, .. }) = &mut collision {
            *salts = registry.salts_of(&shares.0);
        }
        Ok((shares, collision))
    }

    /// Registers one type for a user that is not compiled yet. Gives its id.
    ///
    /// # Errors
    /// [`TypeCollision::Exhausted`].
    pub fn assign(user: &Arc<str>, ty: &FuncType) -> Result<(TypeId, TypeShares), TypeCollision> {
        let plain = ty.hash.salted(0);
        let (shares, _) = TypeShares::claim(user, once((ty, plain)))?;
        Ok((shares.0.first().copied().unwrap_or(plain.id), shares))
    }

    /// Another share of a type that is registered under this id.
    pub(crate) fn again(id: TypeId) -> TypeShares {
        let mut guard = REGISTRY.lock();
        let Some(known) = guard.as_mut().and_then(|r| r.types.get_mut(&id)) else { return TypeShares::default() };
        known.users += 1;
        TypeShares([id].into())
    }

    /// The ids of the types, in the order in which they were registered.
    pub fn ids(&self) -> &[TypeId] {
        &self.0
    }

    /// Those salts of the types that are not 0, as `CompileOptions::type_salts` takes them.
    pub fn salts(&self) -> Vec<(TypeHash, u8)> {
        REGISTRY.lock().as_ref().map_or_else(Vec::new, |r| r.salts_of(&self.0))
    }
}

impl Drop for TypeShares {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut guard = REGISTRY.lock();
        let Some(registry) = guard.as_mut() else { return };
        self.0.drain(..).for_each(|id| registry.remove(id));
    }
}

/// The id of a type, if it is registered now.
pub fn registered_id(hash: TypeHash) -> Option<TypeId> {
    let guard = REGISTRY.lock();
    let registry = guard.as_ref()?;
    let id = hash.id(registry.salts.get(&hash).copied().unwrap_or(0));
    registry.types.get(&id).filter(|k| k.hash == hash).map(|_| id)
}

/// Number of types that are registered now.
pub fn registered_types() -> usize {
    REGISTRY.lock().as_ref().map_or(0, |r| r.types.len())
}

/// All salts that are not 0 now, as `CompileOptions::type_salts` takes them: objects compiled with them fit for what is
/// loaded at this moment.
pub fn salts() -> Vec<(TypeHash, u8)> {
    REGISTRY.lock().as_ref().map_or_else(Vec::new, |r| r.salts.iter().map(|(h, s)| (*h, *s)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use wasm_cell::types::ValType;

    /// A type whose id of salt 0 is told by `low`.
    fn ty(low: u8, last: u8) -> FuncType {
        let mut hash = [7; 16];
        hash[0] = low;
        hash[15] = last;
        FuncType { params: [ValType::I32].into(), results: [].into(), hash: TypeHash(hash) }
    }

    fn claim(user: &str, types: &[(&FuncType, u8)]) -> (TypeShares, Option<TypeCollision>) {
        TypeShares::claim(&user.into(), types.iter().map(|(t, salt)| (*t, t.hash.salted(*salt)))).unwrap()
    }

    #[test]
    fn the_type_that_comes_second_gets_the_next_salt_and_keeps_it_as_long_as_it_lives() {
        let (a, b, c) = (ty(201, 1), ty(201, 2), ty(201, 3));
        let (first, none) = claim("a", &[(&a, 0)]);
        assert_eq!((none, first.ids()), (None, &[a.hash.id(0)][..]));
        let (second, collision) = claim("b", &[(&ty(202, 1), 0), (&b, 0)]);
        assert_eq!(second.ids(), [ty(202, 1).hash.id(0), b.hash.id(1)]);
        assert_eq!(second.salts(), [(b.hash, 1)]);
        let Some(TypeCollision::Taken { cell, id, holder, salts, .. }) = collision else { panic!("{collision:?}") };
        assert_eq!((&*cell, id, &*holder, salts), ("b", a.hash.id(0), "a", vec![(b.hash, 1)]));
        drop(first);
        // `b` keeps its salt though the id is free now.
        let (third, collision) = claim("c", &[(&b, 0)]);
        assert_eq!(third.ids(), [b.hash.id(1)]);
        let Some(TypeCollision::Renamed { here, holder, .. }) = collision else { panic!("{collision:?}") };
        assert_eq!((here, &*holder), (b.hash.id(1), "b"));
        assert_eq!(claim("c", &[(&b, 1), (&c, 0)]).1, None);
        drop((second, third));
        assert_eq!(claim("d", &[(&b, 0)]).1, None);
    }

    #[test]
    fn code_keeps_the_ids_it_was_compiled_with_while_they_are_free() {
        let (a, b) = (ty(203, 1), ty(203, 2));
        let (salted, collision) = claim("a", &[(&a, 3)]);
        assert_eq!((salted.ids(), collision), (&[a.hash.id(3)][..], None));
        assert!(salts().contains(&(a.hash, 3)));
        let (plain, collision) = claim("b", &[(&b, 0)]);
        assert_eq!((plain.ids(), collision), (&[b.hash.id(0)][..], None));
        let (again, collision) = claim("c", &[(&a, 0)]);
        assert_eq!(again.ids(), salted.ids());
        assert!(matches!(collision, Some(TypeCollision::Taken { .. })), "{collision:?}");
        drop((salted, again));
        assert!(!salts().contains(&(a.hash, 3)));
    }

    #[test]
    fn types_that_are_claimed_together_are_told_apart() {
        let (a, b) = (ty(204, 1), ty(204, 2));
        let (shares, collision) = claim("a", &[(&a, 0), (&b, 0), (&a, 0), (&b, 0)]);
        assert_eq!(shares.ids(), [a.hash.id(0), b.hash.id(1), a.hash.id(0), b.hash.id(1)]);
        assert!(collision.is_some());
        assert_eq!(shares.salts(), [(b.hash, 1)]);
    }

    #[test]
    fn a_type_without_a_free_id_is_refused_and_leaves_nothing_behind() {
        let wanted = ty(205, 1);
        // Types whose ids are all those that `wanted` could have.
        let others: Vec<FuncType> = (0..=u8::MAX)
            .map(|salt| {
                let mut hash = [9; 16];
                hash[..4].copy_from_slice(&wanted.hash.id(salt).0.to_le_bytes());
                FuncType { hash: TypeHash(hash), ..wanted.clone() }
            })
            .collect();
        let all: Vec<_> = others.iter().map(|t| (t, 0)).collect();
        let (held, collision) = claim("others", &all);
        assert_eq!(collision, None);
        let fresh = ty(206, 1);
        let types = [&fresh, &wanted].map(|t| (t, t.hash.salted(0)));
        let error = TypeShares::claim(&"wanted".into(), types).unwrap_err();
        assert!(matches!(error, TypeCollision::Exhausted { .. }), "{error}");
        assert!(!REGISTRY.lock().as_ref().unwrap().types.contains_key(&fresh.hash.id(0)));
        drop(held);
        assert_eq!(TypeShares::assign(&"wanted".into(), &wanted).unwrap().0, wanted.hash.id(0));
    }
}
