//! The line number program of a unit, run until it reaches an address (DWARF 5, 6.2).
//!
//! Its rows are not stored: a program is a few times smaller than they are, and runs once per address.

use super::unit::{OpenUnit, Row};
use super::{Budget, Reader};
use gimli::{ColumnType, FileEntry, LineProgram, LineProgramHeader, LineRow};

/// A program whose file table stays as it is: entries that instructions add have no limit and no producer.
struct Running<'u, 'd>(&'u LineProgramHeader<Reader<'d>>);

impl<'d> LineProgram<Reader<'d>> for Running<'_, 'd> {
    fn header(&self) -> &LineProgramHeader<Reader<'d>> {
        self.0
    }

    fn add_file(&mut self, _: FileEntry<Reader<'d>>) {}
}

/// The row of an address: the last one of its sequence that is not behind it.
pub(super) fn find(unit: &OpenUnit<'_, '_>, address: u64, budget: &mut Budget) -> Option<Row> {
    let header = unit.line_header()?;
    let mut program = Running(header);
    let mut instructions = header.instructions();
    let mut state = LineRow::new(header);
    let mut last: Option<(u64, Row)> = None;
    while let Some(instruction) = instructions.next_instruction(header).ok()? {
        budget.spend(1)?;
        if !state.execute(instruction, &mut program).ok()? {
            continue;
        }
        if let Some((begin, row)) = last
            && (begin..state.address()).contains(&address)
        {
            return Some(row);
        }
        last = (!state.end_sequence()).then(|| (state.address(), row(&state)));
        state.reset(header);
    }
    None
}

fn row(state: &LineRow) -> Row {
    let narrow = |n: u64| u32::try_from(n).unwrap_or(0);
    Row {
        file: state.file_index(),
        line: state.line().map_or(0, |n| narrow(n.get())),
        column: match state.column() {
            ColumnType::LeftEdge => 0,
            ColumnType::Column(n) => narrow(n.get()),
        },
    }
}
