//! Every FDE of this executable and of every loaded library decodes to what gimli makes of it.

use super::super::context::Context;
use super::super::eh_frame::Record;
use super::super::finder::{Asker, Image};
use super::super::program::{COLUMNS, CfaRule, Row, Rule, row_at};
use super::super::reader::Reader;
use gimli::{
    BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, Register, RegisterRule, UnwindContext, UnwindSection,
};
use std::vec::Vec;

type Section<'a> = EndianSlice<'a, LittleEndian>;

/// Compares every row of every FDE; returns how many rows there were.
fn compare(image: &Image, eh_frame: usize) -> usize {
    let start = image.readable.start;
    // SAFETY: an image of the process that is not unloaded.
    let bytes = unsafe { core::slice::from_raw_parts(start as *const u8, image.readable.len()) };
    let ours = Reader::new(bytes, start, 0);
    let section = EhFrame::new(&bytes[eh_frame - start..], LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(eh_frame as u64);
    let mut entries = section.entries(&bases);
    let mut context = UnwindContext::new();
    let mut rows = 0;
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(|s: &EhFrame<Section<'_>>, b, o| s.cie_from_offset(b, o)).unwrap();
        let offset = eh_frame - start + fde.offset();
        let record = Record::parse(ours, offset, image.eh_frame_hdr).expect("gimli reads it");
        assert_eq!(record.start as u64, fde.initial_address());
        assert_eq!(record.length as u64, fde.len());
        assert_eq!(record.cie.is_signal_frame, fde.is_signal_trampoline());
        let lsda = fde.lsda().map_or(0, pointer);
        assert_eq!(record.lsda as u64, lsda);
        assert_eq!(record.cie.personality as u64, fde.personality().map_or(0, pointer));
        let mut table = fde.rows(&section, &bases, &mut context).unwrap();
        while let Some(row) = table.next_row().unwrap() {
            let (first, last) = (row.start_address() as usize, (row.end_address() - 1) as usize);
            for pc in [first, last] {
                let ours = row_at(&record, pc).unwrap_or_else(|| panic!("gimli decodes the row at {pc:#x}"));
                check_row(&ours, row, &section, pc);
                rows += 1;
            }
        }
    }
    rows
}

fn pointer(p: gimli::Pointer) -> u64 {
    match p {
        gimli::Pointer::Direct(p) | gimli::Pointer::Indirect(p) => p,
    }
}

fn check_row(ours: &Row<'_>, theirs: &gimli::UnwindTableRow<usize>, section: &EhFrame<Section<'_>>, pc: usize) {
    let bytes = |e: &gimli::UnwindExpression<usize>| e.get(section).unwrap().0.slice().to_vec();
    match (theirs.cfa(), ours.cfa) {
        (gimli::CfaRule::RegisterAndOffset { register, offset }, CfaRule::Register(r, o)) => {
            assert_eq!((usize::from(register.0), *offset), (r, o), "{pc:#x}");
        }
        (gimli::CfaRule::Expression(e), CfaRule::Expression(b)) => assert_eq!(bytes(e), b),
        (theirs, ours) => panic!("{theirs:?} is not {ours:?} at {pc:#x}"),
    }
    for i in 0..COLUMNS {
        let equal = match (theirs.register(Register(i as u16)), ours.rules[i]) {
            (None | Some(RegisterRule::Undefined), Rule::Unspecified) => true,
            (Some(RegisterRule::Undefined), Rule::Undefined) => true,
            (Some(RegisterRule::SameValue), Rule::Same | Rule::Unspecified) => true,
            (Some(RegisterRule::Offset(n)), Rule::Offset(m)) => n == m,
            (Some(RegisterRule::ValOffset(n)), Rule::ValueOffset(m)) => n == m,
            (Some(RegisterRule::Register(r)), Rule::Register(s)) => usize::from(r.0) == s,
            (Some(RegisterRule::Expression(e)), Rule::Expression(b)) => bytes(&e) == b,
            (Some(RegisterRule::ValExpression(e)), Rule::ValueExpression(b)) => bytes(&e) == b,
            _ => false,
        };
        assert!(equal, "column {i} at {pc:#x}: {:?} is not {:?}", theirs.register(Register(i as u16)), ours.rules[i]);
    }
    assert_eq!(ours.args_size, theirs.saved_args_size(), "{pc:#x}");
}

/// Every loaded image, and where its `.eh_frame` is.
fn images() -> Vec<(Image, usize)> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the loader's description; `data` is the vector.
        let (info, found) = unsafe { (&*info, &mut *data.cast::<Vec<Image>>()) };
        // SAFETY: as above.
        let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let range = |h: &libc::Elf64_Phdr| {
            let start = (info.dlpi_addr + h.p_vaddr) as usize;
            start..start + h.p_memsz as usize
        };
        let loads = || headers.iter().filter(|h| h.p_type == libc::PT_LOAD).map(range);
        if let Some(hdr) = headers.iter().find(|h| h.p_type == libc::PT_GNU_EH_FRAME).map(|h| range(h).start) {
            let readable = loads().find(|r| r.contains(&hdr)).unwrap();
            let text = headers.iter().find(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0).map(range);
            found.push(Image { text: text.unwrap(), eh_frame_hdr: hdr, readable });
        }
        0
    }
    let mut found: Vec<Image> = Vec::new();
    // SAFETY: the callback matches its data.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    let with_section = |image: Image| {
        // Version, three encodings, then the pointer: pcrel sdata4 in every linker's output.
        // SAFETY: inside the image.
        let [version, encoding, ..] = unsafe { *(image.eh_frame_hdr as *const [u8; 4]) };
        assert_eq!((version, encoding), (1, 0x1b));
        // SAFETY: as above.
        let distance = unsafe { *((image.eh_frame_hdr + 4) as *const i32) };
        let eh_frame = (image.eh_frame_hdr + 4).wrapping_add_signed(distance as isize);
        (image, eh_frame)
    };
    found.into_iter().map(with_section).collect()
}

