//! `planks shell`: the shell in a terminal, or over a script on standard input.

use super::objects::{self, Objects};
use super::{Ending, Output, Run};
use crate::cache::Cache;
use crate::environment;
use crate::failure::{Failure, Kind};
use crate::input;
use crate::shell::{COMMANDS, Completes, Host, Reply, Shell};
use crate::wasi::{self, Exit, Wasi};
use clap::Args;
use namespace_bridge::{CellModule, CrateNamespace, LoadOptions, Trap};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Context, Editor, Helper, Highlighter, Hinter, Validator};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasm_cell::reuse::ReuseReport;

/// Load, link, call and inspect cells interactively; reads commands from standard input if that is no terminal.
#[derive(Args, Debug)]
pub struct ShellArgs {
    /// Run these commands, one argument each, instead of reading any
    #[arg(short, long = "command", value_name = "COMMAND")]
    commands: Vec<String>,
    /// Go on after a command failed (a script stops at the first failure)
    #[arg(short, long)]
    keep_going: bool,
    #[command(flatten)]
    objects: Objects,
}

/// A number that differs whenever a file has changed; `None` for what is no file.
fn stamp_of(file: &std::fs::Metadata) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (file.len(), file.modified().ok(), file.dev(), file.ino(), file.ctime(), file.ctime_nsec()).hash(&mut hasher);
    file.is_file().then(|| hasher.finish())
}

/// Between two looks at a file that is watched.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Files of the process.
#[derive(Default)]
pub struct Files {
    objects: Objects,
    cache: Option<Cache>,
    /// Whether what happens during a command is shown as JSON.
    json: bool,
}

impl Files {
    /// With these options. Files of the default have no cache and trust the user's own key.
    pub fn new(objects: &Objects, json: bool) -> Result<Files, Failure> {
        Ok(Files { cache: objects.cache()?, objects: objects.clone(), json })
    }
}

impl Host for Files {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        input::read(path)
    }

    fn assemble(&mut self, path: &str, text: &[u8]) -> Result<Vec<u8>, Failure> {
        input::assemble(path, text)
    }

    fn module(&mut self, name: &str, wasm: &[u8], options: &LoadOptions) -> Result<Arc<CellModule>, Failure> {
        Ok(objects::module(self.cache.as_ref(), name, wasm, options)?)
    }

    fn next_version(
        &mut self,
        name: &str,
        wasm: &[u8],
        options: &LoadOptions,
        old: &Arc<CellModule>,
    ) -> Result<(Arc<CellModule>, Option<ReuseReport>), Failure> {
        Ok(objects::next_version(self.cache.as_ref(), name, wasm, options, old)?)
    }

    fn check_object(&mut self, path: &str, elf: &[u8]) -> Result<(), Failure> {
        self.objects.check(path, elf)
    }

    fn stamp(&mut self, path: &str) -> Option<u64> {
        stamp_of(&std::fs::metadata(path).ok()?)
    }

    fn read_stamped(&mut self, path: &str) -> Result<(Vec<u8>, Option<u64>), Failure> {
        let failed = |e| Failure::file(path, e);
        let file = std::fs::File::open(path).map_err(failed)?;
        let before = stamp_of(&file.metadata().map_err(failed)?);
        let bytes = input::read_from(&file, path)?;
        let after = stamp_of(&file.metadata().map_err(failed)?);
        Ok((bytes, before.filter(|_| before == after)))
    }

    fn writer(&mut self, path: &str) -> Option<String> {
        crate::open_files::writer(&std::fs::metadata(path).ok()?)
    }

    fn pause(&mut self) -> bool {
        std::thread::sleep(LOOK_EVERY);
        true
    }

    fn show(&mut self, reply: &Reply) {
        let mut out = Output::new(self.json);
        let shown = if self.json { out.value(reply.json()) } else { out.print(reply) };
        // A reader that went away ends the process there; nobody is left to tell of other failures.
        let _ = shown.and_then(|()| out.flush());
    }

    fn exit_status(&self, trap: &Trap) -> Option<u32> {
        trap.downcast_ref::<Exit>().map(|e| e.0)
    }
}

impl Run for ShellArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let guest = Wasi::new(vec!["shell".into()], wasi::Input::Stdin, wasi::Output::Stdout, wasi::Output::Stderr);
        let namespace = CrateNamespace::new("shell", Some(environment::namespace(&Arc::new(Mutex::new(guest)))?));
        let mut host = Files::new(&self.objects, out.json)?;
        let mut shell = Shell::new(namespace, &mut host);
        if !self.commands.is_empty() {
            return script(&mut shell, self.commands.into_iter().map(Ok), self.keep_going, out);
        }
        if std::io::stdin().is_terminal() {
            return interactive(&mut shell, out);
        }
        let lines = std::io::stdin().lock().lines().map(|l| l.map_err(|e| Failure::file("standard input", e)));
        script(&mut shell, lines, self.keep_going, out)
    }
}

