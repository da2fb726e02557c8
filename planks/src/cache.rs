//! Compiled modules in a directory, so that the next process starts without compiling.
//!
//! An entry is the cell object of one module under one set of settings. Its name is a hash over both; its seal is made
//! with a key derived from that name, so an entry that was damaged, forged, or copied to another name is told before
//! anything in it is looked at (`wasm_cell::seal`). Such an entry costs a compilation and is replaced, as is one of
//! another version of this program.
//!
//! Entries are written beside their place and renamed: processes that share the directory see whole entries or none,
//! and the last writer wins with equal content. Nothing is ever removed; files can be deleted at any time.

use crate::atomic_file;
use crate::failure::{Failure, Kind};
use crate::seal_key::SealKey;
use namespace_bridge::{
    CellModule, LoadError, LoadOptions, compile_module, compile_module_reusing, compile_object_reusing, compiler,
};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wasm_cell::{CompileOptions, Loadable, reuse::ReuseReport, seal};

/// A directory of compiled modules.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    key: SealKey,
}

/// Where a module came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the cache; nothing was compiled.
    Cached,
    /// Compiled, and kept.
    Compiled,
    /// Compiled although there was an entry: why that was not used.
    Replaced(String),
    /// Compiled, and not kept: why.
    NotKept(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Cached => f.write_str("from the cache"),
            Origin::Compiled => f.write_str("compiled"),
            Origin::Replaced(why) => write!(f, "compiled, the cached object was not usable: {why}"),
            Origin::NotKept(why) => write!(f, "compiled, not cached: {why}"),
        }
    }
}

impl Cache {
    /// The cache in `dir`, which is made if there is none. `key`: file of the key, else the user's.
    ///
    /// # Errors
    /// The directory cannot be made, or the key cannot be had ([`SealKey::load`]).
    pub fn open(dir: &Path, key: Option<&Path>) -> Result<Cache, Failure> {
        let failed = |e: std::io::Error| Failure::file(&dir.display().to_string(), e);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        Ok(Cache { dir: dir.to_path_buf(), key: SealKey::load(key)? })
    }

    /// A module ready to be loaded: from its entry if that is sound, else compiled and entered. `name` is what errors call
    /// the cell.
    ///
    /// # Errors
    /// The module is refused. A cache that cannot be used is no error: the origin says so.
    pub fn module(
        &self,
        name: &str,
        wasm: &[u8],
        options: &LoadOptions,
    ) -> Result<(Arc<CellModule>, Origin), LoadError> {
        let (module, origin, _) = self.find_or_make(name, wasm, options, None)?;
        Ok((module, origin))
    }

    /// The same for the next version of `old`: if there is no sound entry, functions that are as in `old` are taken over. Also says what was
    /// compiled.
    ///
    /// # Errors
    /// As for [`module`](Cache::module).
    pub fn next_version(
        &self,
        name: &str,
        wasm: &[u8],
        options: &LoadOptions,
        old: &Arc<CellModule>,
    ) -> Result<(Arc<CellModule>, Origin, Option<ReuseReport>), LoadError> {
        self.find_or_make(name, wasm, options, Some(old))
    }

    fn find_or_make(
        &self,
        name: &str,
        wasm: &[u8],
        options: &LoadOptions,
        old: Option<&Arc<CellModule>>,
    ) -> Result<(Arc<CellModule>, Origin, Option<ReuseReport>), LoadError> {
        let cell: Arc<str> = name.into();
        let compile_error = |source| LoadError::Compile { cell: cell.clone(), source };
        let id = id(wasm, options).map_err(compile_error)?;
        let unusable = match self.read(&cell, &id) {
            Ok(Some(module)) => return Ok((module, Origin::Cached, None)),
            Ok(None) => None,
            Err(why) => Some(why),
        };
        let compile_options =
            CompileOptions { guarded_memories: options.guarded_memories, ..CompileOptions::default() };
        let made = match old {
            Some(old) => compile_object_reusing(wasm, options, old).map(|(object, reuse)| (object, Some(reuse))),
            None => compiler().and_then(|c| c.compile(wasm, &compile_options)).map(|object| (object, None)),
        };
        let (object, reuse) = made.map_err(compile_error)?;
        let elf = object.to_elf();
        let module = match CellModule::new(&cell, object) {
            Ok(module) => module,
            // Type ids that mean something else in this process: compiled with others, which are of no use to the next.
            Err(LoadError::TypeCollision(why)) => {
                let origin = Origin::NotKept(why.to_string());
                return Ok(match old {
                    Some(old) => {
                        let (module, reuse) = compile_module_reusing(name, wasm, options, old)?;
                        (module, origin, Some(reuse))
                    }
                    None => (compile_module(name, wasm, options)?, origin, None),
                });
            }
            Err(e) => return Err(e),
        };
        let kept = elf.map_err(|e| e.to_string()).and_then(|elf| self.write(&id, elf).map_err(|f| f.message));
        let origin = match (kept, unusable) {
            (Err(why), _) => Origin::NotKept(why),
            (Ok(()), Some(why)) => Origin::Replaced(why),
            (Ok(()), None) => Origin::Compiled,
        };
        Ok((module, origin, reuse))
    }

    fn path(&self, id: &[u8; 32]) -> PathBuf {
        self.dir.join(format!("{}.o", blake3::Hash::from_bytes(*id).to_hex()))
    }

