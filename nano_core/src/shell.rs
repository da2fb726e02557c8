//! The shell on the serial console: the commands of `planks shell`, over the kernel's files, and [`COMMANDS`] of the kernel's own.
//!
//! The cells are in one namespace with the kernel's components, so `swap` and `unload` work on those too. Control-C stops the command that runs, by the same request that kills any task in a cell.

use crate::{
    components::{self, Report, file_system, line_discipline},
    console_line::LineReader,
};
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::time::Duration;
use kernel_config::memory::PAGE_SIZE;
use namespace_bridge::{CrateNamespace, kill};
use nano_core::{disks::DiskError, ymodem};
use planks::{
    failure::{Failure, Kind},
    printable::Printable,
    shell::{Host, Shell, split},
};
use runtime_port::{
    bare_metal::{
        console::{self, set_foreground},
        memory::frame_use,
        task::{self, TaskState},
    },
    heap, platform, print, println,
    time::Instant,
};

/// A command of the kernel.
struct KernelCommand {
    name: &'static str,
    synopsis: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> Result<(), String>,
}

const COMMANDS: [KernelCommand; 6] = [
    KernelCommand { name: "files", synopsis: "", summary: "list the files that `load` finds", run: list_files },
    KernelCommand {
        name: "receive",
        synopsis: "[NAME]",
        summary: "receive files over this line (YMODEM: `sb FILE`)",
        run: receive,
    },
    KernelCommand { name: "remove", synopsis: "FILE", summary: "remove a file", run: remove },
    KernelCommand {
        name: "components",
        synopsis: "",
        summary: "show which parts of the kernel are cells, and how they do",
        run: list_components,
    },
    KernelCommand { name: "tasks", synopsis: "", summary: "list the tasks", run: list_tasks },
    KernelCommand { name: "memory", synopsis: "", summary: "show how much memory is in use", run: show_memory },
];

/// Runs commands until `exit`, over the kernel's namespace. The error says why there is no shell.
pub fn run(namespace: Arc<CrateNamespace>) -> Result<(), String> {
    let mut files = KernelFiles;
    let mut shell = Shell::new(namespace, &mut files);
    let up = Instant::now().as_nanos() / 1_000_000;
    println!("Type help for the commands, exit to end the system. (The clock runs since {up} ms.)");
    let mut reader = LineReader::default();
    loop {
        let line = reader.read("planks> ", &line_discipline::ByCell).ok_or("the machine has no serial port")?;
        let words = split(&line).unwrap_or_default();
        let name = words.first().map_or("", String::as_str);
        if matches!(name, "exit" | "quit") {
            return Ok(());
        }
        match COMMANDS.iter().find(|c| c.name == name) {
            Some(command) => {
                if let Err(error) = (command.run)(&words[1..]) {
                    println!("{name}: {}", Printable(error));
                }
            }
            None => run_line(&mut shell, &line),
        }
        if name == "help" && words.len() == 1 {
            println!("of the kernel:");
            for c in &COMMANDS {
                println!("  {:<24}  {}", format!("{} {}", c.name, c.synopsis), c.summary);
            }
        }
    }
}

fn run_line(shell: &mut Shell<'_>, line: &str) {
    set_foreground(platform().tasks().current().id.get());
    let outcome = shell.run_line(line);
    set_foreground(0);
    // A request that came too late must not end the next command.
    kill::withdraw();
    match outcome {
        None => {}
        Some(Ok(reply)) => print!("{reply}"),
        Some(Err(failure)) => println!("{failure}"),
    }
}

/// The files of the kernel: those of the boot archive, and those that were received.
struct KernelFiles;

