//! An order for things that need each other.
#![deny(unsafe_code)]

use alloc::{vec, vec::Vec};

/// The numbers below `count`, each after those that it needs, as far as circles allow: `need` gives what a number needs, one after the other.
pub(crate) fn after_needs(count: usize, need: impl Fn(usize, usize) -> Option<usize>) -> Vec<usize> {
    let mut order = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    for root in 0..count {
        // A stack of numbers, each with how many of its needs were looked at.
        let mut path = Vec::new();
        if !core::mem::replace(&mut seen[root], true) {
            path.push((root, 0));
        }
        while let Some((number, at)) = path.last_mut() {
            match need(*number, *at) {
                Some(next) => {
                    *at += 1;
                    if seen.get_mut(next).is_some_and(|seen| !core::mem::replace(seen, true)) {
                        path.push((next, 0));
                    }
                }
                None => {
                    order.push(*number);
                    path.pop();
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_circles_end() {
        let needs: [&[usize]; 4] = [&[1, 2], &[3], &[0], &[]];
        assert_eq!(after_needs(4, |n, at| needs[n].get(at).copied()), [3, 1, 2, 0]);
        assert_eq!(after_needs(2, |n, at| (at == 0).then_some(1 - n)), [1, 0]);
        assert!(after_needs(0, |_, _| None).is_empty());
    }
}
