//! The list of assertions that a later proposal made obsolete.
//!
//! One entry a line: `PATH:LINE REASON`; `#` starts a comment. An entry whose assertion passes, or that names no
//! assertion, is an error: the list stays as short as it can be.

use std::collections::BTreeMap;

/// Excluded assertions: reasons by file and line.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    entries: BTreeMap<String, BTreeMap<usize, String>>,
}

impl Exclusions {
    /// The list for the built-in suite.
    pub fn builtin() -> Result<Exclusions, String> {
        Exclusions::parse(include_str!("../../../tests/testsuite_exclusions.txt"))
    }

    /// Reads a list.
    pub fn parse(text: &str) -> Result<Exclusions, String> {
        let mut entries: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || format!("exclusion list, line {}: expected `PATH:LINE REASON`, found `{line}`", i + 1);
            let (place, reason) = line.split_once(char::is_whitespace).ok_or_else(malformed)?;
            let (path, at) = place.rsplit_once(':').ok_or_else(malformed)?;
            let at: usize = at.parse().map_err(|_| malformed())?;
            if entries.entry(path.to_string()).or_default().insert(at, reason.trim().to_string()).is_some() {
                return Err(format!("exclusion list, line {}: `{place}` is listed twice", i + 1));
            }
        }
        Ok(Exclusions { entries })
    }

    /// The excluded lines of a file.
    pub fn lines(&self, file: &str) -> BTreeMap<usize, String> {
        self.entries.get(file).cloned().unwrap_or_default()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_file_and_line() {
        let list = Exclusions::parse("# why\n\na/b.wast:12  superseded by multi-memory\na/b.wast:40 x\n").unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list.lines("a/b.wast")[&12], "superseded by multi-memory");
        assert!(list.lines("a/c.wast").is_empty());
    }

    #[test]
    fn malformed_and_double_entries_are_errors_with_their_line() {
        assert!(Exclusions::parse("a.wast:1 r\nno colon here").unwrap_err().contains("line 2"));
        assert!(Exclusions::parse("a.wast:x r").is_err());
        assert!(Exclusions::parse("a.wast:1 r\na.wast:1 s").unwrap_err().contains("twice"));
    }

    #[test]
    fn the_builtin_list_is_well_formed() {
        Exclusions::builtin().unwrap();
    }
}