impl Host for KernelFiles {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        file_system::read(path).map_err(|error| match error {
            DiskError::NotFound => Failure::file(path, "no such file; `files` lists those that there are"),
            other => Failure::new(Kind::System, format!("{path}: {other}")),
        })
    }

    fn assemble(&mut self, path: &str, _text: &[u8]) -> Result<Vec<u8>, Failure> {
        Err(Failure::new(
            Kind::Invalid,
            format!("{path}: the kernel has no assembler; put the binary form (.wasm) in the archive"),
        ))
    }
}

fn list_files(_: &[String]) -> Result<(), String> {
    let mut files = file_system::list();
    files.sort();
    for (name, size) in files {
        println!("{size:>9}  {}", Printable(name));
    }
    Ok(())
}

fn remove(words: &[String]) -> Result<(), String> {
    let [name] = words else { return Err("usage: remove FILE".into()) };
    file_system::remove(name).map_err(|e| format!("{name}: {e}"))
}

/// Receives files. Nothing filters or edits what comes meanwhile.
fn receive(words: &[String]) -> Result<(), String> {
    let name = match words {
        [] => None,
        [name] => Some(name),
        _ => return Err("usage: receive [NAME]".into()),
    };
    println!("Start the sender (YMODEM); Control-C gives up.");
    let filtered = console::set_filtered(false);
    let received = ymodem::receive(&mut SerialLine, file_system::room());
    console::set_filtered(filtered);
    let files = received.map_err(|e| e.to_string())?;
    if name.is_some() && files.len() != 1 {
        return Err(format!("{} files were sent; one can be named", files.len()));
    }
    for file in files {
        let name = name.unwrap_or(&file.name);
        let size = file.content.len();
        file_system::write(name, file.content).map_err(|e| format!("{name}: {e}"))?;
        println!("received {}: {size} bytes", Printable(name));
    }
    Ok(())
}

/// The console as a line to the sender of a file.
struct SerialLine;

impl ymodem::Line for SerialLine {
    fn receive(&mut self, within: Duration) -> Option<u8> {
        let mut byte = [0];
        (console::read_within(&mut byte, Some(within)) == 1).then_some(byte[0])
    }

    fn send(&mut self, byte: u8) {
        console::write_raw(&[byte]);
    }
}

fn list_components(_: &[String]) -> Result<(), String> {
    for (name, state, report) in components::reports() {
        let state = state.map_or("no cell".into(), |state| format!("{state:?}"));
        let Report { by_cell, by_default, last } = report;
        print!("{name:<16}  {state:<12}  {by_cell} answers, {by_default} by the native default");
        println!("{}", Printable(last.map_or(String::new(), |why| format!("; last: {why}"))));
    }
    Ok(())
}

/// Lists the tasks. They are copied first: nothing is printed while they stand still.
fn list_tasks(_: &[String]) -> Result<(), String> {
    let mut lines: Vec<(u64, String, TaskState, [u8; 3], u64, usize)> = Vec::new();
    task::inspect(&mut |t| {
        let schedule = [t.base.number(), t.priority.number(), t.slice];
        lines.push((t.id, t.name.to_string(), t.state, schedule, t.ran, t.stack.len()));
    });
    for (id, name, state, [base, priority, slice], ran, stack) in lines {
        let (state, stack) = (format!("{state:?}"), stack >> 10);
        print!("{id:>5}  {name:<31}  {state:<8}  priority {priority:>2} of {base:>2}, turns of {slice} ms");
        println!("  had {ran} ms  stack {stack} KiB");
    }
    Ok(())
}

fn show_memory(_: &[String]) -> Result<(), String> {
    let frames = frame_use();
    let mib = |frames: usize| (frames * PAGE_SIZE) as f64 / f64::from(1 << 20);
    let taken = frames.total - frames.free - frames.promised;
    println!("{:.1} MiB in all, {:.1} in use, {:.1} promised", mib(frames.total), mib(taken), mib(frames.promised));
    if let Some(heap) = heap::statistics() {
        println!("heap: {} KiB in use of {} KiB", heap.used >> 10, heap.size >> 10);
    }
    Ok(())
}
