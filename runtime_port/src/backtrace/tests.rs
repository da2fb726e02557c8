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
fn captured_frames_go_through_native_code_to_the_start_of_the_thread() {
    #[inline(never)]
    fn third(limit: usize) -> std::vec::Vec<Frame> {
        core::hint::black_box(capture(limit))
    }
    #[inline(never)]
    fn second(limit: usize) -> std::vec::Vec<Frame> {
        let frames = third(limit);
        core::hint::black_box(frames)
    }
    let frames = second(100);
    let names: std::vec::Vec<String> = frames.iter().filter_map(|f| resolve(f.lookup_pc())).map(|s| s.name).collect();
    let at = |name: &str| names.iter().position(|n| n.contains(name)).unwrap_or_else(|| panic!("{name}: {names:?}"));
    assert_eq!((at("third"), at("second")), (0, 1));
    assert!(at("captured_frames_go_through") > 1 && at("thread_start") > 3);
    assert_eq!(second(2).len(), 2);
}
