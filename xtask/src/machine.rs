//! Runs the kernel in QEMU.

use crate::ymodem::Sender;
use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

/// A machine to boot.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The emulator's program.
    pub qemu: PathBuf,
    /// The kernel image.
    pub image: PathBuf,
    /// QEMU's `-machine`: `pc`, `q35`.
    pub board: String,
    /// QEMU's `-cpu`: from `qemu64` to `max`.
    pub cpu: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Count instructions: runs are identical to the last bit, and several times slower.
    pub icount: bool,
    /// Longest time for the whole run.
    pub timeout: Duration,
}

/// How a run ended: what the kernel wrote to the exit device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything asked for was done.
    Success,
    /// A check failed, a call trapped, a file is missing.
    Failure,
    /// The kernel itself could not go on.
    Fatal,
}

/// Why a run has no ending.
#[derive(Debug)]
pub enum MachineError {
    /// QEMU could not be started, or its output not be read.
    Io(io::Error),
    /// The kernel did not end in time (seconds). Its last output may say why.
    Timeout(u64),
    /// QEMU ended without a status from the kernel: a wrong option, or the processor gave up (triple fault).
    NoStatus(String),
    /// A word for the kernel's command line that contains a blank or a comma.
    Word(String),
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "QEMU: {error}"),
            Self::Timeout(seconds) => write!(f, "the kernel did not end within {seconds} s"),
            Self::NoStatus(status) => write!(f, "QEMU ended without a status from the kernel ({status})"),
            Self::Word(word) => write!(f, "`{word}` cannot be passed to the kernel: it contains a blank or a comma"),
        }
    }
}

impl std::error::Error for MachineError {}

impl From<io::Error> for MachineError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Machine {
    /// A machine with QEMU's usual board, all processor features that it can emulate, and 256 MiB.
    pub fn new(qemu: PathBuf, image: PathBuf) -> Self {
        Self {
            qemu,
            image,
            board: "pc".into(),
            cpu: "max".into(),
            memory: 256,
            icount: false,
            timeout: Duration::from_secs(120),
        }
    }

    /// Boots with a command line and a boot archive, and gives each line of the console to `output`.
    ///
    /// # Errors
    /// The machine could not be started, or did not end by the kernel's will.
    pub fn run(
        &self,
        command_line: &str,
        archive: Option<&[u8]>,
        output: impl FnMut(&str),
    ) -> Result<Ending, MachineError> {
        self.converse(command_line, archive, &[], output)
    }

    /// As [`Self::run`], and types: each time a line contains the first text of the next pair, the second. What is typed
    /// before the kernel has set its serial port up is lost; its shell begins with [`SHELL_GREETING`].
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn converse(
        &self,
        command_line: &str,
        archive: Option<&[u8]>,
        typed: &[(&str, &str)],
        output: impl FnMut(&str),
    ) -> Result<Ending, MachineError> {
        let script: Vec<_> = typed.iter().map(|(after, keys)| (*after, Input::Keys(keys))).collect();
        self.play(command_line, archive, &script, output)
    }

    /// As [`Self::converse`], with files among what is typed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn play(
        &self,
        command_line: &str,
        archive: Option<&[u8]>,
        script: &[(&str, Input<'_>)],
        output: impl FnMut(&str),
    ) -> Result<Ending, MachineError> {
        let archive = archive.map(TemporaryFile::with).transpose()?;
        self.talk(self.command(command_line, archive.as_ref().map(|a| a.path.as_path())), script, output)
    }

    /// As [`Self::play`], with a command that starts the emulator in its own way.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn talk(
        &self,
        mut qemu: Command,
        script: &[(&str, Input<'_>)],
        mut output: impl FnMut(&str),
    ) -> Result<Ending, MachineError> {
        let stdin = if script.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut child = Running(qemu.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let pieces = pieces_of(&mut child.0);
        let keyboard = child.0.stdin.take().map(keyboard);
        // A machine that has ended reads no more, and says itself how it ended.
        let type_in = |bytes: &[u8]| drop(keyboard.as_ref().map(|k| k.send(bytes.to_vec())));
        let mut script = script.iter().peekable();
        let mut sender: Option<Sender> = None;
        let end = Instant::now() + self.timeout;
        let (mut unfinished, mut last) = ([Vec::new(), Vec::new()], String::new());
        loop {
            let (source, bytes) = match pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(piece) => piece,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(MachineError::Timeout(self.timeout.as_secs())),
            };
            for byte in bytes {
                if let Some(answer) = sender.as_mut().and_then(|s| s.answer(byte)) {
                    type_in(answer);
                }
                if byte != b'\n' {
                    unfinished[source].push(byte);
                    continue;
                }
                let line = finish(&mut unfinished[source]);
                output(&line);
                match script.next_if(|(after, _)| line.contains(after)) {
                    Some((_, Input::Keys(keys))) => type_in(keys.as_bytes()),
                    Some((_, Input::Files(files))) => sender = Some(Sender::new(files)),
                    None => {}
                }
                last = line;
            }
        }
        for rest in unfinished.iter_mut().filter(|rest| !rest.is_empty()) {
            last = finish(rest);
            output(&last);
        }
        ending(child.0.wait()?, &last)
    }

    /// Boots with this process's terminal as the console. There is no time limit.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn interact(&self, command_line: &str, archive: Option<&[u8]>) -> Result<Ending, MachineError> {
        let archive = archive.map(TemporaryFile::with).transpose()?;
        // Control-C is for the kernel's shell.
        let console = ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"];
        let mut qemu = self.command_with(console, command_line, archive.as_ref().map(|a| a.path.as_path()));
        ending(Running(qemu.spawn()?).0.wait()?, "")
    }

    /// The command that starts it.
    pub fn command(&self, command_line: &str, archive: Option<&Path>) -> Command {
        self.command_with(["-serial", "stdio"], command_line, archive)
    }

    fn command_with<const N: usize>(&self, console: [&str; N], command_line: &str, archive: Option<&Path>) -> Command {
        let mut qemu = Command::new(&self.qemu);
        qemu.args(["-accel", "tcg", "-no-reboot", "-nic", "none", "-display", "none", "-monitor", "none"]);
        qemu.args(console).args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        qemu.args(["-machine", &self.board, "-cpu", &self.cpu, "-m", &self.memory.to_string()]);
        if self.icount {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.arg("-kernel").arg(&self.image).args(["-append", command_line]);
        if let Some(archive) = archive {
            qemu.arg("-initrd").arg(archive);
        }
        qemu
    }
}

/// What the kernel's shell says first.
pub const SHELL_GREETING: &str = "Type help for the commands";

/// What is typed at a machine's console.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Text.
    Keys(&'a str),
    /// Files by name and content, sent by YMODEM to who receives.
    Files(&'a [(&'a str, &'a [u8])]),
}

/// Types what it is sent into a machine's console, at the speed that it reads.
fn keyboard(mut console: ChildStdin) -> mpsc::Sender<Vec<u8>> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        receiver.iter().try_for_each(|keys| console.write_all(&keys).and_then(|()| console.flush()))
    });
    sender
}

