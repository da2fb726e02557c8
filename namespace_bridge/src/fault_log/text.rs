//! A name that needs no allocation.
#![deny(unsafe_code)]

/// Most bytes that are kept.
const LEN: usize = 47;

/// The beginning of a name.
#[derive(Clone, Copy)]
pub(super) struct ShortText {
    bytes: [u8; LEN],
    len: u8,
}

impl ShortText {
    pub(super) const EMPTY: ShortText = ShortText { bytes: [0; LEN], len: 0 };

    /// The name, cut where a character ends.
    pub(super) fn new(name: &str) -> ShortText {
        let end = (0..=name.len().min(LEN)).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        let mut text = ShortText { len: end as u8, ..ShortText::EMPTY };
        for (to, from) in text.bytes.iter_mut().zip(name.bytes().take(end)) {
            *to = from;
        }
        text
    }

    pub(super) fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(ShortText::new("log").as_str(), "log");
        let long = "ä".repeat(40);
        assert_eq!(ShortText::new(&long).as_str(), "ä".repeat(23));
    }
}
