//! The key under which this user's cell objects are sealed.
//!
//! Object files are trusted code: whoever could make one that is accepted could run anything. So `compile` and the cache
//! seal what they write with a key that only this user can read (`wasm_cell::seal`), and nothing is loaded that does not
//! bear that seal. The key is 32 random bytes in `$XDG_STATE_HOME/planks/seal.key` (else `~/.local/state/planks/seal.key`), made
//! on first use; `--seal-key FILE` names another. Removing it makes all objects sealed with it worthless: they are compiled
//! again.

use crate::failure::{Failure, Kind};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a key.
const BYTES: usize = 32;

/// A key. Not shown by `Debug`.
#[derive(Clone)]
pub struct SealKey([u8; BYTES]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// The key in `file`, else the user's. A file that does not exist is made.
    ///
    /// # Errors
    /// The file cannot be read or made, is no key, or others can read or write it.
    pub fn load(file: Option<&Path>) -> Result<SealKey, Failure> {
        let path = match file {
            Some(path) => path.to_path_buf(),
            None => default_file()?,
        };
        match read(&path) {
            Ok(Some(key)) => Ok(key),
            Ok(None) => make(&path).and_then(|()| read(&path)).and_then(|key| {
                key.ok_or_else(|| Failure::file(&path.display().to_string(), "the key vanished while it was made"))
            }),
            Err(e) => Err(e),
        }
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// The key for objects that stand for one `name` and no other.
    pub fn derive(&self, name: &[u8; 32]) -> [u8; BYTES] {
        *blake3::keyed_hash(&self.0, name).as_bytes()
    }

    /// Seals an object.
    pub fn seal(&self, elf: &mut [u8]) -> Result<(), Failure> {
        wasm_cell::seal::seal(elf, &self.0).map_err(|e| Failure::new(Kind::System, e.to_string()))
    }
}

/// Refuses an object file that this user has not sealed. What is no cell object passes: a native object says nothing about
/// where it comes from, and whoever loads it by its name vouches for it, as for any program.
pub fn check_object(path: &str, elf: &[u8], key: Option<&Path>) -> Result<(), Failure> {
    const METADATA: &[u8] = b".planks.metadata";
    let is_cell = elf.windows(METADATA.len()).any(|w| w == METADATA);
    if !is_cell {
        return Ok(());
    }
    let key = SealKey::load(key)?;
    wasm_cell::seal::verify(elf, key.bytes()).map_err(|e| {
        let advice = "object files are trusted code: compile the module again here, or name the key with --seal-key";
        Failure::new(Kind::Invalid, format!("{path}: {e} ({advice})"))
    })
}

fn default_file() -> Result<PathBuf, Failure> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = var("XDG_STATE_HOME").or_else(|| Some(var("HOME")?.join(".local/state")));
    let state = state.ok_or_else(|| {
        Failure::new(Kind::System, "no place for the key that seals objects: set HOME, or name a file with --seal-key")
    })?;
    Ok(state.join("planks/seal.key"))
}

fn read(path: &Path) -> Result<Option<SealKey>, Failure> {
    let shown = path.display().to_string();
    let failed = |e: std::io::Error| Failure::file(&shown, e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        let why = format!("others can read or write this key (mode {:o}): `chmod 600` it, or remove it", mode & 0o777);
        return Err(Failure::file(&shown, why));
    }
    let mut bytes = Vec::new();
    file.take(BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.try_into() {
        Ok(key) => Ok(Some(SealKey(key))),
        Err(_) => Err(Failure::file(&shown, format!("no key of {BYTES} bytes; remove the file to get a new one"))),
    }
}

/// Makes a key, unless somebody else does so meanwhile.
fn make(path: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::file(&path.display().to_string(), e);
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    let mut key = [0; BYTES];
    getrandom::fill(&mut key).map_err(|e| Failure::new(Kind::System, format!("no random bytes for a key: {e}")))?;
    let part = crate::atomic_file::part_name(path);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
        // A link, unlike a rename, does not replace the key that another process has made.
        .and_then(|()| match std::fs::hard_link(&part, path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let _ = std::fs::remove_file(&part);
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("planks-key-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let file = dir("once").join("deep/seal.key");
        let keys: Vec<[u8; 32]> = std::thread::scope(|s| {
            let tasks: Vec<_> = (0..8).map(|_| s.spawn(|| *SealKey::load(Some(&file)).unwrap().bytes())).collect();
            tasks.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|k| *k == keys[0] && *k != [0; 32]));
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_cut_is_refused() {
        let file = dir("bad").join("seal.key");
        SealKey::load(Some(&file)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SealKey::load(Some(&file)).unwrap_err().message.contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, [1; 31]).unwrap();
        assert!(SealKey::load(Some(&file)).unwrap_err().message.contains("32 bytes"));
    }
}
