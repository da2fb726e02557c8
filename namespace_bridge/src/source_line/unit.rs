//! Units of a module's DWARF: which one covers an address, and opening one safely.

use super::{Budget, CANDIDATES, Reader};
use alloc::{string::String, sync::Arc, vec::Vec};
use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfoOffset, Dwarf, LineProgramHeader,
    LittleEndian, RangeListsOffset, Reader as _, Unit, UnitHeader,
};
use runtime_port::backtrace::Location;

/// Bytes a unit's table of abbreviations may have. gimli makes some 130 bytes of an entry of three.
const ABBREVIATIONS_BYTES: usize = 64 << 10;
/// Attributes an abbreviation may have.
const ATTRIBUTES: usize = 256;
/// Bytes the file table of a line number program may have. gimli makes some 150 bytes of an entry of one.
const FILE_TABLE_BYTES: usize = 256 << 10;
/// Bytes of a name or path that are kept.
const NAME_BYTES: usize = 1024;
/// Units and their address ranges an index may have.
const RANGES: usize = 1 << 18;

/// Where units lie in `.debug_info`, and the addresses they cover.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// In the order of the section.
    units: Vec<u32>,
    ranges: Vec<Covered>,
}

/// A unit's addresses from `begin` to before `end`.
#[derive(Debug, Clone, Copy)]
struct Covered {
    begin: u32,
    end: u32,
    unit: u32,
}

impl Index {
    /// Reads all units' headers and ranges, as far as the budget goes.
    pub(super) fn new(dwarf: &Dwarf<Reader<'_>>, budget: &mut Budget) -> Index {
        let mut index = Index::default();
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            if index.add(dwarf, header, budget).is_none() {
                break;
            }
        }
        index
    }

    /// Adds a unit; `None` when there is no room or no budget for more.
    fn add(&mut self, dwarf: &Dwarf<Reader<'_>>, header: UnitHeader<Reader<'_>>, budget: &mut Budget) -> Option<()> {
        budget.spend(16)?;
        let offset = u32::try_from(header.debug_info_offset()?.0).ok()?;
        push(&mut self.units, offset)?;
        let Some(unit) = OpenUnit::from_header(dwarf, header, budget) else { return (budget.0 > 0).then_some(()) };
        let before = self.ranges.len();
        if let Some(pcs) = unit.root_pcs(budget) {
            pcs.for_each(&unit, budget, |begin, end| {
                let (begin, end) = (u32::try_from(begin).ok()?, u32::try_from(end).unwrap_or(u32::MAX));
                push(&mut self.ranges, Covered { begin, end, unit: offset })
            });
        }
        if self.ranges.len() == before {
            // It does not say what it covers, so it is tried when no other unit covers an address.
            push(&mut self.ranges, Covered { begin: 0, end: u32::MAX, unit: offset })?;
        }
        (budget.0 > 0).then_some(())
    }

    /// The units that cover an address, those with the smallest range first.
    pub(super) fn candidates(&self, address: u64) -> [Option<DebugInfoOffset>; CANDIDATES] {
        let covering = |c: &&Covered| (u64::from(c.begin)..u64::from(c.end)).contains(&address);
        let mut best: [Option<Covered>; CANDIDATES] = [None; CANDIDATES];
        for covered in self.ranges.iter().filter(covering) {
            if best.iter().flatten().any(|b| b.unit == covered.unit) {
                continue;
            }
            let size = |c: &Covered| c.end - c.begin;
            let mut new = Some(*covered);
            for place in &mut best {
                if let Some(c) = new
                    && place.is_none_or(|p| size(&c) < size(&p))
                {
                    new = place.replace(c);
                }
            }
        }
        best.map(|c| c.map(|c| DebugInfoOffset(c.unit as usize)))
    }

    /// The unit in which an offset of `.debug_info` lies.
    pub(super) fn unit_of(&self, offset: DebugInfoOffset) -> Option<DebugInfoOffset> {
        let after = self.units.partition_point(|u| *u as usize <= offset.0);
        self.units.get(after.checked_sub(1)?).map(|u| DebugInfoOffset(*u as usize))
    }
}

fn push<T>(to: &mut Vec<T>, what: T) -> Option<()> {
    if to.len() >= RANGES {
        return None;
    }
    to.try_reserve(1).ok()?;
    to.push(what);
    Some(())
}

