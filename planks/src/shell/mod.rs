//! The shell: commands over a namespace, the same in a terminal and on a kernel's serial console.
//!
//! A line is split into words ([`split`]), the first names a command of [`COMMANDS`], and running it gives a [`Reply`]: text
//! for people and JSON for scripts. What a command needs from the surroundings comes through [`Host`].

mod call;
mod deps;
mod faults;
mod info;
mod load;
mod reply;
mod split;
mod swap;
mod symbols;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use info::size;
pub use reply::Reply;
pub use split::split;

use crate::failure::Failure;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use namespace_bridge::{CellModule, CrateNamespace, LoadOptions, Trap};
use wasm_cell::reuse::ReuseReport;

/// What the shell needs from where it runs.
pub trait Host {
    /// The bytes of a module or cell object by its path.
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure>;

    /// The binary form of a module in the text format; hosts without an assembler refuse.
    fn assemble(&mut self, path: &str, text: &[u8]) -> Result<Vec<u8>, Failure>;

    /// A compiled module; hosts that keep compiled modules look there first. `name` is what errors call the cell.
    fn module(&mut self, name: &str, wasm: &[u8], options: &LoadOptions) -> Result<Arc<CellModule>, Failure> {
        Ok(namespace_bridge::compile_module(name, wasm, options)?)
    }

    /// The same for the next version of a module in use, of which unchanged functions are taken over. Also says what was compiled; `None` when the
    /// module was kept from before.
    fn next_version(
        &mut self,
        name: &str,
        wasm: &[u8],
        options: &LoadOptions,
        old: &Arc<CellModule>,
    ) -> Result<(Arc<CellModule>, Option<ReuseReport>), Failure> {
        let (module, reuse) = namespace_bridge::compile_module_reusing(name, wasm, options, old)?;
        Ok((module, Some(reuse)))
    }

    /// Refuses an object file that is not to be trusted. A system whose objects come with its own image trusts all of them.
    fn check_object(&mut self, _path: &str, _elf: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    /// A number that differs whenever a file has changed; `None` when there is no such file, or files never change here.
    fn stamp(&mut self, _path: &str) -> Option<u64> {
        None
    }

    /// The bytes of a file and the stamp of the very file that was read, whatever its name stands for afterwards; `None` for the stamp if it changed
    /// meanwhile.
    fn read_stamped(&mut self, path: &str) -> Result<(Vec<u8>, Option<u64>), Failure> {
        Ok((self.read(path)?, self.stamp(path)))
    }

    /// Who has a file open for writing, as far as this can be known.
    fn writer(&mut self, _path: &str) -> Option<String> {
        None
    }

    /// Waits a moment before a file is looked at again. `false` ends the command that watches it.
    fn pause(&mut self) -> bool {
        false
    }

    /// Shows something while a command goes on.
    fn show(&mut self, _reply: &Reply) {}

    /// The status with which a program ended itself, if that is what the trap is: no failure then.
    fn exit_status(&self, _trap: &Trap) -> Option<u32> {
        None
    }
}

/// A command of the shell.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Words after the name.
    pub synopsis: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The rest of what there is to say.
    pub details: &'static str,
    /// What its words are, for completion.
    pub completes: Completes,
    run: fn(&mut Shell<'_>, &[String]) -> Result<Reply, Failure>,
}

/// What the words of a command name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completes {
    /// Nothing to complete.
    Nothing,
    /// Files.
    Files,
    /// Loaded cells.
    Cells,
    /// Symbols, `cell::export`.
    Symbols,
    /// Commands.
    Commands,
}

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "load",
        synopsis: "FILE [as NAME] [--replace]",
        summary: "load a module (.wasm, .wat) or an object (.o) as a cell",
        details: "An object is one of `compile`, or a native one of rustc, gcc or clang. \
                  The cell is named after the file unless NAME is given. Its imports are linked against loaded cells: an \
                  import \"m\" \"f\" is the export f of cell m. --replace takes the place of a cell of that name that \
                  nobody uses.",
        completes: Completes::Files,
        run: load::load,
    },
    Command {
        name: "unload",
        synopsis: "CELL [--force]",
        summary: "unload a cell",
        details: "Refused while other cells depend on it; --force unloads it anyway, and calls of its functions then trap.",
        completes: Completes::Cells,
        run: load::unload,
    },
    Command {
        name: "swap",
        synopsis: "CELL FILE [--state adopt|fresh|export] [--dry-run] [--force]",
        summary: "put another version in the place of a cell, while others call it",
        details: "fresh: the new version begins with its own state. adopt: it takes over memories, tables and globals, if \
                  the modules agree on them. export: the old version's plank_save gives bytes to the new one's \
                  plank_restore. --dry-run says what would happen: functions added, removed, changed, retyped, and reasons \
                  against it. --force swaps although users would lose an export. Only functions that changed are compiled.",
        completes: Completes::Files,
        run: swap::swap,
    },
    Command {
        name: "rollback",
        synopsis: "CELL",
        summary: "bring back the version before the last swap",
        details: "A second rollback undoes the first.",
        completes: Completes::Cells,
        run: swap::rollback,
    },
    Command {
        name: "watch",
        synopsis: "CELL FILE [--state adopt|fresh|export] [--force] [--times N]",
        summary: "swap in another version whenever the file changes",
        details: "A version that is refused leaves the old one in service, and why is said. One that lacks an export of the version in \
                  service, or has it with another type, is refused unless there is --force: half a file may be a whole module. \
                  --times ends after that many versions, refused ones included.",
        completes: Completes::Files,
        run: watch::watch,
    },
    Command {
        name: "call",
        synopsis: "CELL::FUNCTION [ARGUMENT…]",
        summary: "call an exported function",
        details: "Arguments are read by the function's parameter types: integers in decimal or 0x…, floats, inf, nan, \
                  vectors as 0x… or i32x4:1,2,3,4, null for references. A trap is reported with its backtrace; the cell \
                  stays usable.",
        completes: Completes::Symbols,
        run: call::call,
    },
    Command {
        name: "ls",
        synopsis: "[--all | --faults]",
        summary: "list the cells, or what failed",
        details: "Below the cells: versions that wait for a rollback, those that some task still uses, and who is inside of cells \
                  with state. --all lists the namespaces above too: what the host offers. --faults lists the places where cells \
                  failed: why, how often, and what was done about it.",
        completes: Completes::Nothing,
        run: info::list,
    },
    Command {
        name: "info",
        synopsis: "CELL",
        summary: "show a cell: where it lies, memories, tables, exports, dependencies",
        details: "",
        completes: Completes::Cells,
        run: info::info,
    },
    Command {
        name: "sym",
        synopsis: "[PREFIX | 0xADDRESS]",
        summary: "list symbols, or say what lies at an address",
        details: "Symbols are named cell::export.",
        completes: Completes::Symbols,
        run: symbols::symbols,
    },
    Command {
        name: "deps",
        synopsis: "[CELL] [--dot]",
        summary: "show who depends on whom, and through which symbols",
        details: "--dot gives a graph in the language of Graphviz: `dot -Tsvg`.",
        completes: Completes::Cells,
        run: deps::deps,
    },
    Command {
        name: "help",
        synopsis: "[COMMAND]",
        summary: "list the commands, or explain one",
        details: "--json before or after any command gives its result as JSON. exit leaves the shell.",
        completes: Completes::Commands,
        run: help,
    },
];

