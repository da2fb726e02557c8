//! `planks swap` and `planks watch`: the shell's commands on a cell that is loaded for them.

use super::objects::Objects;
use super::shell::Files;
use super::{Ending, Output, Run};
use crate::environment;
use crate::failure::Failure;
use crate::input;
use crate::shell::{Reply, Shell};
use crate::wasi::{self, Wasi};
use clap::{Args, ValueEnum};
use namespace_bridge::CrateNamespace;
use std::sync::{Arc, Mutex};

/// Load a module, put another version in its place, and show what that does.
///
/// What differs between the versions: functions added, removed, changed, retyped; imports, exports, memories, tables,
/// globals, segments. Then what the swap did, or, with --dry-run, what it would do.
#[derive(Args, Debug)]
pub struct SwapArgs {
    /// The version to begin with: a module (binary or text) or cell object
    old: String,
    /// The version that takes its place
    new: String,
    #[command(flatten)]
    cell: Cell,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Swap although users of the old version would lose something
    #[arg(long)]
    force: bool,
}

/// Load a module and swap in another version whenever its file changes; a version that is refused leaves the old one in
/// service. Ends with an interrupt.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// The module (binary or text)
    file: String,
    #[command(flatten)]
    cell: Cell,
    /// Also take versions by which users of the old one would lose something, and such without an export that it has
    #[arg(long)]
    force: bool,
    /// End after that many versions, refused ones included
    #[arg(long, value_name = "N")]
    times: Option<u64>,
}

/// What both take.
#[derive(Args, Debug)]
struct Cell {
    /// What becomes of the state of the old version
    #[arg(long, value_enum, default_value_t = State::Fresh)]
    state: State,
    /// Name of the cell; by default, the name of the file
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Load another module first, as cell NAME, for the module to import from
    #[arg(long = "cell", value_name = "NAME=FILE")]
    cells: Vec<String>,
    /// Call this function, with these arguments, before and after
    #[arg(long, value_name = "FUNCTION [ARGUMENT…]")]
    invoke: Option<String>,
    #[command(flatten)]
    objects: Objects,
}

/// A plan for the state.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// The new version takes the memory, tables and globals over.
    Adopt,
    /// The new version begins with its own.
    Fresh,
    /// The old version's plank_save gives bytes to the new one's plank_restore.
    Export,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Adopt => "adopt",
            State::Fresh => "fresh",
            State::Export => "export",
        }
    }
}

/// A shell with a cell in it.
struct Session<'a, 'o> {
    shell: Shell<'a>,
    out: &'o mut Output,
    name: String,
    invoke: Vec<String>,
}

impl Cell {
    /// Loads what the options say, and the cell from `file`.
    fn session<'a, 'o>(
        &self,
        host: &'a mut Files,
        file: &str,
        out: &'o mut Output,
    ) -> Result<Session<'a, 'o>, Failure> {
        let guest = Wasi::new(vec![file.into()], wasi::Input::Stdin, wasi::Output::Stdout, wasi::Output::Stderr);
        let namespace = CrateNamespace::new("swap", Some(environment::namespace(&Arc::new(Mutex::new(guest)))?));
        let mut shell = Shell::new(namespace, host);
        for cell in &self.cells {
            let (name, file) =
                cell.split_once('=').ok_or_else(|| Failure::usage(format!("--cell {cell}: write NAME=FILE")))?;
            shell.run(&words(&["load", file, "as", name]))?;
        }
        let name = self.name.clone().unwrap_or_else(|| input::stem(file));
        let loaded = shell.run(&words(&["load", file, "as", &name]))?;
        let invoke = crate::shell::split(self.invoke.as_deref().unwrap_or("")).map_err(Failure::usage)?;
        let mut session = Session { shell, out, name, invoke };
        session.show(&loaded)?;
        Ok(session)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_string()).collect()
}

impl Session<'_, '_> {
    fn show(&mut self, reply: &Reply) -> Result<(), Failure> {
        if self.out.json { self.out.value(reply.json()) } else { self.out.print(reply) }?;
        self.out.flush()
    }

    fn run(&mut self, line: &[String]) -> Result<(), Failure> {
        let reply = self.shell.run(line)?;
        self.show(&reply)
    }

    /// Calls the function that `--invoke` names, if it does.
    fn invoke(&mut self) -> Result<(), Failure> {
        let Some((function, args)) = self.invoke.split_first() else { return Ok(()) };
        let mut line = words(&["call", &format!("{}::{function}", self.name)]);
        line.extend_from_slice(args);
        self.run(&line)
    }
}

impl Run for SwapArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let mut host = Files::new(&self.cell.objects, out.json)?;
        let mut session = self.cell.session(&mut host, &self.old, out)?;
        session.invoke()?;
        let name = session.name.clone();
        let mut line = words(&["swap", &name, &self.new, "--state", self.cell.state.name()]);
        line.extend(self.dry_run.then(|| "--dry-run".to_string()));
        line.extend(self.force.then(|| "--force".to_string()));
        session.run(&line)?;
        if !self.dry_run {
            session.invoke()?;
        }
        Ok(Ending::Success)
    }
}

impl Run for WatchArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let mut host = Files::new(&self.cell.objects, out.json)?;
        let mut session = self.cell.session(&mut host, &self.file, out)?;
        session.invoke()?;
        let name = session.name.clone();
        let mut line = words(&["watch", &name, &self.file, "--state", self.cell.state.name()]);
        line.extend(self.force.then(|| "--force".to_string()));
        if let Some(times) = self.times {
            line.extend(words(&["--times", &times.to_string()]));
        }
        session.run(&line)?;
        session.invoke()?;
        Ok(Ending::Success)
    }
}
