//! Stages that boot machines of every kind: processors, sizes of memory, what is missing, the command line of the README.

use crate::stage::Outcome;
use std::{fs, process::Command};
use xtask::{
    archive, kernel,
    machine::{Ending, Input, Machine, SHELL_GREETING},
};

/// Machines on which cells must run: processor, board, MiB of memory. From the oldest processor with a 64-bit mode to all that is
/// emulated, with the sizes at which the memory map changes its shape.
#[rustfmt::skip] // a table
const MACHINES: [(&str, &str, u32); 10] = [
    ("qemu64", "pc", 128), ("qemu64", "microvm", 128), ("qemu64", "pc", 8192),
    ("Nehalem", "q35", 256), ("SandyBridge", "pc", 512), ("Haswell", "q35", 2048), ("EPYC", "pc", 3072), ("Skylake-Client", "q35", 4096),
    ("max", "microvm", 8192), ("max", "q35", 8192),
];

/// Runs cells on all of them.
pub fn machines(standard: &Machine) -> Outcome {
    let mut outcome = Outcome::default();
    for (cpu, board, memory) in MACHINES {
        let machine = Machine { cpu: cpu.into(), board: board.into(), memory, ..standard.clone() };
        let mut console = String::new();
        let ending = machine.run("test=_cell", None, |line| {
            console.push_str(line);
            console.push('\n');
        });
        outcome.count(matches!(ending, Ok(Ending::Success)), || {
            format!("{cpu}, {board}, {memory} MiB: {ending:?}\n{console}")
        });
    }
    outcome.close()
}

/// A machine that lacks something, and what the kernel says about it.
struct Lacking {
    name: &'static str,
    cpu: &'static str,
    memory: u32,
    line: &'static str,
    archive: Option<&'static [u8]>,
    ending: Ending,
    says: &'static str,
}

#[rustfmt::skip] // a table
const LACKING: [Lacking; 6] = [
    Lacking { name: "no 64-bit mode", cpu: "qemu32", memory: 256, line: "shell", archive: None, ending: Ending::Fatal, says: "this processor has no 64-bit mode" },
    Lacking { name: "too little memory", cpu: "max", memory: 16, line: "shell", archive: None, ending: Ending::Fatal, says: "Give the machine 32 MiB or more" },
    Lacking { name: "no archive", cpu: "max", memory: 128, line: "shell", archive: None, ending: Ending::Success, says: "no boot archive: `-initrd FILE` gives one" },
    Lacking { name: "a compressed archive", cpu: "max", memory: 128, line: "shell", archive: Some(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]), ending: Ending::Failure, says: "no cpio `newc` entry at byte 0" },
    Lacking { name: "an archive that is none", cpu: "max", memory: 128, line: "shell", archive: Some(&[0]), ending: Ending::Failure, says: "boot archive" },
    Lacking { name: "no local interrupt controller", cpu: "max,-apic", memory: 128, line: "shell", archive: None, ending: Ending::Success, says: "ticks by IntervalTimer" },
];

/// Boots machines that lack something: each says what.
pub fn lacking(standard: &Machine) -> Outcome {
    let mut outcome = Outcome::default();
    for lacking in &LACKING {
        let machine = Machine { cpu: lacking.cpu.into(), memory: lacking.memory, ..standard.clone() };
        let mut console = String::new();
        let ending = machine.converse(lacking.line, lacking.archive, &[(SHELL_GREETING, "exit\n")], |line| {
            console.push_str(line);
            console.push('\n');
        });
        let right = matches!(ending, Ok(ending) if ending == lacking.ending) && console.contains(lacking.says);
        outcome.count(right, || {
            format!("{}: {ending:?} instead of {:?} and `{}`\n{console}", lacking.name, lacking.ending, lacking.says)
        });
    }
    outcome.close()
}

/// Runs the command of the README that boots the kernel without any of these tools, word for word.
pub fn readme(standard: &Machine) -> Outcome {
    let mut outcome = Outcome::default();
    let done = from_readme(standard);
    let fine = done.as_ref().is_ok_and(|(ending, console)| {
        *ending == Ending::Success && ["hello.wasm", "loaded hello"].iter().all(|said| console.contains(said))
    });
    outcome.count(fine, || format!("the command of the README: {done:?}"));
    outcome.close()
}

fn from_readme(standard: &Machine) -> Result<(Ending, String), Box<dyn std::error::Error>> {
    let text = fs::read_to_string(kernel::workspace().join("README.md"))?;
    let command = text.split_once("$ qemu-system-x86_64 ").and_then(|(_, rest)| rest.split_once("```"));
    let (command, _) = command.ok_or("the README has no such command")?;
    // A folder that has what the commands before that one make.
    let folder = std::env::temp_dir().join(format!("planks-readme-{}", std::process::id()));
    let run = || -> Result<_, Box<dyn std::error::Error>> {
        fs::create_dir_all(folder.join("target/kernel"))?;
        fs::copy(&standard.image, folder.join("target/kernel/nano_core"))?;
        let files = archive::Builder::new().file("hello.wasm", &wat::parse_str("(module)")?);
        fs::write(folder.join("modules.cpio"), files.finish())?;
        let mut qemu = Command::new(&standard.qemu);
        qemu.args(command.split_whitespace().filter(|word| *word != "\\")).current_dir(&folder);
        let typed = [(SHELL_GREETING, Input::Keys("files\nload hello.wasm\nexit\n"))];
        let mut console = String::new();
        let ending = standard.talk(qemu, &typed, |line| {
            console.push_str(line);
            console.push('\n');
        })?;
        Ok((ending, console))
    };
    let done = run();
    // What cannot be removed stays in the folder for temporary files.
    let _ = fs::remove_dir_all(&folder);
    done
}

/// Most instructions from the kernel's start to its shell with components compiled and loaded, in millions.
const START: u64 = 50;

/// Counts instructions until the shell is there. Its clock counts them, a million a millisecond; how long they take is the host's affair.
pub fn start(standard: &Machine) -> Outcome {
    let machine = Machine { icount: true, ..standard.clone() };
    let (mut outcome, mut millions) = (Outcome::default(), None::<u64>);
    let ending = machine.converse("shell", None, &[(SHELL_GREETING, "exit\n")], |line| {
        let number =
            line.split_once("The clock runs since ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        millions = millions.or(number);
    });
    let fine = matches!(ending, Ok(Ending::Success)) && millions.is_some_and(|n| n <= START);
    outcome.count(fine, || format!("{ending:?}, {millions:?} million instructions to the shell, {START} at most"));
    outcome.closing.extend(millions.map(|n| format!("{n} million instructions to the shell")));
    outcome.close()
}
