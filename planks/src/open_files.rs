//! Who has a file open: `/proc/PID/fd` and `/proc/PID/fdinfo` (proc_pid_fd(5), proc_pid_fdinfo(5)).
//!
//! Processes of other users are not seen.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bits of a descriptor's flags that say what it is open for; 0 for reading only (`O_ACCMODE`, open(2)).
const ACCESS_MODE: u32 = 0o3;

/// A process that has this file open for writing, by name and number.
pub fn writer(file: &Metadata) -> Option<String> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let number: u32 = process.file_name().to_str()?.parse().ok()?;
        let descriptors = fs::read_dir(process.path().join("fd")).ok()?;
        let writes = descriptors.flatten().any(|descriptor| {
            // What the descriptor stands for, whatever has its name now.
            let is_it = fs::metadata(descriptor.path()).is_ok_and(|m| (m.dev(), m.ino()) == (file.dev(), file.ino()));
            is_it && is_open_for_writing(&process.path().join("fdinfo").join(descriptor.file_name()))
        });
        let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        writes.then(|| format!("{} ({number})", name().trim_end()))
    })
}

fn is_open_for_writing(info: &Path) -> bool {
    let flags = |text: String| {
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    };
    fs::read_to_string(info).ok().and_then(flags).is_some_and(|flags| flags & ACCESS_MODE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};

    #[test]
    fn a_file_that_is_open_for_writing_is_found_and_one_that_is_read_is_not() {
        let path = std::env::temp_dir().join(format!("planks-open-files-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let is_written = || writer(&fs::metadata(&path).unwrap());
        assert!(is_written().is_some_and(|by| by.contains(&std::process::id().to_string())));
        drop(file);
        let reads = File::open(&path).unwrap();
        assert_eq!(is_written(), None);
        let appends = OpenOptions::new().append(true).open(&path).unwrap();
        assert!(is_written().is_some());
        drop((reads, appends));
        // Another file of the same name is not that one.
        let old = File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "new").unwrap();
        assert_eq!(is_written(), None);
        drop(old);
        fs::remove_file(&path).unwrap();
    }
}
