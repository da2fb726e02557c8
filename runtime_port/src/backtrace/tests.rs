//! Walking and naming, on the hosted port.

use super::*;
use alloc::sync::Arc;
use std::string::{String, ToString};

#[test]
fn walk_follows_frame_pointers_and_stops_at_nonsense() {
    let mut stack = core::hint::black_box([0usize; 16]);
    let at = |i: usize| (&raw const stack[i]) as usize;
    let (start, frame1, frame2, frame3) = (at(0), at(2), at(6), at(10));
    stack[2] = frame2;
    stack[3] = 0x1111;
    stack[6] = frame3;
    stack[7] = 0x2222;
    stack[10] = frame2; // downwards: not a caller
    stack[11] = 0x3333;
    core::hint::black_box(&mut stack);
    // SAFETY: the array is readable.
    let walk = |end: usize| unsafe { FramePointers::new(0xaaaa, frame1, start..end) };
    let pcs: std::vec::Vec<_> = walk(start + 128).map(|f| f.lookup_pc()).collect();
    assert_eq!(pcs, [0xaaaa, 0x1110, 0x2221]);
    assert_eq!(walk(frame2).count(), 2, "a frame outside the stack ends the walk");
    // SAFETY: as above.
    assert_eq!(unsafe { FramePointers::new(1, frame1 + 4, start..start + 128) }.count(), 1, "misaligned");
}

#[test]
#[inline(never)]
fn native_code_has_names_files_and_lines() {
    let pc = (native_code_has_names_files_and_lines as fn()) as usize;
    let symbol = resolve(pc).expect("the test's own code is known");
    assert!(symbol.name.contains("native_code_has_names_files_and_lines"), "{symbol}");
    assert!(symbol.module.is_some());
    let location = symbol.location.expect("tests are built with line tables");
    assert!(location.file.ends_with("backtrace/tests.rs") && location.line > 20, "{location}");
    assert!(!resolve_inlined(pc).is_empty());
}

#[test]
fn code_of_shared_libraries_has_names() {
    let symbol = resolve(libc::malloc as *const () as usize).expect("libc exports it");
    assert!(symbol.name.contains("malloc"), "{symbol}");
    assert!(symbol.module.is_some_and(|m| m.contains("libc")));
}

#[test]
fn addresses_without_code_have_no_name() {
    assert_eq!(resolve(0x10), None);
    assert_eq!(resolve(usize::MAX), None);
}

#[test]
fn registered_sources_come_first_and_go_with_their_registration() {
    struct Fixed;
    impl SymbolSource for Fixed {
        fn resolve(&self, pc: usize) -> Option<Symbol> {
            let location = Some(Location { file: "counter.c".into(), line: 7, column: 3 });
            (pc == 0x42).then(|| Symbol {
                name: "inc".into(),
                offset: Some(4),
                module: Some("counter".into()),
                location,
            })
        }
    }
    let registration = add_symbol_source(Arc::new(Fixed));
    assert_eq!(resolve(0x42).map(|s| s.to_string()), Some(String::from("counter!inc+0x4 at counter.c:7:3")));
    assert_eq!(resolve(0x43), None);
    drop(registration);
    assert_eq!(resolve(0x42), None);
}

#[test]
#[inline(never)]
fn capture_stays_in_the_stack_of_an_attached_task() {
    assert!(capture(10).is_empty() || crate::task::current().stack_top.get() != 0);
    let locals = crate::platform().tasks().attach().unwrap();
    let frames = capture(100);
    assert!(frames.len() <= 100);
    for frame in frames.iter().rev().skip(1) {
        assert!(frame.frame_pointer > crate::task::stack_pointer() && frame.frame_pointer < locals.stack_top.get());
    }
}
