//! numeric

use super::FuncTranslator;
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(_t: &mut FuncTranslator<'_>, _op: &Operator<'_>) -> bool {
    false
}
