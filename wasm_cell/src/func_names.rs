//! Names of functions, from the name section: all in one string, so that reading thousands of them allocates twice.

use crate::rows::Rows;
use alloc::{string::String, vec::Vec};
use bincode::{Decode, Encode};

/// Names by function index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct FuncNames {
    /// Function indices, ascending.
    indices: Rows<u32>,
    /// Per index: the end of its name in `text`, where the next one's starts.
    ends: Rows<u32>,
    text: String,
}

impl FuncNames {
    /// The first of each function's names; `names` in any order.
    pub(crate) fn of(mut names: Vec<(u32, &str)>) -> FuncNames {
        names.sort_by_key(|(index, _)| *index);
        names.dedup_by_key(|(index, _)| *index);
        let mut all = FuncNames::default();
        for (index, name) in names {
            all.indices.push(index);
            all.text.push_str(name);
            all.ends.push(all.text.len() as u32);
        }
        all
    }

    /// Number of functions that have a name.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether no function has one.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Name of a function.
    pub fn get(&self, index: u32) -> Option<&str> {
        self.at(self.indices.binary_search(&index).ok()?)
    }

    /// Indices and names, by index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.indices.iter().enumerate().map(|(i, index)| (*index, self.at(i).unwrap_or_default()))
    }

    fn at(&self, i: usize) -> Option<&str> {
        let start = i.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.text.get(start as usize..*self.ends.get(i)? as usize)
    }

    /// Whether indices ascend and stay below `functions`, and every name is one.
    pub(crate) fn are_sound(&self, functions: usize) -> bool {
        self.indices.len() == self.ends.len()
            && self.indices.is_sorted_by(|a, b| a < b)
            && self.indices.last().is_none_or(|index| (*index as usize) < functions)
            && self.ends.is_sorted()
            && self.ends.iter().all(|end| self.text.is_char_boundary(*end as usize))
            && self.ends.last().map_or(0, |end| *end as usize) == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_first_name_of_each_function_is_found() {
        let names = FuncNames::of(vec![(7, "é"), (2, ""), (7, "other"), (3, "three")]);
        assert_eq!(names.iter().collect::<Vec<_>>(), [(2, ""), (3, "three"), (7, "é")]);
        assert_eq!((names.get(7), names.get(2), names.get(4)), (Some("é"), Some(""), None));
        assert!(names.are_sound(8) && !names.are_sound(7));
        assert_eq!(FuncNames::default().get(0), None);
        assert!(FuncNames::default().are_sound(0));
    }

    #[test]
    fn what_is_not_sound_is_noticed_and_does_no_harm() {
        let sound = FuncNames::of(vec![(0, "ab"), (1, "é")]);
        let damaged: [fn(&mut FuncNames); 5] =
            [|n| n.indices[1] = 0, |n| n.ends[1] = 3, |n| n.ends[0] = 9, |n| n.text.push('x'), |n| n.ends.truncate(1)];
        for damage in damaged {
            let mut names = sound.clone();
            damage(&mut names);
            assert!(!names.are_sound(2));
            assert_eq!(names.iter().count(), 2);
        }
    }
}