/// A place in a line table: file, line, column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) file: u64,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A unit whose tables were checked and read.
pub(super) struct OpenUnit<'w, 'd> {
    pub(super) dwarf: &'w Dwarf<Reader<'d>>,
    pub(super) unit: Unit<Reader<'d>>,
}

impl<'w, 'd> OpenUnit<'w, 'd> {
    /// Opens the unit at an offset.
    pub(super) fn new(dwarf: &'w Dwarf<Reader<'d>>, at: DebugInfoOffset, budget: &mut Budget) -> Option<Self> {
        Self::from_header(dwarf, dwarf.unit_header(at).ok()?, budget)
    }

    fn from_header(dwarf: &'w Dwarf<Reader<'d>>, header: UnitHeader<Reader<'d>>, budget: &mut Budget) -> Option<Self> {
        let abbreviations = abbreviations(dwarf, header.debug_abbrev_offset(), budget)?;
        if let Some(line) = line_program_of(&header, &abbreviations, budget)? {
            check_file_table(dwarf, line, budget)?;
        }
        let Ok(unit) = Unit::new_with_abbreviations(dwarf, header, abbreviations) else {
            // It may have looked for the end of a string before it failed.
            budget.spend(gimli::Section::reader(&dwarf.debug_str).len())?;
            return None;
        };
        let strings = unit.name.iter().chain(&unit.comp_dir).map(|s| s.len()).sum();
        budget.spend(strings)?;
        Some(OpenUnit { dwarf, unit })
    }

    pub(super) fn line_header(&self) -> Option<&LineProgramHeader<Reader<'d>>> {
        self.unit.line_program.as_ref().map(|p| p.header())
    }

    /// Addresses of the unit itself.
    fn root_pcs(&self, budget: &mut Budget) -> Option<Pcs<'d>> {
        let mut entries = self.unit.entries_raw(None).ok()?;
        let abbreviation = entries.read_abbreviation().ok()??;
        let mut pcs = Pcs::default();
        for spec in abbreviation.attributes() {
            budget.spend(1)?;
            pcs.note(&entries.read_attribute(*spec).ok()?);
        }
        Some(pcs)
    }

    /// The place that a row stands for; `None` for code that belongs to no line.
    pub(super) fn location(&self, row: Row) -> Option<Location> {
        if row.line == 0 {
            return None;
        }
        let header = self.line_header()?;
        let file = header.file(row.file)?;
        let name = self.text(file.path_name())?;
        let directory = file.directory(header).and_then(|d| self.text(d));
        // Directory 0 is the one of the compilation; others may be relative to it.
        let compiled_in = self.unit.comp_dir.filter(|_| file.directory_index() != 0).and_then(|d| clean(d.slice()));
        let file = [compiled_in, directory, Some(name)].into_iter().flatten().reduce(joined)?;
        Some(Location { file, line: row.line, column: row.column })
    }

    /// A string attribute, with what no terminal should get replaced.
    pub(super) fn text(&self, value: AttributeValue<Reader<'d>>) -> Option<String> {
        clean(self.dwarf.attr_string(&self.unit, value).ok()?.slice())
    }
}

fn clean(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..bytes.len().min(NAME_BYTES))?;
    let text = String::from_utf8_lossy(bytes);
    Some(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
}

/// A path below a directory; a path that starts at a root stays.
fn joined(directory: String, path: String) -> String {
    let absolute = path.starts_with(['/', '\\']) || path.get(1..2) == Some(":");
    if absolute || directory.is_empty() {
        return path;
    }
    let mut all = directory;
    if !all.ends_with(['/', '\\']) && !path.is_empty() {
        all.push('/');
    }
    all.push_str(&path);
    all
}

/// The table of abbreviations at an offset, if its size is sound.
fn abbreviations(dwarf: &Dwarf<Reader<'_>>, at: DebugAbbrevOffset, budget: &mut Budget) -> Option<Arc<Abbreviations>> {
    let section = gimli::Section::reader(&dwarf.debug_abbrev).slice();
    let rest = section.get(at.0..)?;
    let rest = rest.get(..rest.len().min(ABBREVIATIONS_BYTES))?;
    let length = abbreviations_length(rest);
    // Reading it twice costs about eight steps a byte.
    budget.spend(8 * length.unwrap_or(rest.len()))?;
    let table = DebugAbbrev::new(rest.get(..length?)?, LittleEndian);
    table.abbreviations(DebugAbbrevOffset(0)).ok().map(Arc::new)
}

