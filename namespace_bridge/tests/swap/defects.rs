//! What Theseus's swap gets wrong, by its source, and what happens here instead. A test per defect.

use super::*;
use namespace_bridge::swap::theseus::{self, IntoCrateObjectFile, InvalidSwapRequest, StateTransferFunction};
use namespace_bridge::swap::{StatePlan, SwapStep};
use namespace_bridge::{CellSource, CrateProvider};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const USER: &str = r#"(module (import "a" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#;

fn file(name: &str, text: &str) -> IntoCrateObjectFile {
    IntoCrateObjectFile::File(name.into(), CellSource::Wasm(wasm(text)))
}

#[test]
fn no_quiescence_callers_run_while_the_swap_happens_and_state_is_whole() {
    let ns = namespace();
    let text = |k: i32| {
        format!(
            r#"(module (memory 1) (func (export "f") (result i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.const {k}))
            (func (export "n") (result i32) (i32.load (i32.const 0))))"#
        )
    };
    let f = load(&ns, "a", &text(0)).typed_func::<(), i32>("f").unwrap();
    let stop = AtomicBool::new(false);
    let calls = thread::scope(|s| {
        let caller = s.spawn(|| {
            let mut calls = 0;
            while !stop.load(Ordering::Relaxed) {
                f.call(()).unwrap();
                calls += 1;
            }
            calls
        });
        for k in 1..50 {
            ns.swap(replace("a", &text(k)).state(StatePlan::Adopt)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        caller.join().unwrap()
    });
    assert_eq!(call(&ns, "a", "n"), calls);
}

#[test]
fn no_rollback_a_failure_after_the_transfer_leaves_no_half_swapped_system() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "user", USER);
    ns.swap(replace("a", &constant(2)).fail_at(SwapStep::Commit)).unwrap_err();
    assert_eq!((call(&ns, "user", "g"), call(&ns, "a", "f")), (1, 1));
}

#[test]
fn text_of_dependents_is_not_written_and_their_slots_stay() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let user = load(&ns, "user", USER);
    let image = |cell: &StrongCrateRef| {
        let instance = cell.instance().unwrap();
        let (text, data) = (instance.image().text(), instance.image().data());
        // SAFETY: text and data of a cell that lives; nobody runs it.
        unsafe {
            let bytes = |r: std::ops::Range<usize>| std::slice::from_raw_parts(r.start as *const u8, r.len()).to_vec();
            (bytes(text), bytes(data))
        }
    };
    let before = image(&user);
    ns.swap(replace("a", &constant(2))).unwrap();
    assert!(image(&user) == before);
    assert_eq!(call(&ns, "user", "g"), 2);
}

fn fail() {
    panic!("through frames of a version that is replaced");
}

#[test]
fn frames_of_old_versions_can_be_unwound_and_named() {
    let ns = namespace();
    let weak = Arc::downgrade(&ns);
    ns.define("env", "swap_and_panic", move || {
        weak.upgrade().unwrap().swap(replace("a", &constant(2)).keep_old(false)).unwrap();
        fail();
    })
    .unwrap();
    let text = r#"(module (import "env" "swap_and_panic" (func $h)) (func (export "f") (result i32) (call $h) (i32.const 1)))"#;
    let f = load(&ns, "a", text).typed_func::<(), i32>("f").unwrap();
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f.call(()))).unwrap_err();
    assert!(payload.downcast_ref::<&str>().unwrap().contains("version that is replaced"));
    assert_eq!(f.call(()).unwrap(), 2);
}

#[test]
fn function_pointers_and_statics_do_not_keep_pointing_to_old_code() {
    let ns = namespace();
    // SAFETY: the function's type.
    let f: extern "C-unwind" fn() -> i32 = unsafe { load(&ns, "a", &constant(1)).entry("f") }.unwrap();
    let boxed: Box<dyn Fn() -> i32> = Box::new(move || f());
    ns.swap(replace("a", &constant(2))).unwrap();
    assert_eq!(boxed(), 2);
}

#[test]
fn a_changed_signature_is_found_before_anything_happens() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "user", USER);
    let changed = r#"(module (func (export "f") (result i64) (i64.const 2)))"#;
    let refused = problems(ns.swap(replace("a", changed)).unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::Retyped { export, .. }] if export == "f"), "{refused:?}");
    assert_eq!(call(&ns, "user", "g"), 1);
}

