//! Native code of the kernels: their C sources through the system's compiler at `-O2`, loaded as shared libraries.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io, mem, process};

/// The function of a shared library that stays loaded for good: it works `n` times over and returns a checksum.
#[derive(Clone, Copy, Debug)]
pub struct Native(extern "C" fn(u32) -> u32);

impl Native {
    /// Calls it.
    pub fn run(self, n: u32) -> u32 {
        (self.0)(n)
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
        let folder = env::temp_dir().join(format!("planks-kernels-{}", process::id()));
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
    // SAFETY: a library that was just made of a source of this project: it has no initialisers, `run` is of this type and uses only
    // memory of its own. It is never closed.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        let run = if handle.is_null() { handle } else { libc::dlsym(handle, c"run".as_ptr()) };
        if run.is_null() {
            return Err(io::Error::other(format!("{} cannot be loaded", library.display())));
        }
        Ok(Native(mem::transmute::<*mut libc::c_void, extern "C" fn(u32) -> u32>(run)))
    }
}