    /// The module of an entry. `Err`: why it cannot be used.
    fn read(&self, cell: &Arc<str>, id: &[u8; 32]) -> Result<Option<Arc<CellModule>>, String> {
        let limit = kernel_config::limits::CELL_BYTES as u64;
        let mut elf = Vec::new();
        match std::fs::File::open(self.path(id)).and_then(|f| f.take(limit + 1).read_to_end(&mut elf)) {
            Ok(_) if elf.len() as u64 > limit => return Err(format!("longer than {limit} bytes")),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.to_string()),
        }
        seal::verify(&elf, &self.key.derive(id)).map_err(|e| e.to_string())?;
        let object = Loadable::from_elf(&elf).map_err(|e| e.to_string())?;
        namespace_bridge::check_header(cell, &object.header).map_err(|e| e.to_string())?;
        CellModule::new(cell, object).map(Some).map_err(|e| e.to_string())
    }

    fn write(&self, id: &[u8; 32], mut elf: Vec<u8>) -> Result<(), Failure> {
        seal::seal(&mut elf, &self.key.derive(id)).map_err(|e| Failure::new(Kind::System, e.to_string()))?;
        atomic_file::write(&self.path(id), &elf)
    }
}

/// What an entry is of: the module's bytes, and everything that changes its code.
fn id(wasm: &[u8], options: &LoadOptions) -> Result<[u8; 32], wasm_cell::CompileError> {
    let settings = compiler()?.settings();
    let mut hasher = blake3::Hasher::new();
    hasher.update(blake3::hash(wasm).as_bytes());
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(wasm_cell::reuse::CODE_GENERATOR.as_bytes());
    add(&wasm_cell::reuse::OPTIMIZER.to_le_bytes());
    add(&kernel_config::cell::OBJECT_FORMAT_VERSION.to_le_bytes());
    add(format!("{settings:?}").as_bytes());
    add(&[u8::from(options.guarded_memories)]);
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let dir = std::env::temp_dir().join(format!("planks-cache-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            Place(dir)
        }

        fn cache(&self) -> Cache {
            Cache::open(&self.0.join("entries"), Some(&self.0.join("key"))).unwrap()
        }

        fn entries(&self) -> Vec<PathBuf> {
            std::fs::read_dir(self.0.join("entries")).unwrap().map(|e| e.unwrap().path()).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn wasm(n: i32) -> Vec<u8> {
        wat::parse_str(format!("(module (func (export \"f\") (result i32) (i32.const {n})))")).unwrap()
    }

    fn origin(cache: &Cache, wasm: &[u8]) -> Origin {
        let options = LoadOptions::default();
        let (module, origin) = cache.module("cell", wasm, &options).unwrap();
        let cell = namespace_bridge::CrateNamespace::new("cache", None).load_module("cell", &module, options).unwrap();
        assert!(cell.typed_func::<(), i32>("f").unwrap().call(()).unwrap() > 0);
        origin
    }

    #[test]
    fn the_second_time_nothing_is_compiled() {
        let place = Place::new("second");
        assert_eq!(origin(&place.cache(), &wasm(1)), Origin::Compiled);
        assert_eq!(origin(&place.cache(), &wasm(1)), Origin::Cached);
        assert_eq!(origin(&place.cache(), &wasm(2)), Origin::Compiled);
        let options = LoadOptions::default().guarded_memories(false);
        assert_eq!(place.cache().module("cell", &wasm(1), &options).unwrap().1, Origin::Compiled);
        assert_eq!(place.entries().len(), 3);
    }

    #[test]
    fn a_damaged_entry_is_compiled_again_wherever_the_damage_is() {
        let place = Place::new("damaged");
        origin(&place.cache(), &wasm(1));
        let entry = place.entries().remove(0);
        let good = std::fs::read(&entry).unwrap();
        for at in (0..good.len()).step_by(good.len() / 23) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(&entry, bad).unwrap();
            assert!(matches!(origin(&place.cache(), &wasm(1)), Origin::Replaced(_)), "byte {at}");
            assert_eq!(std::fs::read(&entry).unwrap(), good);
        }
        for cut in [0, 1, good.len() / 2, good.len() - 1] {
            std::fs::write(&entry, &good[..cut]).unwrap();
            assert!(matches!(origin(&place.cache(), &wasm(1)), Origin::Replaced(_)), "{cut} bytes");
        }
        assert_eq!(origin(&place.cache(), &wasm(1)), Origin::Cached);
    }

    #[test]
    fn the_entry_of_another_module_or_under_another_key_is_not_taken() {
        let place = Place::new("other");
        origin(&place.cache(), &wasm(1));
        let first = place.entries().remove(0);
        origin(&place.cache(), &wasm(2));
        let second = place.entries().into_iter().find(|e| *e != first).unwrap();
        std::fs::copy(&second, &first).unwrap();
        assert!(matches!(origin(&place.cache(), &wasm(1)), Origin::Replaced(_)));
        std::fs::remove_file(place.0.join("key")).unwrap();
        assert!(matches!(origin(&place.cache(), &wasm(1)), Origin::Replaced(_)));
    }

    #[test]
    fn processes_may_fill_it_at_the_same_time() {
        let place = Place::new("together");
        std::thread::scope(|s| {
            for i in 0..24 {
                let place = &place;
                s.spawn(move || origin(&place.cache(), &wasm(1 + i % 3)));
            }
        });
        assert_eq!(place.entries().len(), 3, "no unfinished entry is left");
        assert_eq!(origin(&place.cache(), &wasm(2)), Origin::Cached);
    }

    #[test]
    fn a_cache_that_cannot_be_written_costs_nothing_but_the_compilation() {
        let place = Place::new("readonly");
        let cache = place.cache();
        std::fs::remove_dir(place.0.join("entries")).unwrap();
        assert!(matches!(origin(&cache, &wasm(1)), Origin::NotKept(_)));
    }
}