#[test]
fn a_changed_layout_of_data_of_the_same_size_is_found() {
    let ns = namespace();
    let text = |data: &str| {
        format!(
            r#"(module (memory 1) (data (i32.const 8) "{data}") (func (export "f") (result i32) (i32.load (i32.const 8))))"#
        )
    };
    load(&ns, "a", &text("abcd"));
    let refused = problems(ns.swap(replace("a", &text("abce")).state(StatePlan::Adopt)).unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::CannotAdopt { .. }]), "{refused:?}");
}

#[test]
fn a_removed_export_with_live_dependents_is_found_before_anything_happens() {
    let ns = namespace();
    load(
        &ns,
        "a",
        r#"(module (func (export "e") (result i32) (i32.const 0)) (func (export "f") (result i32) (i32.const 1)))"#,
    );
    load(&ns, "user", USER);
    let refused =
        problems(ns.swap(replace("a", r#"(module (func (export "e") (result i32) (i32.const 9)))"#)).unwrap_err());
    assert!(
        matches!(&refused[..], [SwapProblem::MissingExport { export, users, .. }] if export == "f" && users == "`user`"),
        "{refused:?}"
    );
    assert_eq!((call(&ns, "a", "e"), call(&ns, "user", "g")), (0, 1));
}

#[test]
fn reexported_symbols_without_dependents_lead_to_the_new_version_too() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let request = theseus::SwapRequest::new(Some("a"), &ns, file("b", &constant(2)), None, true).unwrap();
    theseus::swap_crates(&ns, vec![request], None, Vec::new(), false).unwrap();
    // Whoever is loaded later links to the new version.
    load(&ns, "user", USER);
    assert_eq!(call(&ns, "user", "g"), 2);
    assert_eq!(&*ns.get_symbol("a::f").upgrade().unwrap().parent_crate.upgrade().unwrap().crate_name, "b");
}

#[test]
fn old_versions_are_no_dependents_of_what_they_used() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "user", USER);
    ns.swap(replace("user", r#"(module (func (export "g") (result i32) (i32.const 7)))"#).keep_old(false)).unwrap();
    assert!(ns.get_crate("a").unwrap().dependents().is_empty());
    // The export that only the old version used may go.
    ns.swap(replace("a", r#"(module (func (export "other")))"#)).unwrap();
}

#[test]
fn a_version_that_somebody_else_holds_can_be_swapped() {
    let ns = namespace();
    let held = load(&ns, "a", &constant(1));
    let shared = [held.clone(), held.clone()];
    ns.swap(replace("a", &constant(2)).keep_old(false)).unwrap();
    assert!(shared[0].is_superseded() && shared[0].is_unloaded());
    ns.swap(replace("a", &constant(3))).unwrap();
    assert_eq!(call(&ns, "a", "f"), 3);
}

#[test]
fn the_old_cell_is_looked_up_where_the_request_says() {
    let parent = CrateNamespace::new("parent", None);
    let child = CrateNamespace::new("child", Some(parent.clone()));
    load(&parent, "a", &constant(1));
    load(&child, "user", USER);
    let not_here = problems(child.swap(replace("a", &constant(2))).unwrap_err());
    assert!(matches!(&not_here[..], [SwapProblem::NotFound { .. }]), "{not_here:?}");
    parent.swap(replace("a", &constant(2))).unwrap();
    assert_eq!(call(&child, "user", "g"), 2, "dependents in other namespaces follow");
}

#[test]
fn many_dependents_of_which_some_are_gone_do_no_harm() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    for i in 0..20 {
        load(&ns, &format!("user{i}"), USER);
    }
    for i in (0..20).step_by(2) {
        ns.unload(&format!("user{i}")).unwrap();
    }
    let report = ns.swap(replace("a", &constant(2))).unwrap();
    assert_eq!((report.cells[0].dependents.len(), report.stores), (10, 1));
    for i in (1..20).step_by(2) {
        assert_eq!(call(&ns, &format!("user{i}"), "g"), 2);
    }
}

#[test]
fn swaps_at_the_same_time_do_not_mix() {
    let ns = namespace();
    for name in ["a", "b", "c"] {
        load(&ns, name, &constant(0));
    }
    thread::scope(|s| {
        for name in ["a", "a", "b", "c"] {
            let ns = &ns;
            s.spawn(move || {
                for k in 1..40 {
                    // Two tasks change `a`: one of them may be told to try again.
                    match ns.swap(replace(name, &constant(k))) {
                        Ok(_) => {}
                        Err(SwapError::Busy { .. } | SwapError::Changed { .. }) if name == "a" => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
    });
    assert_eq!((call(&ns, "b", "f"), call(&ns, "c", "f")), (39, 39));
}

#[test]
fn state_is_transferred_before_anybody_comes_to_the_new_version() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let seen = Arc::new(std::sync::Mutex::new(None));
    let noted = seen.clone();
    let transfer: StateTransferFunction = Arc::new(move |namespace, context| {
        let (old, new) = (call(namespace, "a", "f"), context.new.typed_func::<(), i32>("f")?.call(())?);
        *noted.lock().unwrap() = Some((old, new));
        Ok(())
    });
    let request = theseus::SwapRequest::new(Some("a"), &ns, file("a", &constant(2)), None, false).unwrap();
    theseus::swap_crates(&ns, vec![request], None, vec![transfer], true).unwrap();
    assert_eq!(*seen.lock().unwrap(), Some((1, 2)));
}

#[test]
fn a_cached_old_version_can_be_swapped_back_any_number_of_times() {
    let ns = namespace();
    let f = load(&ns, "a", &constant(1)).typed_func::<(), i32>("f").unwrap();
    let request = theseus::SwapRequest::new(Some("a"), &ns, file("a", &constant(2)), None, false).unwrap();
    theseus::swap_crates(&ns, vec![request], None, Vec::new(), true).unwrap();
    for k in [1, 2, 1, 2, 1] {
        ns.rollback("a").unwrap();
        assert_eq!(f.call(()).unwrap(), k);
    }
    ns.clear_unloaded_crate_cache();
    assert!(matches!(ns.rollback("a").unwrap_err(), SwapError::NoPrevious { .. }));
}

#[test]
fn a_request_that_only_removes_works_and_files_come_from_the_directory_given() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "b", &constant(1));
    let directory = |name: &str| (name == "a").then(|| CellSource::Wasm(wasm(&constant(5))));
    let requests = vec![
        theseus::SwapRequest::new(Some("a"), &ns, IntoCrateObjectFile::Name("a".into()), None, false).unwrap(),
        theseus::SwapRequest::new(Some("b"), &ns, IntoCrateObjectFile::Nothing, None, false).unwrap(),
    ];
    theseus::swap_crates(&ns, requests, Some(&directory), Vec::new(), false).unwrap();
    assert_eq!(call(&ns, "a", "f"), 5);
    assert!(ns.get_crate("b").is_none());
    let wrong = theseus::SwapRequest::new(Some("nobody"), &ns, IntoCrateObjectFile::Nothing, None, false).unwrap_err();
    assert!(matches!(wrong, InvalidSwapRequest::OldCrateNotFound { .. }));
}

#[test]
fn dependents_are_still_known_after_a_version_came_back() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "user", USER);
    ns.swap(replace("a", &constant(2))).unwrap();
    for _ in 0..2 {
        ns.rollback("a").unwrap();
        let dependents = ns.get_crate("a").unwrap().dependents();
        assert_eq!(dependents.iter().map(|(user, _)| &*user.crate_name).collect::<Vec<_>>(), ["user"]);
        assert!(ns.unload("a").is_err());
        let refused = problems(ns.swap(replace("a", "(module)")).unwrap_err());
        assert!(matches!(&refused[..], [SwapProblem::MissingExport { .. }]), "{refused:?}");
    }
}

#[test]
fn a_state_transfer_that_takes_a_function_for_another_type_is_an_error_and_undoes_the_swap() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let transfer: StateTransferFunction = Arc::new(|_, context| {
        context.new.typed_func::<(i64, i64), i64>("f")?.call((1, 2))?;
        Ok(())
    });
    let request = theseus::SwapRequest::new(Some("a"), &ns, file("a", &constant(2)), None, false).unwrap();
    let error = theseus::swap_crates(&ns, vec![request], None, vec![transfer], true).unwrap_err();
    assert!(error.to_string().contains("not (i64, i64) -> (i64)"), "{error}");
    assert_eq!(call(&ns, "a", "f"), 1);
}

/// Files of a namespace's directory: name of the file, name of the cell, what its function gives.
struct Files(&'static [(&'static str, &'static str, i32)]);

impl CrateProvider for Files {
    fn find(&self, name: &str) -> Option<CellSource> {
        let found = self.0.iter().find(|(_, cell, _)| *cell == name)?;
        Some(CellSource::Wasm(wasm(&constant(found.2))))
    }

    fn files_starting_with(&self, prefix: &str) -> Vec<(String, String)> {
        let begins = self.0.iter().filter(|(file, ..)| file.starts_with(prefix));
        begins.map(|(file, cell, _)| (file.to_string(), cell.to_string())).collect()
    }
}

#[test]
fn cells_are_found_by_the_beginning_of_their_names_in_the_namespace_that_has_them() {
    let kernel = namespace();
    let app = CrateNamespace::new("app", Some(kernel.clone()));
    for cell in ["driver", "disk_one", "disk_two"] {
        load(&kernel, cell, &constant(1));
    }
    load(
        &app,
        "user",
        r#"(module (import "driver" "f" (func $f (result i32))) (func (export "f") (result i32) (call $f)))"#,
    );
    kernel.add_provider(Arc::new(Files(&[
        ("driver-00000002.wasm", "driver", 2),
        ("fast-00000001.wasm", "fast", 3),
        ("fat-00000001.wasm", "fat", 4),
    ])));
    let prefix = |p: &str| IntoCrateObjectFile::Prefix(p.into());
    // The old one by its beginning, through the namespace that does not have it itself; the new one by that of its file.
    let request = theseus::SwapRequest::new(Some("dri"), &app, prefix("driver-"), None, false).unwrap();
    theseus::swap_crates(&app, vec![request], None, Vec::new(), false).unwrap();
    assert_eq!((call(&app, "user", "f"), kernel.get_crate("driver").unwrap().version()), (2, 2));
    let refused = |old: Option<&str>, new: IntoCrateObjectFile, to: Option<&Arc<CrateNamespace>>| {
        theseus::SwapRequest::new(old, &app, new, to, false).unwrap_err()
    };
    let several = refused(Some("disk"), prefix("driver-"), None);
    assert!(matches!(&several, InvalidSwapRequest::OldCrateAmbiguous { cells, .. } if cells.len() == 2), "{several}");
    let several = refused(Some("driver"), prefix("fa"), None);
    assert_eq!(
        several.to_string(),
        "several files of namespace `test` begin with `fa`: fast-00000001.wasm, fat-00000001.wasm"
    );
    let none = refused(Some("driver"), prefix("slow"), None);
    assert_eq!(none.to_string(), "no file of namespace `test` begins with `slow`");
    assert!(matches!(refused(Some(""), IntoCrateObjectFile::Nothing, None), InvalidSwapRequest::Empty));
    // The entries that callers have belong to the name in its namespace.
    let moved = refused(Some("driver"), prefix("fast"), Some(&app));
    assert!(matches!(&moved, InvalidSwapRequest::OtherNamespace { .. }), "{moved}");
    let here = theseus::SwapRequest::new(Some("user"), &app, file("user", &constant(9)), Some(&app), false).unwrap();
    let there = theseus::SwapRequest::new(Some("driver"), &app, prefix("fast"), Some(&kernel), true).unwrap();
    let error = theseus::swap_crates(&app, vec![here.clone(), there.clone()], None, Vec::new(), false).unwrap_err();
    assert!(error.to_string().contains("`app`") && error.to_string().contains("`test`"), "{error}");
    assert_eq!(call(&app, "user", "f"), 2);
    // One after the other, and under its old name too.
    theseus::swap_crates(&app, vec![there], None, Vec::new(), false).unwrap();
    assert_eq!((call(&app, "user", "f"), call(&app, "fast", "f"), call(&app, "driver", "f")), (3, 3, 3));
    theseus::swap_crates(&app, vec![here], None, Vec::new(), false).unwrap();
    assert_eq!(call(&app, "user", "f"), 9);
    // Added where it is wanted.
    let add = theseus::SwapRequest::new(None, &app, prefix("fat"), Some(&kernel), false).unwrap();
    theseus::swap_crates(&app, vec![add], None, Vec::new(), false).unwrap();
    assert!(kernel.own_crate("fat").is_some() && app.own_crate("fat").is_none());
}