/// The commands over one namespace.
pub struct Shell<'a> {
    namespace: Arc<CrateNamespace>,
    host: &'a mut dyn Host,
}

impl<'a> Shell<'a> {
    /// A shell over a namespace.
    pub fn new(namespace: Arc<CrateNamespace>, host: &'a mut dyn Host) -> Shell<'a> {
        Shell { namespace, host }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Arc<CrateNamespace> {
        &self.namespace
    }

    /// Runs a line. `None` for an empty line or a comment (`# …`).
    pub fn run_line(&mut self, line: &str) -> Option<Result<Reply, Failure>> {
        match split(line) {
            Ok(words) if words.is_empty() => None,
            Ok(words) => Some(self.run(&words)),
            Err(e) => Some(Err(Failure::usage(e))),
        }
    }

    /// Runs a command given as words.
    pub fn run(&mut self, words: &[String]) -> Result<Reply, Failure> {
        let json = words.iter().any(|w| w == "--json");
        let words: Vec<String> = words.iter().filter(|w| *w != "--json").cloned().collect();
        let Some((name, rest)) = words.split_first() else { return Err(Failure::usage("which command? See `help`")) };
        let reply = (command(name)?.run)(self, rest)?;
        Ok(if json { reply.as_json() } else { reply })
    }
}

fn command(name: &str) -> Result<&'static Command, Failure> {
    COMMANDS.iter().find(|c| c.name == name).ok_or_else(|| {
        let near = COMMANDS.iter().find(|c| c.name.starts_with(name) || name.starts_with(c.name));
        let hint = near.map_or(String::new(), |c| format!(" Did you mean `{}`?", c.name));
        Failure::usage(format!("no command `{name}`.{hint} `help` lists the commands"))
    })
}

/// The failure for words that a command does not take.
fn misused(name: &str) -> Failure {
    match command(name) {
        Ok(c) => Failure::usage(format!("usage: {} {}", c.name, c.synopsis)),
        Err(e) => e,
    }
}

/// Takes a flag out of the words.
fn take_flag<'w>(words: &'w [String], flag: &str) -> (Vec<&'w str>, bool) {
    let rest: Vec<&str> = words.iter().map(String::as_str).filter(|w| *w != flag).collect();
    let found = rest.len() < words.len();
    (rest, found)
}

fn help(_: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let described = |c: &Command| serde_json::json!({ "name": c.name, "synopsis": c.synopsis, "summary": c.summary, "details": c.details });
    match words {
        [] => {
            let head = |c: &Command| format!("{} {}", c.name, c.synopsis).trim().to_string();
            let width = COMMANDS.iter().map(|c| head(c).chars().count()).max().unwrap_or(0);
            let line = |c: &Command| {
                let head = head(c);
                let pad = " ".repeat(width - head.chars().count());
                format!("  {head}{pad}  {}\n", c.summary)
            };
            let text: String = COMMANDS.iter().map(line).collect();
            Ok(Reply::new(text, COMMANDS.iter().map(described).collect()))
        }
        [name] => {
            let c = command(name)?;
            let mut text = format!("{} {}\n  {}\n", c.name, c.synopsis, c.summary);
            if !c.details.is_empty() {
                text += &format!("  {}\n", c.details);
            }
            Ok(Reply::new(text, described(c)))
        }
        _ => Err(misused("help")),
    }
}
