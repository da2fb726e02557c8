//! The stage that runs `planks boot`, with each of its ways to say what is to be booted.

use crate::stage::Outcome;
use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use xtask::kernel;

/// Text modules for a folder: one to call, and one that the kernel cannot load.
const MODULES: [(&str, &str); 3] = [
    (
        "double.wat",
        r#"(module (func (export "double") (param i32) (result i32) (i32.shl (local.get 0) (i32.const 1))))"#,
    ),
    ("lonely.wat", r#"(module (import "nobody" "f" (func)))"#),
    ("notes.txt", "not a module"),
];

/// Runs `planks boot` with an image that is built already.
pub fn stage(image: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let planks = match kernel::build_planks() {
        Ok(planks) => planks,
        Err(error) => {
            outcome.count(false, || error.to_string());
            return outcome.close();
        }
    };
    let mut run = || -> io::Result<()> {
        let folder = Folder::new()?;
        for (name, text) in MODULES {
            fs::write(folder.0.join(name), text)?;
        }
        let (image, folder_name) = (image.display().to_string(), folder.0.display().to_string());
        let command = |args: &[&str]| {
            let mut command = Command::new(&planks);
            command.args(["boot", "--kernel", &image, "--timeout", "600"]).args(args);
            command
        };
        let boot = |args: &[&str], typed: &str| converse(command(args), typed);

        let typed = "files\nload double.wasm\ncall double::double 21\nload lonely.wasm\n";
        let (success, console) = boot(&["--modules", &folder_name], typed)?;
        let said = ["double.wasm", "lonely.wasm", "nano_core.sym", "42", "nobody"].iter().all(|s| console.contains(s));
        outcome.count(success && said && !console.contains("notes"), || format!("--modules: {console}"));

        let counted = [0, 1].map(|_| boot(&["--icount", "--test=a_cell_"], ""));
        let [Ok((true, first)), Ok((true, second))] = counted else {
            outcome.count(false, || format!("--icount --test: {counted:?}"));
            return Ok(());
        };
        outcome.count(first == second && first.contains("a_cell_is_compiled_and_called ... ok"), || {
            format!("two runs that count instructions differ:\n{first}\n{second}")
        });

        let file = folder.0.join("double.wat").display().to_string();
        let (success, console) = boot(&["--cpu", "qemu64", "--memory", "128", "--invoke", "double", &file, "8"], "")?;
        outcome.count(success && console.lines().any(|l| l == "16"), || format!("a module: {console}"));
        let (success, console) = boot(&["--modules", "/nonexistent/folder"], "")?;
        outcome.count(!success && console.contains("/nonexistent/folder"), || format!("no such folder: {console}"));
        let (success, console) = boot(&["--test=there_is_no_such_check"], "")?;
        outcome.count(!success, || format!("no such check: {console}"));
        let mut without = command(&["--test"]);
        without.env("PATH", "");
        let (success, console) = converse(without, "")?;
        let said = console.contains("`qemu-system-x86_64` is not installed: `apt-get install qemu-system-x86`");
        outcome.count(!success && said, || format!("without an emulator: {console}"));
        let mut without = Command::new(&planks);
        without.args(["boot", "--kernel", "/nonexistent/kernel", "--test"]);
        let (success, console) = converse(without, "")?;
        outcome.count(!success && console.contains("/nonexistent/kernel"), || format!("without a kernel: {console}"));
        Ok(())
    };
    let done = run();
    outcome.count(done.is_ok(), || format!("{done:?}"));
    outcome.close()
}

/// Runs planks in the source tree; whether it succeeded, and both its outputs.
fn converse(mut command: Command, typed: &str) -> io::Result<(bool, String)> {
    command.current_dir(kernel::workspace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read says itself why it ended.
        let _ = stdin.write_all(typed.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status.success(), text))
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("planks-boot-modules-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
