//! Damaged unwind info is refused or decodes to something else, but nothing panics, loops or leaves its bounds.

use super::super::context::{Context, Stop};
use super::super::eh_frame::{Record, index};
use super::super::finder::Asker;
use super::super::program::row_at;
use super::super::reader::Reader;
use super::super::{UnwindError, UnwindTable, expression};
use super::eh_frame;
use std::vec::Vec;

/// A small generator of pseudo-random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A section with the FDEs of many functions, instructions of every kind among them.
fn section(base: usize) -> (Vec<u8>, core::ops::Range<usize>) {
    let text = base - 0x10_0000..base - 0x8_0000;
    let mut section = eh_frame((base - text.start) as i32, 64);
    section.truncate(section.len() - 4);
    let programs: [&[u8]; 8] = [
        &[0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6],
        &[0x0a, 0x02, 5, 0x0e, 0x80, 2, 0x0b],
        &[0x0f, 5, 0x77, 8, 0x80, 0, 0x22, 0x41, 0x10, 6, 2, 0x77, 0x78],
        &[0x2e, 16, 0x03, 1, 0, 0x12, 7, 0x70],
        &[0x16, 3, 3, 0x73, 8, 0x06, 0x14, 12, 2, 0x15, 13, 0x7e],
        &[0x08, 3, 0x07, 16, 0xc3, 0x06, 12, 0x09, 13, 14],
        &[0x05, 3, 2, 0x11, 12, 0x7f, 0x13, 0x70, 0x04, 1, 0, 0, 0],
        &[0x2f, 3, 16, 0x0c, 6, 32],
    ];
    for (i, program) in programs.iter().enumerate() {
        let padded = program.len().next_multiple_of(8) + 7;
        section.extend((12 + 1 + padded as u32).to_le_bytes());
        section.extend((section.len() as u32).to_le_bytes());
        let place = base + section.len();
        let function = text.start + 64 * (i + 1);
        section.extend((function.wrapping_sub(place) as i32).to_le_bytes());
        section.extend(64u32.to_le_bytes());
        section.push(0);
        section.extend(*program);
        section.resize(section.len() + padded - program.len(), 0);
    }
    section.extend([0; 4]);
    (section, text)
}

/// An address in each function that the section describes.
fn addresses(section: &[u8], base: usize, text: &core::ops::Range<usize>) -> Vec<usize> {
    index(section, base, text).unwrap().iter().map(|e| text.start + e.function as usize + 40).collect()
}

#[test]
fn the_good_section_decodes() {
    let base = 0x100_0000;
    let (bytes, text) = section(base);
    let table = UnwindTable::of_mapped(&bytes, base, &text).unwrap();
    let addresses = addresses(&bytes, base, &text);
    assert_eq!(addresses.len(), 9);
    for pc in addresses {
        let record = table.record(&bytes, text.start, pc).unwrap();
        assert!(row_at(&record, pc).is_some(), "{pc:#x}");
    }
}

#[test]
fn a_table_serves_its_section_wherever_that_is_mapped() {
    let (base, elsewhere) = (0x100_0000, 0x7fff_0000_0000);
    let (bytes, text) = section(base);
    let by = elsewhere - base;
    let moved = text.start + by..text.end + by;
    let table = UnwindTable::new(&bytes, text.len(), base - text.start).unwrap();
    assert!(
        table.fits(&text, &(base..base + bytes.len())) && table.fits(&moved, &(elsewhere..elsewhere + bytes.len()))
    );
    assert!(!table.fits(&text, &(base + 8..base + 8 + bytes.len())));
    assert!(!table.fits(&text, &(base..base + bytes.len() + 1)));
    for pc in addresses(&bytes, base, &text) {
        let (here, there) = (table.record(&bytes, text.start, pc), table.record(&bytes, moved.start, pc + by));
        let (here, there) = (here.unwrap(), there.unwrap());
        assert_eq!(here.start + by, there.start);
        assert_eq!(row_at(&here, pc), row_at(&there, pc + by));
    }
}

#[test]
fn flipped_bits_change_no_row() {
    let base = 0x100_0000;
    let (good, text) = section(base);
    let whole = index(&good, base, &text).unwrap();
    let table = UnwindTable::of_mapped(&good, base, &text).unwrap();
    let mut random = Random(0x5eed);
    for round in 0..60_000 {
        let mut bad = good.clone();
        let flips = 1 + random.below(4);
        for _ in 0..flips {
            let bit = random.below(bad.len() * 8);
            bad[bit / 8] ^= 1 << (bit % 8);
        }
        // Registered as it is: refused, or every row of it decodes to something.
        if let Ok(table) = UnwindTable::of_mapped(&bad, base, &text) {
            for entry in &whole {
                let pc = text.start + entry.function as usize + random.below(64);
                if let Some(record) = table.record(&bad, text.start, pc) {
                    let _ = row_at(&record, pc);
                }
            }
        }
        // Damaged after it was registered: the copy serves.
        for entry in &whole {
            let pc = text.start + entry.function as usize + 40;
            let record = table.record(&bad, text.start, pc).unwrap();
            let right = Record::parse(Reader::new(&good, base, 0), entry.fde as usize, 0).unwrap();
            assert_eq!(row_at(&record, pc), row_at(&right, pc), "round {round}");
        }
    }
}

