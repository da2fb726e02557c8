//! Packs a boot archive: cpio in the "new ASCII" format that `nano_core::archive` reads.

use crate::symbols;

/// An archive under construction.
#[derive(Debug, Default, Clone)]
pub struct Builder {
    bytes: Vec<u8>,
    inode: u32,
}

/// `st_mode` of a regular file that everybody may read.
const FILE_MODE: u32 = 0o100_644;

impl Builder {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    ///
    /// # Panics
    /// The name or the content is longer than 4 GiB, which the format cannot say.
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.inode += 1;
        self.entry(name, FILE_MODE, content);
        self
    }

    /// Adds the names of the kernel's functions, if the image has them: its reports use them.
    pub fn symbols(self, image: &std::path::Path) -> Self {
        // An image that cannot be read is reported by the emulator.
        match std::fs::read(image).ok().and_then(|image| symbols::table(&image)) {
            Some(table) => self.file(symbols::FILE, table.as_bytes()),
            None => self,
        }
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let length = |n: usize| u32::try_from(n).expect("cpio sizes have 32 bits");
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size with its zero, check
        let numbers = [self.inode, mode, 0, 0, 1, 0, length(content.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
        self.bytes.extend(b"070701");
        self.bytes.extend(numbers.iter().flat_map(|n| format!("{n:08x}").into_bytes()));
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nano_core::archive::Archive;

    #[test]
    fn the_kernel_reads_what_is_packed() {
        let bytes = Builder::new().file("a.wasm", b"12345").file("empty", b"").file("b", b"abcd").finish();
        let archive = Archive::new(&bytes).unwrap();
        assert_eq!(archive.file("a.wasm"), Some(&b"12345"[..]));
        assert_eq!(archive.file("empty"), Some(&b""[..]));
        assert_eq!(archive.file("b"), Some(&b"abcd"[..]));
        assert_eq!(archive.entries().count(), 3);
    }

    #[test]
    fn an_archive_without_files_is_an_archive() {
        let bytes = Builder::new().finish();
        assert_eq!(Archive::new(&bytes).unwrap().entries().count(), 0);
    }
}
