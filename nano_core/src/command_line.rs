//! The kernel's command line.
//!
//! Words separated by blanks: `test`, or `run=FILE` with `invoke=FUNCTION` and `args=A,B,…`, or `shell`.

use core::fmt;

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandLine<'a> {
    /// `test`: run the checks that the kernel carries, instead of anything else. `test=PART` only those whose name
    /// contains `PART`.
    pub test: Option<&'a str>,
    /// `run=`: name of a wasm module in the boot archive.
    pub run: Option<&'a str>,
    /// `invoke=`: the export to call.
    pub invoke: Option<&'a str>,
    /// `shell`: commands from the serial console.
    pub shell: bool,
    /// `fault=`: make the kernel itself fault in this way.
    pub fault: Option<&'a str>,
    /// `args=`: its arguments, separated by commas.
    pub args: &'a str,
}

/// A word that means nothing to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownWord<'a>(pub &'a str);

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown word `{}` on the command line; known: test[=PART] run=FILE invoke=FUNCTION args=A,B shell fault=KIND",
            self.0
        )
    }
}

impl core::error::Error for UnknownWord<'_> {}

impl<'a> CommandLine<'a> {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// The first word that is not known.
    pub fn parse(line: &'a str) -> Result<Self, UnknownWord<'a>> {
        let mut this = Self::default();
        for word in line.split_ascii_whitespace() {
            match word.split_once('=').unwrap_or((word, "")) {
                ("test", part) => this.test = Some(part),
                ("run", file) => this.run = Some(file),
                ("invoke", function) => this.invoke = Some(function),
                ("shell", "") => this.shell = true,
                ("fault", kind) => this.fault = Some(kind),
                ("args", args) => this.args = args,
                _ => return Err(UnknownWord(word)),
            }
        }
        Ok(this)
    }

    /// The arguments one by one.
    pub fn arguments(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.args.split(',').filter(|a| !a.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn words_are_read_in_any_order() {
        let line = CommandLine::parse(" invoke=fib  args=20,-1 run=fib.wasm ").expect("known words");
        assert_eq!((line.run, line.invoke, line.test), (Some("fib.wasm"), Some("fib"), None));
        assert_eq!(line.arguments().collect::<Vec<_>>(), ["20", "-1"]);
    }

    #[test]
    fn no_arguments_are_none() {
        assert_eq!(CommandLine::parse("run=a invoke=f").expect("known words").arguments().count(), 0);
    }

    #[test]
    fn shell_takes_no_value() {
        assert!(CommandLine::parse("shell").expect("a known word").shell);
        assert_eq!(CommandLine::parse("shell=x"), Err(UnknownWord("shell=x")));
    }

    #[test]
    fn an_unknown_word_is_named() {
        assert_eq!(CommandLine::parse("test tset"), Err(UnknownWord("tset")));
    }
}