/// Bytes of the table of abbreviations at the start of `bytes` (DWARF 5, 7.5.3).
fn abbreviations_length(bytes: &[u8]) -> Option<usize> {
    let mut rest = Reader::new(bytes, LittleEndian);
    while rest.read_uleb128().ok()? != 0 {
        rest.read_uleb128().ok()?;
        rest.read_u8().ok()?;
        let mut attributes = 0;
        loop {
            let (name, form) = (rest.read_uleb128().ok()?, rest.read_uleb128().ok()?);
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                rest.read_sleb128().ok()?;
            }
            if (name, form) == (0, 0) {
                break;
            }
            attributes += 1;
            if attributes > ATTRIBUTES {
                return None;
            }
        }
    }
    Some(bytes.len() - rest.len())
}

/// Offset of the line number program that the root entry names, if it names one.
fn line_program_of(
    header: &UnitHeader<Reader<'_>>,
    abbreviations: &Abbreviations,
    budget: &mut Budget,
) -> Option<Option<usize>> {
    let mut entries = header.entries_raw(abbreviations, None).ok()?;
    let root = entries.read_abbreviation().ok()??;
    budget.spend(root.attributes().len())?;
    let mut line = None;
    for spec in root.attributes() {
        let attribute = entries.read_attribute(*spec).ok()?;
        if let (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(at)) = (attribute.name(), attribute.value()) {
            line = Some(at.0);
        }
    }
    Some(line)
}

/// Refuses a line number program with a file table that is too large (DWARF 5, 6.2.4).
fn check_file_table(dwarf: &Dwarf<Reader<'_>>, at: usize, budget: &mut Budget) -> Option<()> {
    let mut program = *gimli::Section::reader(&dwarf.debug_line);
    program.skip(at).ok()?;
    let (_, format) = program.read_initial_length().ok()?;
    let version = program.read_u16().ok()?;
    if version >= 5 {
        program.skip(2).ok()?;
    }
    let length = program.read_length(format).ok()?;
    (length <= FILE_TABLE_BYTES).then_some(())?;
    budget.spend(length)
}

/// The addresses an entry covers, in one of DWARF's two ways of saying so.
#[derive(Default)]
pub(super) struct Pcs<'d> {
    low: Option<AttributeValue<Reader<'d>>>,
    high: Option<AttributeValue<Reader<'d>>>,
    ranges: Option<AttributeValue<Reader<'d>>>,
}

impl<'d> Pcs<'d> {
    /// Takes an attribute if it says something about addresses.
    pub(super) fn note(&mut self, attribute: &gimli::Attribute<Reader<'d>>) {
        match attribute.name() {
            gimli::DW_AT_low_pc => self.low = Some(attribute.value()),
            gimli::DW_AT_high_pc => self.high = Some(attribute.value()),
            gimli::DW_AT_ranges => self.ranges = Some(attribute.value()),
            _ => {}
        }
    }

    /// Hands all ranges that are not empty to `take`, until it has enough (`None`). `None` also when DWARF or budget end.
    pub(super) fn for_each(
        &self,
        unit: &OpenUnit<'_, 'd>,
        budget: &mut Budget,
        mut take: impl FnMut(u64, u64) -> Option<()>,
    ) -> Option<()> {
        if let Some(ranges) = self.ranges {
            let at: RangeListsOffset = unit.dwarf.attr_ranges_offset(&unit.unit, ranges).ok()??;
            let mut list = unit.dwarf.ranges(&unit.unit, at).ok()?;
            while let Some(raw) = list.next_raw().ok()? {
                budget.spend(1)?;
                if let Some(range) = list.convert_raw(raw).ok()? {
                    take(range.begin, range.end)?;
                }
            }
            return Some(());
        }
        let (Some(low), Some(high)) = (self.low, self.high) else { return Some(()) };
        let begin = unit.dwarf.attr_address(&unit.unit, low).ok()??;
        let end = match high.udata_value() {
            Some(size) => begin.checked_add(size)?,
            None => unit.dwarf.attr_address(&unit.unit, high).ok()??,
        };
        if begin < end { take(begin, end) } else { Some(()) }
    }

    /// Whether an address is covered.
    pub(super) fn contain(&self, unit: &OpenUnit<'_, 'd>, address: u64, budget: &mut Budget) -> bool {
        let mut found = false;
        self.for_each(unit, budget, |begin, end| {
            found |= (begin..end).contains(&address);
            (!found).then_some(())
        });
        found
    }
}
