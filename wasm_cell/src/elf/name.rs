//! Symbol names in a string table. A wasm name is any UTF-8; an ELF string ends at its first zero byte.

use alloc::{borrow::Cow, string::String};

/// `name` without zero bytes: `\0` for them, and `\\` for a backslash so that [`unescape`] can tell.
pub fn escape(name: &str) -> Cow<'_, str> {
    match name.contains(['\0', '\\']) {
        false => Cow::Borrowed(name),
        true => Cow::Owned(name.replace('\\', "\\\\").replace('\0', "\\0")),
    }
}

/// The name that [`escape`] was given.
pub fn unescape(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().as_bytes().first()) {
            ('\\', Some(b'0')) => {
                chars.next();
                result.push('\0');
            }
            ('\\', Some(b'\\')) => {
                chars.next();
                result.push('\\');
            }
            _ => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescape_reverses_escape() {
        for name in ["", "plain", "\0", "\\", "\\0", "\\\0\\\\0é", "a\\"] {
            let escaped = escape(name);
            assert!(!escaped.contains('\0'));
            assert_eq!(unescape(&escaped), name);
        }
    }
}
