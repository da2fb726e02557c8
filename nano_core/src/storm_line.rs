//! The command line of a kernel that swaps cells under running callers.
//!
//! `storm=SWAPS` with `seed=S` and `callers=N`, in any order.

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StormLine {
    /// `storm=`: how many swaps.
    pub swaps: u64,
    /// `seed=`: where all randomness comes from; 1 unless given.
    pub seed: u64,
    /// `callers=`: tasks that call; 2 unless given.
    pub callers: u32,
}

impl StormLine {
    /// Reads a command line. `None`: it asks for something else.
    ///
    /// # Errors
    /// The first word that belongs to no such line, or whose number is none.
    pub fn parse(line: &str) -> Option<Result<Self, &str>> {
        let words = || line.split_ascii_whitespace();
        words().any(|w| w.starts_with("storm=")).then(|| {
            let mut this = Self { swaps: 0, seed: 1, callers: 2 };
            for word in words() {
                let (name, value) = word.split_once('=').ok_or(word)?;
                match name {
                    "storm" => this.swaps = value.parse().map_err(|_| word)?,
                    "seed" => this.seed = value.parse().map_err(|_| word)?,
                    "callers" => this.callers = value.parse().map_err(|_| word)?,
                    _ => return Err(word),
                }
            }
            Ok(this)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_read_in_any_order() {
        let line = StormLine::parse("callers=3 storm=100000 seed=7").expect("a storm").expect("known words");
        assert_eq!(line, StormLine { swaps: 100_000, seed: 7, callers: 3 });
        assert_eq!(StormLine::parse("storm=5"), Some(Ok(StormLine { swaps: 5, seed: 1, callers: 2 })));
    }

    #[test]
    fn other_lines_are_none_and_what_makes_no_sense_is_named() {
        assert_eq!(StormLine::parse("inject=1 seed=2"), None);
        assert_eq!(StormLine::parse("storm=many"), Some(Err("storm=many")));
        assert_eq!(StormLine::parse("storm=1 callers=-1"), Some(Err("callers=-1")));
        assert_eq!(StormLine::parse("storm=1 kind=guest"), Some(Err("kind=guest")));
    }
}
