//! The shell on the serial console: the commands of `planks shell`, over the files of the boot archive.
//!
//! Control-C stops the command that runs, by the same request that kills any task in a cell.

use crate::run;
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use kernel_config::memory::PAGE_SIZE;
use namespace_bridge::{CrateNamespace, kill};
use nano_core::archive::Archive;
use planks::{
    failure::{Failure, Kind},
    shell::{Host, Shell},
};
use runtime_port::{
    bare_metal::{
        console::set_foreground,
        memory::frame_use,
        task::{self, TaskState},
    },
    heap, platform, print, println,
};

/// Runs commands until `exit`. The error says why there is no shell.
pub fn run(archive: Option<Archive<'_>>) -> Result<(), String> {
    let namespace = CrateNamespace::new("shell", Some(run::host_namespace()?));
    let mut files = ArchiveFiles(archive);
    let mut shell = Shell::new(namespace, &mut files);
    println!("Type help for the commands (and files, tasks, memory), exit to end the system.");
    let mut input = Input { after_return: false };
    loop {
        let line = input.line("planks> ").ok_or("the machine has no serial port")?;
        match line.trim() {
            "exit" | "quit" => return Ok(()),
            "files" => list_files(archive),
            "tasks" => list_tasks(),
            "memory" => show_memory(),
            line => run_line(&mut shell, line),
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

/// The files of the boot archive.
struct ArchiveFiles<'a>(Option<Archive<'a>>);

impl Host for ArchiveFiles<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        let Some(archive) = &self.0 else {
            return Err(Failure::file(path, "there is no boot archive: give one with `-initrd` (cpio, `newc` format)"));
        };
        let content =
            archive.file(path).ok_or_else(|| Failure::file(path, "not in the boot archive; `files` lists it"))?;
        heap::try_to_vec(content).map_err(|_| Failure::new(Kind::System, format!("{path}: out of memory")))
    }

    fn assemble(&mut self, path: &str, _text: &[u8]) -> Result<Vec<u8>, Failure> {
        Err(Failure::new(
            Kind::Invalid,
            format!("{path}: the kernel has no assembler; put the binary form (.wasm) in the archive"),
        ))
    }
}

fn list_files(archive: Option<Archive<'_>>) {
    match archive {
        None => println!("no boot archive"),
        Some(archive) => {
            for file in archive.entries().filter(|e| e.is_file()) {
                println!("{:>9}  {}", file.content.len(), file.name);
            }
        }
    }
}

/// Lists the tasks. They are copied first: nothing is printed while they stand still.
fn list_tasks() {
    let mut lines: Vec<(u64, String, TaskState, u8, usize)> = Vec::new();
    task::inspect(&mut |t| lines.push((t.id, t.name.to_string(), t.state, t.priority.number(), t.stack.len())));
    for (id, name, state, priority, stack) in lines {
        println!("{id:>5}  {name:<31}  {:<8}  priority {priority:>2}  stack {} KiB", format!("{state:?}"), stack >> 10);
    }
}

fn show_memory() {
    let frames = frame_use();
    let mib = |frames: usize| (frames * PAGE_SIZE) as f64 / f64::from(1 << 20);
    let taken = frames.total - frames.free - frames.promised;
    println!("{:.1} MiB in all, {:.1} in use, {:.1} promised", mib(frames.total), mib(taken), mib(frames.promised));
    if let Some(heap) = heap::statistics() {
        println!("heap: {} KiB in use of {} KiB", heap.used >> 10, heap.size >> 10);
    }
}

/// Lines from the console, with backspace and Control-U.
struct Input {
    /// The last byte was a carriage return: a line feed behind it is the same end of line.
    after_return: bool,
}

impl Input {
    /// Longest line, in bytes.
    const MOST: usize = 4096;

    /// Reads a line, showing what is typed. `None`: there is nowhere to read from.
    fn line(&mut self, prompt: &str) -> Option<String> {
        let mut line: Vec<u8> = Vec::new();
        print!("{prompt}");
        loop {
            let mut byte = [0];
            if platform().console().read(&mut byte) == 0 {
                return None;
            }
            let byte = byte[0];
            let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\r' | b'\n' => {
                    println!();
                    return Some(String::from_utf8_lossy(&line).into_owned());
                }
                0x08 | 0x7f => erase(&mut line, 1),
                0x15 => erase(&mut line, usize::MAX), // Control-U
                0x03 => {
                    println!("^C");
                    line.clear();
                    print!("{prompt}");
                }
                0x20..=0x7e | 0x80.. if line.len() < Self::MOST && line.try_reserve(1).is_ok() => {
                    line.push(byte);
                    echo(&[byte]);
                }
                _ => {}
            }
        }
    }
}

/// Takes back up to `count` characters, on the screen too.
fn erase(line: &mut Vec<u8>, count: usize) {
    for _ in 0..count.min(line.len()) {
        // A character of UTF-8 ends with bytes 10xxxxxx and starts with another.
        while line.pop().is_some_and(|b| b & 0xc0 == 0x80) {}
        echo(b"\x08 \x08");
        if line.is_empty() {
            break;
        }
    }
}

fn echo(bytes: &[u8]) {
    platform().console().write(runtime_port::console::Stream::Output, bytes);
}
