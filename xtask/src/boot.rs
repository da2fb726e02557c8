//! `cargo xtask boot`.

use std::{path::PathBuf, process::ExitCode, time::Duration};
use xtask::{
    archive, kernel,
    machine::{Ending, Machine, run_command_line},
    qemu, third_party,
};

/// What the arguments ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    test: Option<String>,
    /// The words of a campaign of faults.
    inject: Option<String>,
    /// Which third-party modules.
    third_party: Option<String>,
    /// The words of a storm of swaps.
    storm: Option<String>,
    measure: bool,
    module: Option<PathBuf>,
    invoke: Option<String>,
    args: Vec<String>,
    image: Option<PathBuf>,
    board: Option<String>,
    cpu: Option<String>,
    memory: Option<u32>,
    icount: bool,
    timeout: Option<u64>,
}

impl Request {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut this = Self::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("`{arg}` needs a value"));
            match arg.as_str() {
                "--test" => this.test = Some(String::new()),
                "--third-party" => this.third_party = Some(String::new()),
                "--inject" => this.inject = Some(value()?),
                "--storm" => this.storm = Some(value()?),
                "--measure" => (this.measure, this.icount) = (true, true),
                "--module" => this.module = Some(value()?.into()),
                "--image" => this.image = Some(value()?.into()),
                "--machine" => this.board = Some(value()?),
                "--cpu" => this.cpu = Some(value()?),
                "--memory" => this.memory = Some(number(&value()?)?),
                "--timeout" => this.timeout = Some(number(&value()?)?),
                "--icount" => this.icount = true,
                "--invoke" => {
                    this.invoke = Some(value()?);
                    this.args.extend(args.by_ref());
                }
                _ => match arg.split_once('=') {
                    Some(("--test", part)) => this.test = Some(part.into()),
                    Some(("--third-party", part)) => this.third_party = Some(part.into()),
                    _ => return Err(format!("unknown argument `{arg}`")),
                },
            }
        }
        let asked = [
            ("--test", this.test.is_some()),
            ("--module", this.module.is_some()),
            ("--inject", this.inject.is_some()),
            ("--third-party", this.third_party.is_some()),
            ("--storm", this.storm.is_some()),
            ("--measure", this.measure),
        ];
        let given: Vec<&str> = asked.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        match given[..] {
            [_] => Ok(this),
            [] => {
                Err("nothing to do: give `--test`, `--module FILE`, `--inject COUNT`, `--third-party`, `--storm SWAPS` or `--measure`"
                    .into())
            }
            [first, second, ..] => Err(format!("`{first}` and `{second}` exclude each other")),
        }
    }

    /// Whether it asks for what only the image for tests has.
    fn needs_testing_image(&self) -> bool {
        self.test.is_some()
            || self.third_party.is_some()
            || self.inject.is_some()
            || self.storm.is_some()
            || self.measure
    }

    /// The command line and the boot archive for the kernel.
    fn payload(&self) -> Result<(String, Option<Vec<u8>>), String> {
        if let Some(part) = &self.third_party {
            let line = if part.is_empty() { "third-party".into() } else { format!("third-party={part}") };
            let target = std::env::current_exe().ok().and_then(|exe| exe.ancestors().nth(2).map(third_party::folder));
            let folder = target.unwrap_or_else(std::env::temp_dir);
            return third_party::archive(&folder).map(|archive| (line, Some(archive))).map_err(|e| e.to_string());
        }
        if let Some(words) = &self.inject {
            return Ok((format!("inject={words}"), None));
        }
        if let Some(words) = &self.storm {
            return Ok((format!("storm={words}"), None));
        }
        if self.measure {
            return Ok(("measure".into(), None));
        }
        let Some(module) = &self.module else {
            let part = self.test.as_deref().unwrap_or_default();
            return Ok((if part.is_empty() { "test".into() } else { format!("test={part}") }, None));
        };
        let bytes = wat::parse_file(module).map_err(|e| e.to_string())?;
        let stem = module.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = format!("{stem}.wasm");
        let line = run_command_line(&name, self.invoke.as_deref(), &self.args).map_err(|e| e.to_string())?;
        Ok((line, Some(archive::Builder::new().file(&name, &bytes).finish())))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

/// Runs the command; the arguments follow `boot`.
pub fn run(args: impl Iterator<Item = String>) -> ExitCode {
    let request = match Request::parse(args) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("error: {error} (see `cargo xtask help`)");
            return ExitCode::from(2);
        }
    };
    match boot(&request) {
        Ok(Ending::Success) => ExitCode::SUCCESS,
        Ok(Ending::Failure) => ExitCode::FAILURE,
        Ok(Ending::Fatal) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}

fn boot(request: &Request) -> Result<Ending, Box<dyn std::error::Error>> {
    let (line, mut archive) = request.payload()?;
    let qemu = qemu::ensure()?;
    let image = match &request.image {
        Some(image) => image.clone(),
        None if request.needs_testing_image() => kernel::build_testing()?,
        None => kernel::build()?,
    };
    if request.test.is_some() {
        archive = Some(archive::Builder::new().symbols(&image).native_cells()?.finish());
    }
    let mut machine = Machine::new(qemu, image);
    machine.icount = request.icount;
    if let Some(board) = &request.board {
        machine.board.clone_from(board);
    }
    if let Some(cpu) = &request.cpu {
        machine.cpu.clone_from(cpu);
    }
    if let Some(memory) = request.memory {
        machine.memory = memory;
    }
    if let Some(seconds) = request.timeout {
        machine.timeout = Duration::from_secs(seconds);
    }
    Ok(machine.run(&line, archive.as_deref(), |line| println!("{line}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments_behind_the_function_are_the_functions() {
        let request = parse("--cpu qemu64 --module a.wasm --invoke f 1 --test").unwrap();
        assert_eq!(request.args, ["1", "--test"]);
        assert_eq!((request.invoke.as_deref(), request.test), (Some("f"), None));
    }

    #[test]
    fn wrong_usage_is_named() {
        assert!(parse("").unwrap_err().contains("nothing to do"));
        assert!(parse("--memory much").unwrap_err().contains("much"));
        assert!(parse("--modul a").unwrap_err().contains("--modul"));
        assert!(parse("--module").unwrap_err().contains("needs a value"));
        assert!(parse("--test --third-party=sql").unwrap_err().contains("exclude each other"));
        assert_eq!(parse("--third-party=sql").unwrap().third_party.as_deref(), Some("sql"));
        assert!(parse("--storm 5 --inject 5").unwrap_err().contains("`--inject` and `--storm` exclude each other"));
    }

    #[test]
    fn what_the_kernel_is_to_do_becomes_its_command_line() {
        let line = |words| parse(words).unwrap().payload().unwrap().0;
        assert_eq!(line("--storm 100000"), "storm=100000");
        assert_eq!(line("--test=cell"), "test=cell");
        let measure = parse("--measure").unwrap();
        assert_eq!((measure.payload().unwrap().0.as_str(), measure.icount), ("measure", true));
        assert!(measure.needs_testing_image() && !parse("--module a.wasm").unwrap().needs_testing_image());
    }
}
