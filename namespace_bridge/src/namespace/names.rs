//! A map of names whose values have places: what stands at many places can be exchanged without looking up a name.
//!
//! A place stays a name's own until the name is removed. It may be vacant: then the name is there for nobody, but something can be put at its place
//! without taking memory. [`changes`](Names::changes) tells whether anything is otherwise than it was when somebody looked.
#![deny(unsafe_code)]

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::ops::Bound::{Included, Unbounded};

/// Where the value of a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// The map.
#[derive(Debug)]
pub(super) struct Names<T> {
    places: BTreeMap<Arc<str>, usize>,
    /// `None`: vacant, or nobody's.
    values: Vec<Option<T>>,
    /// Places that are nobody's. There is room for all, so removing takes no memory.
    free: Vec<usize>,
    len: usize,
    changes: u64,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names { places: BTreeMap::new(), values: Vec::new(), free: Vec::new(), len: 0, changes: 0 }
    }
}

impl<T> Names<T> {
    /// The value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.values.get(*self.places.get(name)?)?.as_ref()
    }

    /// Whether a name has a value.
    pub(super) fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Number of names that have a value.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A number that every change changes.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Names and values, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        self.places.iter().filter_map(|(name, at)| Some((name, self.values.get(*at)?.as_ref()?)))
    }

    /// The names.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.iter().map(|(name, _)| name)
    }

    /// The values, by name.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    /// Those whose name starts with `prefix`, by name.
    pub(super) fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a T)> {
        let from = self.places.range::<str, _>((Included(prefix), Unbounded));
        let those = from.take_while(move |(name, _)| name.starts_with(prefix));
        those.filter_map(|(name, at)| Some((name, self.values.get(*at)?.as_ref()?)))
    }

    /// Gives a name a value; returns the one it had. Nothing has changed if memory ends on the way.
    pub(super) fn insert(&mut self, name: Arc<str>, value: T) -> Option<T> {
        let mut value = Some(value);
        let place = self.place_of(name);
        self.exchange(place, &mut value);
        value
    }

    /// Takes a name out; returns its value. Takes no memory.
    pub(super) fn remove(&mut self, name: &str) -> Option<T> {
        let at = self.places.remove(name)?;
        self.free.push(at);
        let value = self.values.get_mut(at)?.take();
        self.changes += 1;
        self.len -= usize::from(value.is_some());
        value
    }

    /// The place of a name, if it has one.
    pub(super) fn find(&self, name: &str) -> Option<Place> {
        self.places.get(name).copied().map(Place)
    }

    /// The place of a name, vacant if it had none.
    pub(super) fn place_of(&mut self, name: Arc<str>) -> Place {
        if let Some(at) = self.places.get(&name) {
            return Place(*at);
        }
        let at = match self.free.last() {
            Some(at) => *at,
            None => {
                self.values.reserve(1);
                self.free.reserve(self.values.len() + 1);
                self.values.len()
            }
        };
        self.places.insert(name, at);
        if self.free.pop().is_none() {
            self.values.push(None);
        }
        Place(at)
    }

    /// Exchanges what stands at a place. Takes no memory and frees none.
    pub(super) fn exchange(&mut self, place: Place, value: &mut Option<T>) {
        let Some(at) = self.values.get_mut(place.0) else { return };
        self.len -= usize::from(at.is_some());
        self.len += usize::from(value.is_some());
        self.changes += 1;
        core::mem::swap(at, value);
    }

    /// Takes names out that have no value.
    pub(super) fn forget_vacant<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>) {
        for name in names {
            if !self.contains_key(name) {
                self.remove(name);
            }
        }
    }
}

/// Changes of a map that are not made yet.
pub(super) struct Draft<'a, T> {
    names: &'a Names<T>,
    changed: BTreeMap<Arc<str>, Option<T>>,
}

impl<'a, T> Draft<'a, T> {
    /// No changes.
    pub(super) fn new(names: &'a Names<T>) -> Draft<'a, T> {
        Draft { names, changed: BTreeMap::new() }
    }

    /// The value of a name after the changes.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.changed.get(name).map_or_else(|| self.names.get(name), Option::as_ref)
    }

    /// Names and values after the changes, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        let as_before = self.names.iter().filter(|(name, _)| !self.changed.contains_key(*name));
        as_before.chain(self.changed.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))))
    }

    /// Gives a name a value.
    pub(super) fn insert(&mut self, name: Arc<str>, value: T) {
        self.changed.insert(name, Some(value));
    }

    /// Takes a name out.
    pub(super) fn remove(&mut self, name: &Arc<str>) {
        self.changed.insert(name.clone(), None);
    }

    /// The changes: `None` for names that go.
    pub(super) fn finish(self) -> BTreeMap<Arc<str>, Option<T>> {
        self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[(&str, u32)]) -> Names<u32> {
        let mut names = Names::default();
        for (name, value) in of {
            names.insert((*name).into(), *value);
        }
        names
    }

    #[test]
    fn values_are_found_replaced_and_removed_by_name() {
        let mut names = names(&[("b", 1), ("a", 2), ("ab", 3)]);
        assert_eq!((names.get("a"), names.get("c"), names.len()), (Some(&2), None, 3));
        assert_eq!(names.insert("a".into(), 4), Some(2));
        assert_eq!(names.remove("b"), Some(1));
        assert_eq!(names.remove("b"), None);
        let all: Vec<(&str, u32)> = names.iter().map(|(n, v)| (&**n, *v)).collect();
        assert_eq!(all, [("a", 4), ("ab", 3)]);
        assert_eq!(names.starting_with("ab").map(|(_, v)| *v).collect::<Vec<_>>(), [3]);
        names.insert("c".into(), 5);
        assert_eq!(names.values.len(), 3, "the place of what went is taken again");
    }

    #[test]
    fn a_vacant_place_is_there_for_nobody_until_something_is_put_at_it() {
        let mut names = names(&[("a", 1)]);
        let (old, new) = (names.find("a").unwrap(), names.place_of("b".into()));
        assert_eq!((names.len(), names.get("b"), names.keys().count()), (1, None, 1));
        let before = names.changes();
        let (mut gone, mut come) = (None, Some(2));
        names.exchange(old, &mut gone);
        names.exchange(new, &mut come);
        assert_eq!((gone, come, names.len()), (Some(1), None, 1));
        assert_ne!(names.changes(), before);
        names.forget_vacant(["a".into(), "b".into()].iter());
        assert_eq!((names.find("a"), names.get("b")), (None, Some(&2)));
    }

    #[test]
    fn a_draft_shows_its_changes_and_makes_none() {
        let names = names(&[("a", 1), ("b", 2)]);
        let mut draft = Draft::new(&names);
        draft.remove(&"a".into());
        draft.insert("c".into(), 3);
        assert_eq!((draft.get("a"), draft.get("b"), draft.get("c")), (None, Some(&2), Some(&3)));
        assert_eq!((names.get("a"), names.len()), (Some(&1), 2));
        assert_eq!(draft.finish().into_values().collect::<Vec<_>>(), [None, Some(3)]);
    }
}
