//! Text for people, with names of the guest in it.
//!
//! Names come from modules, and modules are not trusted: a control character in one would reach the terminal, which takes it
//! for an order. [`Printable`] shows such characters escaped. Results for scripts are JSON, which escapes them itself.

use core::fmt::{self, Write};

/// Shows `T` with control characters escaped, except line breaks and tabs.
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

/// Characters that change how others are shown, or move the cursor: controls, and marks of text direction.
fn is_order(c: char) -> bool {
    let shown = matches!(c, '\n' | '\t');
    !shown && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, mut s: &str) -> fmt::Result {
        while let Some((at, c)) = s.char_indices().find(|(_, c)| is_order(*c)) {
            self.0.write_str(&s[..at])?;
            write!(self.0, "{}", c.escape_default())?;
            s = &s[at + c.len_utf8()..];
        }
        self.0.write_str(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn control_characters_of_names_do_not_reach_the_terminal() {
        assert_eq!(
            Printable("a\u{1b}[2Jb\tc\nd\u{9b}e\r\u{202e}ü").to_string(),
            "a\\u{1b}[2Jb\tc\nd\\u{9b}e\\r\\u{202e}ü"
        );
        assert_eq!(Printable(format_args!("{}-{}", "x\u{7}", 1)).to_string(), "x\\u{7}-1");
    }
}
