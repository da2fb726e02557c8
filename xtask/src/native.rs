//! Objects of rustc, gcc and clang for the kernel's checks: compiled for a boot, packed into its archive.

use crate::{archive::Builder, kernel::workspace};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the objects lie in the archive.
const FOLDER: &str = "native";

/// Why there are no objects.
#[derive(Debug)]
pub enum NativeError {
    /// A folder or file could not be made or read.
    Io(PathBuf, io::Error),
    /// A source does not compile: the command, and what it said.
    Compile(String, String),
    /// Neither gcc nor clang is installed.
    NoCompiler,
}

impl fmt::Display for NativeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Compile(command, said) => write!(f, "{command}:\n{said}"),
            Self::NoCompiler => write!(f, "neither gcc nor clang is installed; the checks of native cells need one"),
        }
    }
}

impl std::error::Error for NativeError {}

/// Rust objects: file, source, whether it describes its exports with crate `cell_export`, flags.
#[rustfmt::skip] // a table
const RUST: [(&str, &str, bool, &[&str]); 14] = [
    ("shapes", "shapes", false, &["-Copt-level=3"]),
    ("uses_shapes", "uses_shapes", false, &["-Copt-level=3", "--extern=shapes"]),
    ("shapes_0", "shapes", false, &["-Copt-level=0"]),
    ("shapes_v0", "shapes", false, &["-Copt-level=3", "-Csymbol-mangling-version=v0"]),
    ("shapes_large", "shapes", false, &["-Copt-level=s", "-Ccode-model=large"]),
    ("math", "math", true, &["-Copt-level=3"]),
    ("caller", "caller", true, &["-Copt-level=3"]),
    ("swapped_1", "swapped", true, &["-Copt-level=2", "--cfg=one"]),
    ("swapped_2", "swapped", true, &["-Copt-level=2"]),
    ("ring_a", "ring_a", true, &["-Copt-level=1"]),
    ("ring_b", "ring_b", true, &["-Copt-level=1"]),
    ("needs_library", "needs_library", false, &["-Copt-level=3"]),
    ("needs_library_0", "needs_library", false, &["-Copt-level=0"]),
    ("needs_library_static", "needs_library", false, &["-Copt-level=3", "-Crelocation-model=static"]),
];

const COMPILERS: [&str; 2] = ["gcc", "clang"];

/// C objects: what the file's name begins with, source, flags.
#[rustfmt::skip] // a table
const C: [(&str, &str, &[&str]); 8] = [
    ("basic_O0", "c_basic", &["-O0", "-fPIC"]),
    ("basic_O2", "c_basic", &["-O2", "-fPIC"]),
    ("basic_noplt", "c_basic", &["-O2", "-fPIC", "-fno-plt", "-ffunction-sections", "-fdata-sections"]),
    ("basic_large", "c_basic", &["-O2", "-mcmodel=large", "-fPIC"]),
    ("basic_pie", "c_basic", &["-O2", "-fPIE"]),
    ("basic_fixed", "c_basic", &["-O2", "-fno-pic", "-fno-pie"]),
    ("direct", "c_uses", &["-O2", "-fno-pic", "-fno-pie", "-DDATA"]),
    ("through", "c_through", &["-O2", "-fPIC"]),
];

impl Builder {
    /// Compiles the objects of the kernel's checks of native cells, and adds them. Those of a C compiler that is not
    /// installed are left out.
    ///
    /// # Errors
    /// One does not compile, or there is no C compiler.
    pub fn native_cells(mut self) -> Result<Self, NativeError> {
        let folder = Folder::new()?;
        let described = workspace().join("cell_export/src/lib.rs");
        folder.rustc(&described, "cell_export", &["--crate-type=lib", "--crate-name=cell_export"])?;
        for (file, source, typed, flags) in RUST {
            let export: &[&str] = if typed { &["--extern=cell_export"] } else { &[] };
            let object = folder.rustc(&source_of(&format!("{source}.rs")), file, &[flags, export].concat())?;
            self = self.file(&format!("{FOLDER}/{file}.o"), &object);
        }
        let compilers: Vec<&str> =
            COMPILERS.into_iter().filter(|c| Command::new(c).arg("--version").output().is_ok()).collect();
        if compilers.is_empty() {
            return Err(NativeError::NoCompiler);
        }
        for compiler in compilers {
            for (file, source, flags) in C {
                let object = folder.cc(compiler, &source_of(&format!("{source}.c")), flags)?;
                self = self.file(&format!("{FOLDER}/{file}_{compiler}.o"), &object);
            }
        }
        Ok(self)
    }
}

/// The sources are those that the hosted tests compile.
fn source_of(file: &str) -> PathBuf {
    workspace().join("namespace_bridge/tests/native/fixtures").join(file)
}

/// A folder that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, NativeError> {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos());
        let path = std::env::temp_dir().join(format!("planks-objects-{}-{nanos}", std::process::id()));
        fs::create_dir(&path).map_err(|e| NativeError::Io(path.clone(), e))?;
        Ok(Folder(path))
    }

    /// Compiles a crate as `file`, with the compiler that built the kernel: it links to the kernel's copy of `core`.
    fn rustc(&self, source: &Path, file: &str, flags: &[&str]) -> Result<Vec<u8>, NativeError> {
        let object = self.0.join(format!("{file}.o"));
        let metadata = format!("metadata={}", self.0.join(format!("lib{file}.rmeta")).display());
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition=2024", "-Cpanic=unwind", "-Ccodegen-units=1", "-Coverflow-checks=off", "-Awarnings"]);
        rustc.args(flags).arg("-L").arg(&self.0).arg(format!("--emit=obj={},{metadata}", object.display())).arg(source);
        // The toolchain is that of the workspace.
        run(rustc.current_dir(workspace()))?;
        fs::read(&object).map_err(|e| NativeError::Io(object, e))
    }

    fn cc(&self, compiler: &str, source: &Path, flags: &[&str]) -> Result<Vec<u8>, NativeError> {
        let object = self.0.join("object.o");
        let mut cc = Command::new(compiler);
        // What the kernel does not have: a canary in thread-local storage.
        cc.args(["-fexceptions", "-fno-stack-protector"]).args(flags).arg("-c").arg(source).arg("-o").arg(&object);
        run(&mut cc)?;
        fs::read(&object).map_err(|e| NativeError::Io(object, e))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) -> Result<(), NativeError> {
    let output = command.output().map_err(|e| NativeError::Io(command.get_program().into(), e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(NativeError::Compile(format!("{command:?}"), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nano_core::archive::Archive;

    #[test]
    fn objects_of_every_compiler_are_packed() {
        let bytes = Builder::new().native_cells().unwrap().finish();
        let archive = Archive::new(&bytes).unwrap();
        for (file, ..) in RUST {
            let object = archive.file(&format!("native/{file}.o")).unwrap();
            assert!(object.starts_with(b"\x7fELF"), "{file}");
        }
        assert!(archive.entries().any(|e| e.name.starts_with("native/basic_O2_")));
    }

    #[test]
    fn a_source_that_does_not_compile_is_an_error_with_the_compilers_words() {
        let folder = Folder::new().unwrap();
        let source = folder.0.join("broken.rs");
        fs::write(&source, "fn f( {").unwrap();
        let error = folder.rustc(&source, "broken", &["--crate-type=lib"]).unwrap_err().to_string();
        assert!(error.contains("error"), "{error}");
    }
}
