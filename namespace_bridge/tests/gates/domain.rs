//! Which cells form a domain, and the domain as a lock.

use super::{load, namespace};
use namespace_bridge::{Concurrency, Domain, GateError, LoadError, LoadOptions, StrongCrateRef};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn domain(cell: &StrongCrateRef) -> Arc<Domain> {
    cell.instance().unwrap().domain().unwrap()
}

#[test]
fn only_mutable_state_makes_a_domain() {
    let ns = namespace();
    let is = |wat: &str| {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let cell = load(&ns, &format!("m{}", NEXT.fetch_add(1, Ordering::Relaxed)), wat);
        let concurrency = Concurrency::of(cell.module().unwrap().metadata());
        assert_eq!(concurrency == Concurrency::Gated, cell.instance().unwrap().domain().is_some());
        concurrency
    };
    let stateless = [
        r#"(module (func (export "f")))"#,
        r#"(module (global i32 (i32.const 1)))"#,
        r#"(module (type $t (func)) (table 2 funcref) (elem (i32.const 0) $f $f)
            (func $f) (func (export "g") (call_indirect (type $t) (i32.const 0))))"#,
        r#"(module (table 1 funcref) (func (export "g") (result funcref) (table.get 0 (i32.const 0))))"#,
    ];
    stateless.iter().for_each(|wat| assert_eq!(is(wat), Concurrency::Stateless, "{wat}"));
    let gated = [
        r#"(module (memory 1))"#,
        r#"(module (global (mut i32) (i32.const 1)))"#,
        r#"(module (table (export "t") 1 funcref))"#,
        r#"(module (table 1 funcref) (func (table.set 0 (i32.const 0) (ref.null func))))"#,
        r#"(module (table 1 funcref) (func (drop (table.grow 0 (ref.null func) (i32.const 1)))))"#,
        r#"(module (table 1 funcref) (func (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))))"#,
        r#"(module (table 1 funcref) (func (table.copy (i32.const 0) (i32.const 0) (i32.const 1))))"#,
        r#"(module (table 1 funcref) (elem func) (func (table.init 0 (i32.const 0) (i32.const 0) (i32.const 0))))"#,
    ];
    gated.iter().for_each(|wat| assert_eq!(is(wat), Concurrency::Gated, "{wat}"));
    assert_eq!(is(r#"(module (memory 1 1 shared) (global (mut i32) (i32.const 0)))"#), Concurrency::Concurrent);
}

#[test]
fn cells_that_share_state_are_one_domain() {
    let ns = namespace();
    let memory = load(&ns, "memory", r#"(module (memory (export "m") 1))"#);
    let table = load(&ns, "table", r#"(module (table (export "t") 1 funcref))"#);
    let global = load(&ns, "global", r#"(module (global (export "g") (mut i32) (i32.const 0)))"#);
    let alone = load(&ns, "alone", r#"(module (memory 1))"#);
    let constant = load(&ns, "constant", r#"(module (global (export "g") i32 (i32.const 0)) (memory 1))"#);
    assert!(!domain(&memory).is_same(&domain(&table)));
    let user = load(&ns, "user", r#"(module (import "memory" "m" (memory 1)) (import "table" "t" (table 1 funcref)))"#);
    assert!(domain(&memory).is_same(&domain(&table)));
    assert!(domain(&memory).is_same(&domain(&user)));
    let last = load(
        &ns,
        "last",
        r#"(module (import "global" "g" (global (mut i32))) (import "table" "t" (table 1 funcref))
            (import "constant" "g" (global i32)))"#,
    );
    for cell in [&memory, &table, &global, &user] {
        assert!(domain(&last).is_same(&domain(cell)));
    }
    let mut cells = domain(&last).cells();
    cells.sort();
    assert_eq!(cells.iter().map(|c| &**c).collect::<Vec<_>>(), ["global", "last", "memory", "table", "user"]);
    for other in [&alone, &constant] {
        assert!(!domain(&last).is_same(&domain(other)));
    }
    drop(last);
    ns.unload("last").unwrap();
    assert_eq!(domain(&memory).cells().len(), 4, "an unloaded cell is no member");
}

#[test]
fn a_domain_is_held_by_one_task_that_may_take_it_again() {
    let ns = namespace();
    let d = domain(&load(&ns, "a", r#"(module (memory 1))"#));
    assert!(d.owner().is_none() && !d.is_held_by_current());
    let first = d.acquire(None).unwrap();
    let second = d.acquire(Some(Duration::ZERO)).unwrap();
    assert!(d.is_held_by_current());
    std::thread::scope(|s| {
        let other = s.spawn(|| d.acquire(Some(Duration::from_millis(5))).map(drop));
        let Err(GateError::TimedOut { cells, .. }) = other.join().unwrap() else { panic!("two tasks inside") };
        assert_eq!(cells, "`a`");
    });
    drop(first);
    assert!(d.is_held_by_current());
    drop(second);
    assert!(!d.is_held_by_current() && d.owner().is_none());
    std::thread::scope(|s| s.spawn(|| d.acquire(Some(Duration::ZERO)).map(drop)).join().unwrap()).unwrap();
}

#[test]
fn what_is_deferred_runs_when_the_last_guard_goes_while_others_are_still_out() {
    let ns = namespace();
    let d = domain(&load(&ns, "a", r#"(module (memory 1))"#));
    assert!(d.when_left(|| ()).is_err(), "only inside can something be deferred");
    let (first, second) = (d.acquire(None).unwrap(), d.acquire(None).unwrap());
    let (tell, told) = mpsc::channel();
    let (inside, again) = (d.clone(), tell.clone());
    let deferred = move || {
        tell.send(inside.is_held_by_current()).unwrap();
        let nested = inside.acquire(None).unwrap();
        assert!(inside.when_left(move || again.send(true).unwrap()).is_ok());
        drop(nested);
    };
    assert!(d.when_left(deferred).is_ok());
    drop(first);
    assert!(told.try_recv().is_err());
    drop(second);
    assert!(told.try_recv().unwrap());
    assert!(told.try_recv().unwrap(), "what the deferred part defers runs too");
    assert!(!d.is_held_by_current());
}

#[test]
fn a_load_that_joins_domains_waits_for_who_is_inside_and_says_who() {
    let ns = namespace();
    let a = load(&ns, "a", r#"(module (memory (export "m") 1))"#);
    load(&ns, "b", r#"(module (table (export "t") 1 funcref))"#);
    let both = wat::parse_str(
        r#"(module (import "a" "m" (memory 1)) (import "b" "t" (table 1 funcref)) (data (i32.const 3) "\07"))"#,
    )
    .unwrap();
    let (entered, leave) = (mpsc::channel(), mpsc::channel::<()>());
    let d = domain(&a);
    let holder = std::thread::spawn(move || {
        let _guard = d.acquire(None).unwrap();
        entered.0.send(()).unwrap();
        leave.1.recv().unwrap();
    });
    entered.1.recv().unwrap();
    let short = LoadOptions::default().gate_timeout(Duration::from_millis(5));
    let error = ns.load_wasm("both", &both, short).unwrap_err();
    assert!(matches!(error, LoadError::Gate { .. }), "{error}");
    assert!(error.to_string().contains("`a`"), "{error}");
    leave.0.send(()).unwrap();
    holder.join().unwrap();
    // A task that is inside of both joins them, and leaves what became of them once.
    let (da, db) = (domain(&a), domain(&ns.get_crate("b").unwrap()));
    let (in_a, in_b) = (da.acquire(None).unwrap(), db.acquire(None).unwrap());
    ns.load_wasm("both", &both, LoadOptions::default()).unwrap();
    assert!(da.is_same(&db));
    drop(in_a);
    assert!(db.is_held_by_current() && da.is_held_by_current());
    drop(in_b);
    assert!(da.owner().is_none() && !db.is_held_by_current());
}

#[test]
fn a_wait_that_would_close_a_cycle_is_refused_with_the_tasks_and_cells_in_it() {
    let ns = namespace();
    let domains: Vec<_> =
        ["a", "b", "c"].into_iter().map(|n| domain(&load(&ns, n, r#"(module (memory 1))"#))).collect();
    // Each task holds one domain and asks for the next. The last to ask is refused, the others get theirs.
    let refused = AtomicUsize::new(0);
    let barrier = std::sync::Barrier::new(3);
    std::thread::scope(|s| {
        for i in 0..3 {
            let (domains, barrier, refused) = (&domains, &barrier, &refused);
            s.spawn(move || {
                let _mine = domains[i].acquire(None).unwrap();
                barrier.wait();
                match domains[(i + 1) % 3].acquire(None) {
                    Ok(_) => {}
                    Err(GateError::Cycle(hops)) => {
                        assert_eq!(hops.len(), 3);
                        let cells: Vec<&str> = hops.iter().map(|h| h.waits_for.as_str()).collect();
                        let expected: Vec<_> = (1..4).map(|n| ["`a`", "`b`", "`c`"][(i + n) % 3]).collect();
                        assert_eq!(cells, expected);
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(e) => panic!("{e}"),
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 1);
    domains.iter().for_each(|d| assert!(d.owner().is_none()));
}

#[test]
fn who_waits_longest_gets_in_first() {
    let ns = namespace();
    let d = domain(&load(&ns, "a", r#"(module (memory 1))"#));
    let guard = d.acquire(None).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|s| {
        for i in 0..6 {
            let (tell, d) = (tell.clone(), &d);
            let (begun, begins) = mpsc::channel();
            s.spawn(move || {
                begun.send(()).unwrap();
                let _guard = d.acquire(None).unwrap();
                tell.send(i).unwrap();
            });
            begins.recv().unwrap();
            // Until it is in line: there is nothing to look at from outside.
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(guard);
    });
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}