/// What QEMU's status says. Its exit device makes it 2 * value + 1; the values are those of nano_core's `exit::Status`.
fn ending(status: ExitStatus, last: &str) -> Result<Ending, MachineError> {
    match status.code() {
        Some(33) => Ok(Ending::Success),
        Some(35) => Ok(Ending::Failure),
        Some(37) => Ok(Ending::Fatal),
        Some(code) => Err(MachineError::NoStatus(format!("exit status {code}; last line: `{last}`"))),
        None => Err(MachineError::NoStatus("ended by a signal".into())),
    }
}

/// The kernel's command line that runs a module of the boot archive.
///
/// # Errors
/// A word that the command line cannot carry.
pub fn run_command_line(file: &str, invoke: Option<&str>, args: &[String]) -> Result<String, MachineError> {
    let all = [file].into_iter().chain(invoke).chain(args.iter().map(String::as_str));
    if let Some(word) = all.into_iter().find(|w| w.is_empty() || w.contains([' ', '\t', '\n', ','])) {
        return Err(MachineError::Word(word.into()));
    }
    let invoke = invoke.map(|f| format!(" invoke={f}")).unwrap_or_default();
    let args = if args.is_empty() { String::new() } else { format!(" args={}", args.join(",")) };
    Ok(format!("run={file}{invoke}{args}"))
}

/// Takes a line's bytes as text.
fn finish(line: &mut Vec<u8>) -> String {
    String::from_utf8_lossy(&std::mem::take(line)).trim_end_matches('\r').to_owned()
}

/// Reads both outputs of a child as bytes come, each with the number of the output; the channel closes when both have ended.
fn pieces_of(child: &mut Child) -> mpsc::Receiver<(usize, Vec<u8>)> {
    let (sender, receiver) = mpsc::channel();
    let outputs: [Option<Box<dyn io::Read + Send>>; 2] =
        [child.stdout.take().map(|o| Box::new(o) as _), child.stderr.take().map(|e| Box::new(e) as _)];
    for (source, mut output) in outputs.into_iter().enumerate().filter_map(|(i, o)| Some((i, o?))) {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send((source, bytes[..count].to_vec())).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// A child that is ended when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that is removed when dropped.
struct TemporaryFile {
    path: PathBuf,
}

impl TemporaryFile {
    fn with(content: &[u8]) -> io::Result<Self> {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos());
        let path = std::env::temp_dir().join(format!("planks-boot-{}-{nanos}.cpio", std::process::id()));
        let mut file = File::create_new(&path)?;
        let this = Self { path };
        file.write_all(content)?;
        Ok(this)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_module_function_and_arguments() {
        let line = run_command_line("a.wasm", Some("f"), &["1".into(), "-2".into()]).unwrap();
        assert_eq!(line, "run=a.wasm invoke=f args=1,-2");
        assert_eq!(run_command_line("a.wasm", None, &[]).unwrap(), "run=a.wasm");
    }

    #[test]
    fn words_that_would_be_read_as_several_are_refused() {
        assert!(run_command_line("a b.wasm", None, &[]).is_err());
        assert!(run_command_line("a.wasm", Some("f"), &["1,2".into()]).is_err());
        assert!(run_command_line("a.wasm", Some("f"), &[String::new()]).is_err());
    }

    #[test]
    fn a_machine_that_never_ends_is_stopped() {
        use std::os::unix::fs::PermissionsExt;
        let script = TemporaryFile::with(b"#!/bin/sh\necho booting\nexec sleep 60\n").unwrap();
        std::fs::set_permissions(&script.path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut machine = Machine::new(script.path.clone(), "image".into());
        machine.timeout = Duration::from_millis(500);
        let (mut lines, start) = (Vec::new(), Instant::now());
        let outcome = machine.run("", None, |l| lines.push(l.to_owned()));
        assert!(matches!(outcome, Err(MachineError::Timeout(_))), "{outcome:?}");
        assert_eq!(lines, ["booting"]);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn an_emulator_that_fails_or_is_missing_is_an_error() {
        let failing = Machine::new("/bin/false".into(), "image".into());
        assert!(matches!(failing.run("", None, |_| ()), Err(MachineError::NoStatus(_))));
        let missing = Machine::new("/nonexistent/qemu".into(), "image".into());
        assert!(matches!(missing.run("", None, |_| ()), Err(MachineError::Io(_))));
    }
}
