//! Whether code writes tables: a module without memory and mutable globals whose tables are only read has no state.

use crate::metadata::{ExportItem, Metadata};
use crate::module::Body;
use wasmparser::Operator;

/// Whether anything but instantiation can write a table of the module. Bodies are looked at only when that decides whether
/// the module has mutable state; one that cannot be parsed, which validation will say, counts as one that writes.
pub(crate) fn any(meta: &Metadata, bodies: &[Body<'_>]) -> bool {
    if meta.tables.is_empty() {
        return false;
    }
    let is_shared = meta.imported_tables > 0 || meta.exports.iter().any(|e| matches!(e.item, ExportItem::Table(_)));
    let has_other_state = !meta.memories.is_empty() || meta.globals.iter().any(|g| g.ty.mutable);
    is_shared || has_other_state || bodies.iter().any(writes)
}

fn writes(body: &Body<'_>) -> bool {
    let Ok(reader) = body.body.get_operators_reader() else { return true };
    reader.into_iter().any(|op| {
        use Operator::{TableCopy, TableFill, TableGrow, TableInit, TableSet};
        let write = |op| {
            matches!(op, TableSet { .. } | TableGrow { .. } | TableFill { .. } | TableCopy { .. } | TableInit { .. })
        };
        op.map_or(true, write)
    })
}
