//! A line into words.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Splits a line at white space. Quotes, single or double, keep white space in a word; a backslash takes the next
/// character as it is (but not within single quotes); `#` at the start of a word begins a comment.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or_else(|| "nothing follows the backslash at the end".to_string())?;
                word.get_or_insert_default().push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(q) = quote {
        return Err(alloc::format!("the quote {q} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_keep_words_together() {
        assert_eq!(split(r#" call  a::"b c" '' x\ y # no"#).unwrap(), ["call", "a::b c", "", "x y"]);
        assert_eq!(split("a#b").unwrap(), ["a#b"]);
        assert!(split("# only a comment").unwrap().is_empty());
    }

    #[test]
    fn unfinished_words_are_errors() {
        assert!(split("a 'b").is_err());
        assert!(split("a\\").is_err());
    }
}
