use super::*;
use std::sync::atomic::AtomicBool;

fn range(i: usize) -> Range<usize> {
    i * 0x1000..i * 0x1000 + 0x800
}

#[test]
fn finds_exactly_the_registered_addresses() {
    let index = RangeIndex::<()>::new();
    for i in (1..2000).rev() {
        index.insert(range(i), ()).unwrap();
    }
    assert_eq!(index.len(), 1999);
    for i in 1..2000 {
        let reader = index.read();
        assert_eq!(reader.find(i * 0x1000).map(|t| t.start), Some(i * 0x1000));
        assert_eq!(reader.find(i * 0x1000 + 0x7ff).map(|t| t.start), Some(i * 0x1000));
        assert!(reader.find(i * 0x1000 + 0x800).is_none());
    }
    assert!(index.read().find(0).is_none());
    assert!(index.read().find(usize::MAX).is_none());
}

#[test]
fn overlapping_ranges_are_refused() {
    let index = RangeIndex::<()>::new();
    index.insert(0x1000..0x2000, ()).unwrap();
    for bad in [0x1000..0x1001, 0xfff..0x1001, 0x1fff..0x3000, 0x800..0x3000, 0x1800..0x1800] {
        assert!(matches!(index.insert(bad, ()), Err(RangeIndexError::Overlap { .. })));
    }
    index.insert(0x2000..0x2001, ()).unwrap();
    index.insert(0xfff..0x1000, ()).unwrap();
}

#[test]
fn overlap_is_found_across_chunks() {
    let index = RangeIndex::<()>::new();
    for i in 1..500 {
        index.insert(range(i), ()).unwrap();
    }
    for i in 1..499 {
        assert!(index.insert(i * 0x1000 + 0x900..(i + 1) * 0x1000 + 1, ()).is_err());
    }
}

#[test]
fn removing_everything_in_any_order_leaves_nothing() {
    let index = RangeIndex::<()>::new();
    for stride in [1usize, 7, 613] {
        for i in 0..5000 {
            index.insert(range(1 + i * stride % 5000), ()).unwrap();
        }
        for i in 0..5000 {
            assert!(index.remove((1 + i * 1009 % 5000) * 0x1000));
            assert!(!index.remove((1 + i * 1009 % 5000) * 0x1000));
        }
        assert!(index.is_empty());
        assert!(index.root.load(SeqCst).is_null());
        assert!(!index.writer.lock().is_waiting());
    }
}

#[test]
fn garbage_waits_for_readers_and_then_goes() {
    let index = RangeIndex::<()>::new();
    index.insert(range(1), ()).unwrap();
    let reader = index.read();
    let text = reader.find(0x1000).unwrap();
    index.remove(0x1000);
    assert!(index.writer.lock().is_waiting());
    assert!(text.contains(0x1000));
    drop(reader);
    index.insert(range(2), ()).unwrap();
    assert!(!index.writer.lock().is_waiting());
}

#[test]
fn readers_see_stable_ranges_while_others_come_and_go() {
    static INDEX: RangeIndex<()> = RangeIndex::new();
    for i in (1..400).step_by(2) {
        INDEX.insert(range(i), ()).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !stop.load(SeqCst) {
                    for i in (1..400).step_by(2) {
                        assert_eq!(INDEX.read().find(i * 0x1000 + 5).map(|t| t.start), Some(i * 0x1000));
                    }
                }
            });
        }
        for _ in 0..200 {
            for i in (2..400).step_by(2) {
                INDEX.insert(range(i), ()).unwrap();
            }
            for i in (2..400).step_by(2) {
                assert!(INDEX.remove(i * 0x1000));
            }
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(INDEX.len(), 200);
}

#[test]
fn what_is_near_is_found_across_chunks_and_removed_ranges() {
    let index = RangeIndex::<usize>::new();
    let near = |address: usize| index.read().near(address).map(|f| f.map(|f| *f.value));
    assert_eq!(near(7), [None, None]);
    for i in 1..500 {
        index.insert(range(i), i).unwrap();
    }
    assert_eq!(near(0xfff), [None, Some(1)]);
    for i in 1..499 {
        assert_eq!(near(i * 0x1000), [Some(i), Some(i + 1)]);
        assert_eq!(near(i * 0x1000 + 0xfff), [Some(i), Some(i + 1)]);
    }
    assert_eq!(near(usize::MAX), [Some(499), None]);
    for i in 100..400 {
        assert!(index.remove(i * 0x1000));
        assert_eq!(near(i * 0x1000), [Some(99), Some(i + 1)]);
        assert_eq!(near(399 * 0x1000), [Some(if i == 399 { 99 } else { 399 }), Some(400)]);
    }
}