/// Runs a line and shows what came of it. `Err`: the output is gone. `Ok(Some(f))`: the command failed.
fn step(shell: &mut Shell<'_>, line: &str, out: &mut Output) -> Result<Option<Failure>, Failure> {
    let reply = match shell.run_line(line) {
        None => return Ok(None),
        Some(Err(failure)) => return Ok(Some(failure)),
        Some(Ok(reply)) => reply,
    };
    if out.json {
        out.value(reply.json())?
    } else {
        out.print(&reply)?
    }
    out.flush()?;
    Ok(None)
}

fn is_exit(line: &str) -> bool {
    matches!(line.trim(), "exit" | "quit")
}

fn script(
    shell: &mut Shell<'_>,
    lines: impl Iterator<Item = Result<String, Failure>>,
    keep_going: bool,
    out: &mut Output,
) -> Result<Ending, Failure> {
    let mut ending = Ending::Success;
    for (n, line) in lines.enumerate() {
        let line = line?;
        if is_exit(&line) {
            break;
        }
        let Some(failure) = step(shell, &line, out)? else { continue };
        let placed = Failure::new(failure.kind, format!("line {}: {}", n + 1, failure.message));
        if !keep_going {
            return Err(placed);
        }
        if out.json {
            out.value(&placed.to_json())?;
        } else {
            out.flush()?;
            super::output::tell(format_args!("planks: {placed}"));
        }
        ending = Ending::Status(failure.kind.exit_code());
    }
    Ok(ending)
}

fn interactive(shell: &mut Shell<'_>, out: &mut Output) -> Result<Ending, Failure> {
    let failed = |e: ReadlineError| Failure::new(Kind::System, format!("terminal: {e}"));
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true).build();
    let mut editor: Editor<Words, DefaultHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Words { namespace: shell.namespace().clone(), files: FilenameCompleter::new() }));
    let history = history_file();
    if let Some(path) = &history {
        // The first session has none.
        let _ = editor.load_history(path);
    }
    out.line("Type help for the commands, exit to leave.")?;
    out.flush()?;
    loop {
        match editor.readline("planks> ") {
            Ok(line) if is_exit(&line) => break,
            Ok(line) => {
                if let Some(failure) = step(shell, &line, out)? {
                    super::output::tell(format_args!("{failure}"));
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(failed(e)),
        }
    }
    if let Some(path) = &history
        && let Err(e) = std::fs::create_dir_all(path.parent().unwrap_or(path))
            .map_err(ReadlineError::from)
            .and_then(|()| editor.save_history(path))
    {
        super::output::tell(format_args!("planks: the history could not be kept in {}: {e}", path.display()));
    }
    Ok(Ending::Success)
}

/// Where lines of earlier sessions are kept (XDG Base Directory Specification).
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("planks/history"))
}

/// Completes commands, cells, symbols and files.
#[derive(Helper, Hinter, Highlighter, Validator)]
struct Words {
    namespace: Arc<CrateNamespace>,
    files: FilenameCompleter,
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, cx: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..pos).unwrap_or(line);
        let start = before.rfind(char::is_whitespace).map_or(0, |i| i + 1);
        let word = &before[start..];
        let name = before.split_whitespace().next().unwrap_or("");
        let completes = match start {
            0 => Completes::Commands,
            _ => COMMANDS.iter().find(|c| c.name == name).map_or(Completes::Nothing, |c| c.completes),
        };
        let names: Vec<String> = match completes {
            Completes::Nothing => Vec::new(),
            Completes::Files => return self.files.complete(line, pos, cx),
            Completes::Commands => COMMANDS.iter().map(|c| c.name.to_string()).chain(["exit".into()]).collect(),
            Completes::Cells => self.namespace.crate_names(true).iter().map(|n| n.to_string()).collect(),
            Completes::Symbols => {
                self.namespace.find_symbols_starting_with(word).into_iter().map(|(n, _)| n.to_string()).collect()
            }
        };
        let fitting = names.into_iter().filter(|n| n.starts_with(word));
        Ok((start, fitting.map(|n| Pair { display: n.clone(), replacement: n }).collect()))
    }
}
