//! Compiles fixtures with the compilers that are there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/fixtures")
}

/// A folder of its own that goes with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("planks-native-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles a crate in `folder`; others that it names with `--extern` are there already.
pub fn rustc_in(folder: &Folder, name: &str, flags: &[&str]) -> Vec<u8> {
    compile_in(folder, &fixtures().join(format!("{name}.rs")), flags);
    read(&folder.path(&format!("{name}.o")))
}

fn compile_in(folder: &Folder, source: &Path, flags: &[&str]) {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    run(Command::new(rustc)
        .args([
            "--edition=2024",
            "--emit=obj,metadata",
            "-Cpanic=unwind",
            "-Ccodegen-units=1",
            "-Coverflow-checks=off",
            "-Awarnings",
        ])
        .args(flags)
        .arg("--out-dir")
        .arg(&folder.0)
        .arg("-L")
        .arg(&folder.0)
        .arg(source));
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Compiles a crate.
pub fn rustc(name: &str, flags: &[&str]) -> Vec<u8> {
    rustc_in(&Folder::new(), name, flags)
}

/// Whether a program is there; if it is not, says aloud what is not tested. The test command says which must be there.
fn is_there(program: &str, what: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    let required = std::env::var("PLANKS_COMPILERS").unwrap_or_default();
    assert!(!required.split(',').any(|p| p == program), "`{program}` was found by the test command and is not here");
    eprintln!("NOT TESTED: there is no `{program}` here; {what}");
    false
}

/// Compiles a C or C++ fixture; `None`, said aloud, if the compiler is not there.
pub fn cc(compiler: &str, file: &str, flags: &[&str]) -> Option<Vec<u8>> {
    let folder = Folder::new();
    let object = folder.path("object.o");
    if !is_there(compiler, &format!("{file} {flags:?}")) {
        return None;
    }
    run(Command::new(compiler).args(flags).arg("-c").arg(fixtures().join(file)).arg("-o").arg(&object));
    Some(read(&object))
}

/// Assembles a fixture, or a file by its full path, into a folder.
pub fn assemble(folder: &Folder, compiler: &str, file: &str) -> Option<PathBuf> {
    let source = fixtures().join(file);
    let object = folder.path(&format!("{}.o", source.file_stem()?.to_str()?));
    is_there(compiler, file).then(|| run(Command::new(compiler).arg("-c").arg(&source).arg("-o").arg(&object)))?;
    Some(object)
}

impl Folder {
    /// One relocatable object of several.
    pub fn link(&self, objects: &[&Path]) -> Option<Vec<u8>> {
        let linked = self.path("linked.o");
        is_there("ld", "relocatable links")
            .then(|| run(Command::new("ld").arg("-r").args(objects).arg("-o").arg(&linked)))?;
        Some(read(&linked))
    }
}

/// Compiles a crate that uses `cell_export`.
pub fn rustc_typed(name: &str, flags: &[&str]) -> Vec<u8> {
    let folder = Folder::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cell_export/src/lib.rs");
    compile_in(&folder, &source, &["--crate-type=lib", "--crate-name=cell_export"]);
    let flags: Vec<&str> = flags.iter().copied().chain(["--extern=cell_export"]).collect();
    rustc_in(&folder, name, &flags)
}
