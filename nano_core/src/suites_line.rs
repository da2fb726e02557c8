//! The command line of a kernel that carries the suites.
//!
//! `scripts[=PART]` or `third-party[=PART]`.

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuitesLine<'a> {
    /// `scripts`: the spec scripts of the boot archive whose name contains this.
    Scripts(&'a str),
    /// `third-party`: the modules of other people, those whose name contains this.
    ThirdParty(&'a str),
}

impl<'a> SuitesLine<'a> {
    /// Reads a command line. `None`: it asks for something else.
    pub fn parse(line: &'a str) -> Option<Self> {
        match line.trim().split_once('=').unwrap_or((line.trim(), "")) {
            ("scripts", part) => Some(Self::Scripts(part)),
            ("third-party", part) => Some(Self::ThirdParty(part)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_may_be_named() {
        assert_eq!(SuitesLine::parse("scripts"), Some(SuitesLine::Scripts("")));
        assert_eq!(SuitesLine::parse(" third-party=sql "), Some(SuitesLine::ThirdParty("sql")));
    }

    #[test]
    fn other_lines_are_none() {
        assert_eq!(SuitesLine::parse("test=cell"), None);
        assert_eq!(SuitesLine::parse("run=scripts"), None);
    }
}
