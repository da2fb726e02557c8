//! The command line of a kernel that injects faults.
//!
//! `inject=COUNT` with `seed=S`, `first=N` and `kind=K`, in any order.

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InjectionLine<'a> {
    /// `inject=`: faults of each kind.
    pub count: u64,
    /// `seed=`: where all randomness comes from; 1 unless given.
    pub seed: u64,
    /// `first=`: number of the first fault; 0 unless given.
    pub first: u64,
    /// `kind=`: only this kind.
    pub kind: Option<&'a str>,
}

impl<'a> InjectionLine<'a> {
    /// Reads a command line. `None`: it asks for something else.
    ///
    /// # Errors
    /// The first word that belongs to no such line, or whose number is none.
    pub fn parse(line: &'a str) -> Option<Result<Self, &'a str>> {
        let words = || line.split_ascii_whitespace();
        words().any(|w| w.starts_with("inject=")).then(|| {
            let mut this = Self { count: 0, seed: 1, first: 0, kind: None };
            for word in words() {
                let number = |text: &str| text.parse::<u64>().map_err(|_| word);
                match word.split_once('=').ok_or(word)? {
                    ("inject", count) => this.count = number(count)?,
                    ("seed", seed) => this.seed = number(seed)?,
                    ("first", first) => this.first = number(first)?,
                    ("kind", kind) => this.kind = Some(kind),
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
    fn a_campaign_is_read_in_any_order() {
        let line = InjectionLine::parse("seed=7 inject=100 kind=guest").expect("a campaign").expect("known words");
        assert_eq!(line, InjectionLine { count: 100, seed: 7, first: 0, kind: Some("guest") });
    }

    #[test]
    fn other_lines_are_none() {
        assert_eq!(InjectionLine::parse("test=cell"), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(InjectionLine::parse("inject=many"), Some(Err("inject=many")));
        assert_eq!(InjectionLine::parse("inject=1 run=a.wasm"), Some(Err("run=a.wasm")));
    }
}
