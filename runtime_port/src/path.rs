//! Paths without std: components separated by `/`.
//!
//! The functions work on the text alone; no file is looked at.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{borrow::Borrow, fmt, ops::Deref};

/// A borrowed path.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Path(str);

/// An owned path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PathBuf(String);

/// One part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component<'a> {
    /// The `/` at the start of an absolute path.
    Root,
    /// `..`
    Parent,
    /// A name.
    Name(&'a str),
}

impl Path {
    /// The text as a path.
    pub fn new<S: AsRef<str> + ?Sized>(text: &S) -> &Path {
        // SAFETY: `Path` is a transparent wrapper of `str`.
        unsafe { &*(core::ptr::from_ref::<str>(text.as_ref()) as *const Path) }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path starts at the root.
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with('/')
    }

    /// The parts in order. Empty parts and `.` are left out.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = Component<'_>> {
        let names = self.0.split('/').filter(|c| !c.is_empty() && *c != ".");
        let names = names.map(|c| if c == ".." { Component::Parent } else { Component::Name(c) });
        self.is_absolute().then_some(Component::Root).into_iter().chain(names)
    }

    /// The last part, if it is a name.
    pub fn file_name(&self) -> Option<&str> {
        match self.components().next_back() {
            Some(Component::Name(name)) => Some(name),
            _ => None,
        }
    }

    /// The file name without its extension.
    pub fn file_stem(&self) -> Option<&str> {
        self.file_name().map(|n| split_extension(n).0)
    }

    /// What follows the last `.` of the file name, unless that starts the name.
    pub fn extension(&self) -> Option<&str> {
        self.file_name().and_then(|n| split_extension(n).1)
    }

    /// The path without its last part; `None` for the root and the empty path.
    pub fn parent(&self) -> Option<&Path> {
        let trimmed = self.0.trim_end_matches('/');
        if trimmed.is_empty() {
            return None;
        }
        match trimmed.rfind('/') {
            Some(0) => Some(Path::new("/")),
            Some(i) => Some(Path::new(trimmed[..i].trim_end_matches('/')))
                .map(|p| if p.0.is_empty() { Path::new("/") } else { p }),
            None => Some(Path::new("")),
        }
    }

    /// `other` seen from here: `other` itself if it is absolute.
    pub fn join<S: AsRef<str> + ?Sized>(&self, other: &S) -> PathBuf {
        let mut joined = self.to_owned();
        joined.push(other);
        joined
    }

    /// The path with `..` resolved against the names before it; `..` above the root is the root.
    pub fn normalise(&self) -> PathBuf {
        let mut parts: Vec<&str> = Vec::new();
        for component in self.components() {
            match component {
                Component::Root => {}
                Component::Name(name) => parts.push(name),
                Component::Parent if parts.last().is_some_and(|p| *p != "..") => _ = parts.pop(),
                Component::Parent if self.is_absolute() => {}
                Component::Parent => parts.push(".."),
            }
        }
        let mut text = String::from(if self.is_absolute() { "/" } else { "" });
        text.push_str(&parts.join("/"));
        PathBuf(text)
    }
}

/// Splits a file name at its last dot, unless that is the first character.
fn split_extension(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, Some(extension)),
        _ => (name, None),
    }
}

impl PathBuf {
    /// The empty path.
    pub fn new() -> PathBuf {
        PathBuf::default()
    }

    /// Appends `other`; an absolute one replaces the path.
    pub fn push<S: AsRef<str> + ?Sized>(&mut self, other: &S) {
        let other = other.as_ref();
        if other.starts_with('/') {
            self.0.clear();
        } else if !self.0.is_empty() && !self.0.ends_with('/') {
            self.0.push('/');
        }
        self.0.push_str(other);
    }

    /// The path as a string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Deref for PathBuf {
    type Target = Path;
    fn deref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Borrow<Path> for PathBuf {
    fn borrow(&self) -> &Path {
        self
    }
}

impl ToOwned for Path {
    type Owned = PathBuf;
    fn to_owned(&self) -> PathBuf {
        PathBuf(self.0.to_owned())
    }
}

impl AsRef<str> for Path {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for PathBuf {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<String> for PathBuf {
    fn from(text: String) -> PathBuf {
        PathBuf(text)
    }
}

impl From<&str> for PathBuf {
    fn from(text: &str) -> PathBuf {
        PathBuf(text.to_owned())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for PathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path() {
        let path = Path::new("/lib//cells/./counter.v2.wasm");
        assert_eq!(path.file_name(), Some("counter.v2.wasm"));
        assert_eq!((path.file_stem(), path.extension()), (Some("counter.v2"), Some("wasm")));
        assert_eq!(path.parent().unwrap().file_name(), Some("cells"));
        assert_eq!(path.components().count(), 4);
        assert_eq!(Path::new(".profile").extension(), None);
        assert_eq!(Path::new("a/..").file_name(), None);
    }

    #[test]
    fn parents_end_at_the_root() {
        assert_eq!(Path::new("/a").parent(), Some(Path::new("/")));
        assert_eq!(Path::new("a").parent(), Some(Path::new("")));
        assert_eq!(Path::new("//a").parent(), Some(Path::new("/")));
        assert_eq!(Path::new("a//b/").parent(), Some(Path::new("a")));
        assert_eq!((Path::new("/").parent(), Path::new("").parent()), (None, None));
    }

    #[test]
    fn joining_and_normalising() {
        assert_eq!(Path::new("a").join("b/c").as_str(), "a/b/c");
        assert_eq!(Path::new("a/").join("/b").as_str(), "/b");
        assert_eq!(Path::new("").join("b").as_str(), "b");
        assert_eq!(Path::new("/a/../../b/./c/").normalise().as_str(), "/b/c");
        assert_eq!(Path::new("../a/../../b").normalise().as_str(), "../../b");
        assert_eq!(Path::new("/..").normalise().as_str(), "/");
    }
}