#[test]
fn every_row_of_every_loaded_image_is_what_gimli_decodes() {
    let images = images();
    assert!(images.len() >= 3, "the executable, libc, libgcc");
    let rows: usize = images.iter().map(|(image, eh_frame)| compare(image, *eh_frame)).sum();
    assert!(rows > 10_000, "{rows}");
}

#[test]
fn the_binary_search_table_finds_what_a_scan_finds() {
    for (image, eh_frame) in images() {
        // SAFETY: as in `compare`.
        let bytes = unsafe { core::slice::from_raw_parts(image.readable.start as *const u8, image.readable.len()) };
        let section = EhFrame::new(&bytes[eh_frame - image.readable.start..], LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(eh_frame as u64);
        let mut entries = section.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let fde = partial.parse(|s: &EhFrame<Section<'_>>, b, o| s.cie_from_offset(b, o)).unwrap();
            let (start, end) = (fde.initial_address() as usize, (fde.initial_address() + fde.len()) as usize);
            if start == end {
                continue;
            }
            for pc in [start, end - 1] {
                assert_eq!(image.record(pc).map(|r| (r.start, r.length)), Some((start, end - start)), "{pc:#x}");
            }
        }
        assert!(image.record(image.readable.start).is_none());
        assert!(image.record(usize::MAX).is_none());
    }
}

#[test]
fn compact_rows_say_the_same_as_whole_ones() {
    use super::super::compact::{CompactRow, SAVED, UNDEFINED};
    let (mut compact_rows, mut all) = (0, 0);
    for (image, _) in images() {
        for pc in image.text.clone().step_by(7) {
            let Some(record) = image.record(pc) else { continue };
            let Some(row) = row_at(&record, pc) else { continue };
            all += 1;
            let Some(compact) = CompactRow::new(&record, &row, 0x1234) else { continue };
            compact_rows += 1;
            assert_eq!(row.cfa, CfaRule::Register(compact.cfa_register.into(), compact.cfa_offset.into()));
            for (i, rule) in SAVED.into_iter().zip(compact.rules) {
                match row.rules[i] {
                    Rule::Offset(n) => assert_eq!(n, i64::from(rule) * 8),
                    Rule::Undefined => assert_eq!(rule, UNDEFINED),
                    _ => assert!(rule < UNDEFINED),
                }
            }
            assert_eq!((compact.function, compact.lsda, compact.personality), (record.start, record.lsda, 0x1234));
        }
    }
    assert!(compact_rows * 100 > all * 95, "{compact_rows} of {all}");
}

#[test]
fn rows_come_out_of_the_cache_as_they_went_in() {
    use super::super::compact::{CompactRow, SAME, Validity, cached, keep};
    let row = CompactRow {
        function: 0x1234_5678_9abc,
        lsda: 0xfeed,
        personality: 0xbeef,
        cfa_register: 7,
        is_signal_frame: true,
        cfa_offset: -12345,
        rules: [-3, SAME, 1, -32766, 32767, 0, -1],
    };
    // Addresses that no code of this test has.
    let pc = 0x77_0000_0001;
    keep(pc, row, Validity::Forever);
    assert_eq!(cached(pc), Some(row));
    assert_eq!(cached(pc + 1), None);
    let _ = Context::at(pc, 0, 0, false, Asker::Exception);
}
