//! Whether a trap is the one a script expects.

use wasm_cell::trap::TrapCode;

/// Whether the script's message describes a trap with this code. Scripts abbreviate, add the index of the element, and
/// have changed their words over the years.
pub fn describes_trap(expected: &str, code: TrapCode) -> bool {
    let message = code.message();
    if expected.starts_with(message) || message.starts_with(expected) {
        return true;
    }
    match code {
        TrapCode::TableOutOfBounds => ["undefined", "out of bounds"].iter().any(|m| expected.starts_with(m)),
        TrapCode::IndirectCallToNull => ["uninitialized", "null function"].iter().any(|m| expected.starts_with(m)),
        TrapCode::NullReference => expected.starts_with("null"),
        TrapCode::BadSignature => expected.starts_with("indirect call"),
        TrapCode::MemoryOutOfBounds => expected.starts_with("out of bounds"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_suffixes_and_abbreviations_are_accepted() {
        assert!(describes_trap("uninitialized element 7", TrapCode::IndirectCallToNull));
        assert!(describes_trap("uninitialized", TrapCode::IndirectCallToNull));
        assert!(describes_trap("undefined element", TrapCode::TableOutOfBounds));
        assert!(describes_trap("null function reference", TrapCode::NullReference));
    }

    #[test]
    fn another_trap_is_not_accepted() {
        assert!(!describes_trap("integer overflow", TrapCode::IntegerDivisionByZero));
        assert!(!describes_trap("unreachable", TrapCode::StackOverflow));
        assert!(!describes_trap("undefined element", TrapCode::IndirectCallToNull));
    }
}
