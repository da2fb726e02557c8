//! The compilers that tests of native cells use: finds them, or installs them. Tests that need one that is not there say so and pass; one that was
//! found here must be there for them, too ([`VARIABLE`]).

use crate::apt;

/// Names the programs that were found, with commas between.
pub const VARIABLE: &str = "PLANKS_COMPILERS";

/// Programs, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 5] =
    [("gcc", "gcc"), ("g++", "g++"), ("clang", "clang"), ("clang++", "clang"), ("ld", "binutils")];

/// What there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compilers {
    /// Programs that are there.
    pub found: Vec<&'static str>,
    /// Programs that are not.
    pub missing: Vec<&'static str>,
    /// Why those could not be installed.
    pub because: Option<String>,
}

/// Looks for the programs, and installs those that are missing if this is Debian and we are root.
#[must_use]
pub fn ensure() -> Compilers {
    let missing = look(&|program| apt::find(program).is_some()).missing;
    let packages: Vec<&str> =
        PROGRAMS.iter().filter(|(p, _)| missing.contains(p)).map(|(_, package)| *package).collect();
    let because = match packages.is_empty() {
        true => None,
        false if apt::is_usable() => apt::install(&packages).err(),
        false => Some(format!("`apt-get install {}` (Debian, Ubuntu)", packages.join(" "))),
    };
    Compilers { because, ..look(&|program| apt::find(program).is_some()) }
}

fn look(is_there: &dyn Fn(&str) -> bool) -> Compilers {
    let (found, missing) = PROGRAMS.iter().map(|(program, _)| *program).partition(|p| is_there(p));
    Compilers { found, missing, because: None }
}

impl Compilers {
    /// One line about them.
    #[must_use]
    pub fn line(&self) -> String {
        let because = self.because.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        match self.missing.is_empty() {
            true => format!("native cells are tested with {}", self.found.join(", ")),
            false => format!("NOT TESTED with {}{because}", self.missing.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let some = look(&|program| program.starts_with('g'));
        assert_eq!((&some.found[..], &some.missing[..]), (&["gcc", "g++"][..], &["clang", "clang++", "ld"][..]));
        let line = Compilers { because: Some("no network".into()), ..some }.line();
        assert!(line.contains("NOT TESTED") && line.contains("clang++") && line.contains("no network"), "{line}");
        assert!(look(&|_| true).line().contains("are tested with gcc, g++, clang"));
    }
}