#[test]
fn a_damaged_table_or_copy_changes_no_row() {
    let base = 0x100_0000;
    let (good, text) = section(base);
    let addresses = addresses(&good, base, &text);
    let mut random = Random(0xdead);
    for round in 0..5_000 {
        let table = UnwindTable::of_mapped(&good, base, &text).unwrap();
        assert!(table.is_intact());
        let place = table.places()[round % 2].clone();
        let at = place.start + random.below(place.len());
        // SAFETY: a byte of the table's own memory, which nobody else uses.
        unsafe { *(at as *mut u8) ^= 1 << random.below(8) };
        assert!(!table.is_intact());
        for pc in &addresses {
            let record = table.record(&good, text.start, *pc).unwrap();
            assert!(record.covers(*pc) && row_at(&record, *pc).is_some(), "round {round}");
        }
    }
}

#[test]
fn noise_is_no_unwind_info() {
    let mut random = Random(7);
    for _ in 0..20_000 {
        let length = random.below(200);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let _ = index(&bytes, 0x1000, &(0..usize::MAX));
        for offset in 0..length.min(16) {
            let _ = Record::parse(Reader::new(&bytes, 0x1000, 0), offset, 0x1000);
        }
    }
    assert_eq!(index(&[], 0, &(0..1)).unwrap_err(), UnwindError::Malformed(0));
}

#[test]
fn expressions_end_and_read_only_what_they_may() {
    struct Frame;
    impl expression::Machine for Frame {
        fn register(&self, column: u64) -> Option<usize> {
            (column < 17).then(|| column as usize * 100)
        }
        fn read(&self, address: usize, _: usize) -> Option<usize> {
            (address < 5000).then(|| address + 1)
        }
    }
    let evaluate = |e: &[u8]| expression::evaluate(e, None, &Frame);
    assert_eq!(evaluate(&[0x77, 8]), Some(708));
    assert_eq!(evaluate(&[0x77, 8, 0x06]), Some(709));
    assert_eq!(evaluate(&[0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22]), Some(708), "a linkage table's");
    assert_eq!(evaluate(&[0x0e, 0, 0, 0, 0, 1, 0, 0, 0, 0x06]), None, "reads what it must not");
    assert_eq!(evaluate(&[0x2f, 0xfd, 0xff]), None, "a jump to itself");
    assert_eq!(evaluate(&[0x30, 0x12, 0x2f, 0xfc, 0xff]), None, "a stack that grows for ever");
    assert_eq!(evaluate(&[0x31, 0x30, 0x1b]), None, "a division by zero");
    assert_eq!(evaluate(&[0x31, 0x32, 0x33, 0x17, 0x16]), Some(1), "rot and swap");
    assert_eq!(evaluate(&[0x22]), None, "nothing to add");
    assert_eq!(evaluate(&[]), None);
    let mut random = Random(99);
    for _ in 0..200_000 {
        let bytes: Vec<u8> = (0..random.below(24)).map(|_| random.next() as u8).collect();
        let _ = expression::evaluate(&bytes, Some(1), &Frame);
    }
}

#[test]
fn a_walk_from_anywhere_ends_within_the_stack() {
    let task = crate::platform().tasks().attach().unwrap();
    let (here, top) = (crate::task::stack_pointer(), task.stack_top.get());
    let mut random = Random(3);
    let code: Vec<usize> = {
        let mut pcs = Vec::new();
        let mut context = Context::at(
            a_walk_from_anywhere_ends_within_the_stack as *const () as usize + 20,
            here,
            here,
            true,
            Asker::Task,
        );
        pcs.push(context.pc());
        while context.step_out().is_ok() {
            pcs.push(context.pc());
        }
        // Any instruction of libc and of this executable.
        for _ in 0..200 {
            pcs.push(libc::qsort as *const () as usize + random.below(0x8000));
            pcs.push(flipped_bits_change_no_row as *const () as usize + random.below(0x8000));
        }
        pcs
    };
    for _ in 0..100_000 {
        let pc = code[random.below(code.len())];
        let rsp = here + random.below(top - here) / 8 * 8;
        let rbp = match random.below(3) {
            0 => rsp + random.below(4096),
            1 => random.next() as usize,
            _ => 0,
        };
        let mut context = Context::at(pc, rsp, rbp, random.below(2) == 0, Asker::Exception);
        let mut frames = 0;
        let mut last = rsp;
        let end = loop {
            match context.step_out() {
                Ok(()) => {}
                Err(stop) => break stop,
            }
            frames += 1;
            assert!(context.stack_pointer() <= top || context.stack_pointer() > last);
            last = context.stack_pointer();
            assert!(frames < 1_000_000);
        };
        assert!(matches!(end, Stop::End | Stop::Damaged));
    }
}
