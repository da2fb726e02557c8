//! Native code of the kernels: their C sources through the system's compiler at `-O2`, loaded as shared libraries.
#![allow(unsafe_code)]

use object::{Object, ObjectSymbol, SymbolKind};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, io, mem, process};

/// The function of a shared library that stays loaded for good: it works `n` times over and returns a checksum.
#[derive(Clone, Copy, Debug)]
pub struct Native {
    run: extern "C" fn(u32) -> u32,
    text: u64,
}

impl Native {
    /// Calls it.
    pub fn run(self, n: u32) -> u32 {
        (self.run)(n)
    }

    /// Bytes of its functions' code, without what the linker adds to every library.
    pub fn text(self) -> u64 {
        self.text
    }
}

/// A file in the folder of temporary files, which goes with it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(name: &str, bytes: &[u8]) -> io::Result<Scratch> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("planks-{}-{number}-{name}", process::id()));
        fs::write(&path, bytes)?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A C compiler and a folder for what it makes, which goes with it.
pub struct Toolchain {
    compiler: &'static str,
    folder: PathBuf,
}

impl Toolchain {
    /// The first of clang, gcc and cc that answers; `None` when none does.
    pub fn find() -> Option<Toolchain> {
        let answers = |c: &&str| Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success());
        let compiler = ["clang", "gcc", "cc"].into_iter().find(answers)?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("planks-kernels-{}-{number}", process::id()));
        fs::create_dir_all(&folder).ok()?;
        Some(Toolchain { compiler, folder })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.compiler
    }

    /// Compiles `source` with `header` beside it and loads the function `run`.
    ///
    /// # Errors
    /// The compiler refuses the source, or the library cannot be loaded.
    pub fn compile(&self, name: &str, source: &str, header: &str) -> io::Result<Native> {
        let at = |file: String| self.folder.join(file);
        let (c, library) = (at(format!("{name}.c")), at(format!("{name}.so")));
        fs::write(&c, source)?;
        fs::write(at("kernel.h".into()), header)?;
        let flags = ["-std=c11", "-O2", "-fno-math-errno", "-fPIC", "-shared", "-o"];
        let output = Command::new(self.compiler).args(flags).arg(&library).arg(&c).arg("-lm").output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{} refuses {name}.c: {said}", self.compiler)));
        }
        load(&library)
    }
}

impl Drop for Toolchain {
    fn drop(&mut self) {
        // Libraries stay mapped without their files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn load(library: &Path) -> io::Result<Native> {
    let path = CString::new(library.as_os_str().as_bytes())?;
    let text = function_bytes(library)?;
    // SAFETY: a library that was just made of a source of this project: it has no initialisers, `run` is of this type and uses only
    // memory of its own. It is never closed.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        let run = if handle.is_null() { handle } else { libc::dlsym(handle, c"run".as_ptr()) };
        if run.is_null() {
            return Err(io::Error::other(format!("{} cannot be loaded", library.display())));
        }
        Ok(Native { run: mem::transmute::<*mut libc::c_void, extern "C" fn(u32) -> u32>(run), text })
    }
}

/// Bytes of all functions that the symbols of a library give a size.
fn function_bytes(library: &Path) -> io::Result<u64> {
    let bytes = fs::read(library)?;
    let file = object::File::parse(&*bytes).map_err(io::Error::other)?;
    Ok(file.symbols().filter(|s| s.kind() == SymbolKind::Text).map(|s| s.size()).sum())
}
