//! What is unloaded or replaced lives exactly as long as some task may use it: in a frame, a register, a saved context.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{
    AddPolicy, Caller, CrateNamespace, LoadOptions, RetiredVersion, StrongCrateRef, Trap, TypedFunc, Val, catch_trap,
    kill_task, reclaim, retired,
    text_index::TEXT,
    typed::{WasmParams, WasmResults},
};
use runtime_port::platform;
use std::arch::asm;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::Duration;
use wasm_cell::trap::TrapCode;

/// The list is the whole process's, so the tests run one at a time. Their own tasks never attach, so that nothing on their stacks counts.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    settle(0);
    guard
}

/// Looks until only so many things are retired, each in use by one task. A task that does not get the processor has not said yet that it
/// holds nothing.
fn settle(expected: usize) {
    let settled = || apart(reclaim) == expected && retired().iter().all(|r| r.held_by.len() == 1);
    let mut looks = 0;
    while !settled() && looks < 5000 {
        thread::yield_now();
        looks += 1;
    }
    assert!(settled(), "{expected} expected: {:?}", retired());
}

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    let options = LoadOptions::default().policy(AddPolicy::Replace);
    let wasm = wat::parse_str(text).unwrap();
    apart(|| ns.load_wasm(name, &wasm, options)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// In a task that has ended afterwards, so that none of its words stays on this one's stack.
fn apart<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|s| s.spawn(f).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

/// A task whose stack has nothing on it of a task that had this stack before.
fn spawn<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> thread::JoinHandle<R> {
    #[inline(never)]
    fn overwrite() {
        std::hint::black_box(&mut [0u64; 8192]);
    }
    thread::spawn(move || {
        overwrite();
        f()
    })
}

fn unload(ns: &CrateNamespace, name: &str) {
    apart(|| ns.unload(name)).unwrap();
}

fn typed<P: WasmParams, R: WasmResults>(cell: &StrongCrateRef, name: &str) -> TypedFunc<P, R> {
    apart(|| cell.typed_func(name).unwrap())
}

fn attach() -> u64 {
    platform().tasks().attach().unwrap().id.get()
}

fn versions() -> Vec<u32> {
    let mut versions: Vec<u32> = retired().iter().map(|r: &RetiredVersion| r.version).collect();
    versions.sort_unstable();
    versions
}

/// A host function that says that it was entered and returns when it is let go.
#[derive(Clone)]
struct Pause {
    entered: Arc<Barrier>,
    leave: Arc<Barrier>,
}

impl Pause {
    fn define(ns: &CrateNamespace) -> Pause {
        let pause = Pause { entered: Arc::new(Barrier::new(2)), leave: Arc::new(Barrier::new(2)) };
        let inside = pause.clone();
        ns.define("env", "pause", move |_: &Caller| {
            inside.entered.wait();
            inside.leave.wait();
        })
        .unwrap();
        pause
    }
}

/// Version `i` of a cell that calls `pause`, and whose result says which version it is.
fn pausing(i: usize) -> String {
    format!(
        r#"(module (import "env" "pause" (func $pause)) (memory 1)
        (func (export "run") (result i32) (i32.store (i32.const 4) (i32.const {i})) call $pause (i32.load (i32.const 4)))
        (func (export "version") (result i32) (i32.const {i})))"#
    )
}

#[test]
fn a_task_parked_in_one_version_keeps_exactly_that_version_and_frees_it_when_it_leaves() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let pause = Pause::define(&ns);
    let cell = load(&ns, "cell", &pausing(1));
    let run = typed::<(), i32>(&cell, "run");
    drop(cell);
    let (id, ids) = mpsc::channel();
    let parked = spawn(move || {
        id.send(attach()).unwrap();
        let result = run.call(()).unwrap();
        // It freed the version itself when it left: nobody else looked.
        (result, versions())
    });
    let id = ids.recv().unwrap();
    pause.entered.wait();
    let texts = TEXT.len();
    for i in 2..=10 {
        let cell = load(&ns, "cell", &pausing(i));
        assert_eq!(apart(|| typed::<(), i32>(&cell, "version").call(()).unwrap()), i as i32);
    }
    settle(1);
    let [kept] = &retired()[..] else { panic!("{:?}", retired()) };
    assert_eq!((&*kept.name, kept.version, &kept.held_by[..]), ("cell", 1, &[id][..]));
    assert!(kept.bytes > 65536, "its memory counts");
    assert_eq!(TEXT.len(), texts + 1, "the version that is kept, and the last");
    pause.leave.wait();
    assert_eq!(parked.join().unwrap(), (1, vec![]));
    assert_eq!(TEXT.len(), texts);
}

#[test]
fn a_version_is_freed_at_once_when_the_task_leaves_it_by_a_trap() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let pause = Pause::define(&ns);
    let text = r#"(module (import "env" "pause" (func $pause))
        (func (export "run") call $pause unreachable)
        (func (export "deep") (param i32)
            (if (local.get 0) (then (call 2 (i32.sub (local.get 0) (i32.const 1)))) (else call $pause unreachable))))"#;
    for through_native in [false, true] {
        for (name, argument) in [("run", None), ("deep", Some(100))] {
            let cell = load(&ns, "cell", text);
            let (run, deep) = (typed::<(), ()>(&cell, "run"), typed::<(i32,), ()>(&cell, "deep"));
            drop(cell);
            let parked = spawn(move || {
                let call = || argument.map_or_else(|| run.call(()), |n| deep.call((n,)));
                let trap = if through_native { catch_trap(call).unwrap() } else { call() }.unwrap_err();
                assert_eq!(trap.code(), TrapCode::Unreachable);
                versions()
            });
            pause.entered.wait();
            unload(&ns, "cell");
            settle(1);
            pause.leave.wait();
            assert_eq!(parked.join().unwrap(), [], "{name}");
        }
    }
}

/// What a task does with an address while it holds it in one place only.
type Hold = fn(address: usize, held: &AtomicU32, release: &AtomicU32);

/// Keeps it in a callee-saved register and spins.
fn in_register(address: usize, held: &AtomicU32, release: &AtomicU32) {
    // SAFETY: reads and writes two words that live; `r15` is an operand, so the compiler saves it.
    unsafe {
        asm!("mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b",
            held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr(), in("r15") address, options(nostack));
    }
}

/// Keeps it in the upper half of a vector register and spins.
fn in_vector_register(address: usize, held: &AtomicU32, release: &AtomicU32) {
    let both = [0, address];
    // SAFETY: as above.
    unsafe {
        asm!("movups xmm11, [{both}]", "mov qword ptr [{both} + 8], 0", "mov {both}, 0",
            "mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b",
            both = inout(reg) both.as_ptr() => _, held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr(),
            out("xmm11") _, options(nostack));
    }
}

/// Keeps it in a register while it sleeps in the kernel.
fn in_saved_context(address: usize, held: &AtomicU32, release: &AtomicU32) {
    held.store(1, Ordering::SeqCst);
    while release.load(Ordering::SeqCst) == 0 {
        // SAFETY: `futex(release, FUTEX_WAIT, 0, no timeout)`.
        unsafe {
            asm!("syscall", inout("rax") libc::SYS_futex => _, in("rdi") release.as_ptr(), in("rsi") libc::FUTEX_WAIT,
                in("rdx") 0, in("r10") 0, out("rcx") _, out("r11") _, in("r12") address, options(nostack));
        }
    }
}

/// Keeps it in the red zone below the stack pointer.
fn in_red_zone(address: usize, held: &AtomicU32, release: &AtomicU32) {
    // SAFETY: as in `in_register`; the red zone is the code's own, and the compiler is told that the stack is used.
    unsafe {
        asm!("push {address}", "lea rsp, [rsp + 8]", "xor {address:e}, {address:e}",
            "mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b",
            address = inout(reg) address => _, held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr());
    }
}

/// Keeps it in its frame while it runs on a stack that nobody knows of.
fn on_a_stack_of_its_own(address: usize, held: &AtomicU32, release: &AtomicU32) {
    let mut stack = vec![0usize; 4096];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: nothing is pushed by other code while the stack pointer is changed; it is put back.
    unsafe {
        asm!("mov r14, rsp", "mov rsp, {top}", "push {address}", "xor {address:e}, {address:e}",
            "mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b", "mov rsp, r14",
            address = inout(reg) address => _, held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr(),
            top = in(reg) top, out("r14") _);
    }
}

/// Blocks every signal meanwhile; whatever it holds, nobody can know.
fn behind_a_signal_mask(_: usize, held: &AtomicU32, release: &AtomicU32) {
    // SAFETY: plain calls with valid sets.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        held.store(1, Ordering::SeqCst);
        while release.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
    }
}

/// An address in the cell's text, all bits inverted so that nobody finds it where it is not meant to be.
#[inline(never)]
fn hidden_text(cell: &StrongCrateRef) -> usize {
    !(cell.code().unwrap().text().start + 20)
}

/// Unloads a cell while another task does `hold` with an address of its code. Returns how many versions wait meanwhile.
/// The address it gets has only the bits of `mask`.
fn kept_by(hold: Hold, mask: usize) -> usize {
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "cell", r#"(module (func (export "f") (result i32) (i32.const 1)))"#);
    let hidden = hidden_text(&cell);
    drop(cell);
    let (held, release) = (AtomicU32::new(0), AtomicU32::new(0));
    let kept = thread::scope(|scope| {
        let task = scope.spawn(|| {
            attach();
            hold(!hidden & mask, &held, &release);
        });
        while held.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        unload(&ns, "cell");
        // Whether it is found where it is, however often one looks. The other task says nothing while it does not get the processor.
        let look = |_| (thread::sleep(Duration::from_millis(1)), apart(reclaim)).1;
        let kept = (0..300).map(look).find(|kept| *kept == 0).unwrap_or_else(|| apart(reclaim));
        release.store(1, Ordering::SeqCst);
        // SAFETY: wakes who sleeps on the word.
        unsafe { libc::syscall(libc::SYS_futex, release.as_ptr(), libc::FUTEX_WAKE, 1) };
        task.join().unwrap();
        kept
    });
    settle(0);
    kept
}

#[test]
fn an_address_in_a_register_keeps_the_version() {
    let _alone = alone();
    assert_eq!(kept_by(in_register, usize::MAX), 1);
}

#[test]
fn an_address_in_a_vector_register_keeps_the_version() {
    let _alone = alone();
    assert_eq!(kept_by(in_vector_register, usize::MAX), 1);
}

#[test]
fn an_address_in_the_saved_context_of_a_sleeping_task_keeps_the_version() {
    let _alone = alone();
    assert_eq!(kept_by(in_saved_context, usize::MAX), 1);
}

#[test]
fn an_address_below_the_stack_pointer_keeps_the_version() {
    let _alone = alone();
    assert_eq!(kept_by(in_red_zone, usize::MAX), 1);
}

#[test]
fn a_task_on_a_stack_of_its_own_keeps_everything() {
    let _alone = alone();
    assert_eq!(kept_by(on_a_stack_of_its_own, usize::MAX), 1);
}

#[test]
fn a_task_that_blocks_all_signals_keeps_everything_and_nobody_hangs() {
    let _alone = alone();
    assert_eq!(kept_by(behind_a_signal_mask, usize::MAX), 1);
}

#[test]
fn a_task_that_runs_but_holds_nothing_keeps_nothing() {
    let _alone = alone();
    assert_eq!(kept_by(in_register, 0xfff), 0);
}

#[test]
fn a_raw_entry_called_outside_of_any_catch_keeps_the_version() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let pause = Pause::define(&ns);
    let cell = load(&ns, "cell", &pausing(7));
    // SAFETY: of this type; the task is attached before it calls.
    let run = apart(|| unsafe { cell.entry::<extern "C-unwind" fn() -> i32>("run") }.unwrap());
    drop(cell);
    let parked = spawn(move || {
        attach();
        run()
    });
    pause.entered.wait();
    unload(&ns, "cell");
    settle(1);
    pause.leave.wait();
    assert_eq!(parked.join().unwrap(), 7);
    settle(0);
}

#[test]
fn a_host_function_reached_by_a_tail_call_keeps_the_version_that_is_its_caller() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let (entered, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (inside, go) = (entered.clone(), leave.clone());
    ns.define("env", "peek", move |caller: &Caller| -> i32 {
        inside.wait();
        go.wait();
        // The caller's memory is still there, though no frame of its code is.
        let mut bytes = [0; 4];
        caller.memory(0).unwrap().read(4, &mut bytes).unwrap();
        i32::from_le_bytes(bytes)
    })
    .unwrap();
    let text = r#"(module (import "env" "peek" (func $peek (result i32))) (memory 1)
        (func (export "run") (result i32) (i32.store (i32.const 4) (i32.const 77)) (return_call $peek)))"#;
    let cell = load(&ns, "cell", text);
    let run = typed::<(), i32>(&cell, "run");
    drop(cell);
    let parked = spawn(move || run.call(()).unwrap());
    entered.wait();
    unload(&ns, "cell");
    settle(1);
    leave.wait();
    assert_eq!(parked.join().unwrap(), 77);
    settle(0);
}

#[test]
fn a_task_that_has_left_keeps_nothing_whatever_its_native_frames_hold() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let pause = Pause::define(&ns);
    let cell = load(&ns, "cell", &pausing(1));
    let (run, hidden) = (typed::<(), i32>(&cell, "run"), hidden_text(&cell));
    drop(cell);
    let (done, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (is_done, may_end) = (done.clone(), end.clone());
    let task = spawn(move || {
        let address = std::hint::black_box(!hidden);
        run.call(()).unwrap();
        // Left, but the address is still in the frame: nothing that native code calls by.
        is_done.wait();
        may_end.wait();
        std::hint::black_box(&address);
    });
    pause.entered.wait();
    unload(&ns, "cell");
    settle(1);
    pause.leave.wait();
    done.wait();
    settle(0);
    end.wait();
    task.join().unwrap();
}

#[test]
fn native_frames_inside_of_calls_keep_what_they_hold() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let hidden = Arc::new(AtomicUsize::new(0));
    let (entered, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (inside, go, address) = (entered.clone(), leave.clone(), hidden.clone());
    ns.define("env", "hold", move || {
        let address = std::hint::black_box(!address.load(Ordering::SeqCst));
        inside.wait();
        go.wait();
        std::hint::black_box(&address);
    })
    .unwrap();
    let text = r#"(module (import "env" "hold" (func $hold)) (func (export "run") call $hold))"#;
    let (held, holder) = (load(&ns, "held", text), load(&ns, "holder", text));
    hidden.store(hidden_text(&held), Ordering::SeqCst);
    let run = typed::<(), ()>(&holder, "run");
    drop((held, holder));
    let task = spawn(move || run.call(()).unwrap());
    entered.wait();
    unload(&ns, "held");
    settle(1);
    leave.wait();
    task.join().unwrap();
    settle(0);
}

#[test]
fn a_task_inside_another_signals_handler_on_the_alternate_stack_is_looked_at_whole() {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    static LEAVE: AtomicBool = AtomicBool::new(false);
    extern "C" fn handler(_: libc::c_int) {
        ENTERED.store(true, Ordering::SeqCst);
        while !LEAVE.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
    }
    let _alone = alone();
    // SAFETY: a handler that only uses atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let ns = CrateNamespace::new("test", None);
    // SAFETY: sends the signal to this thread.
    ns.define("env", "pause", |_: &Caller| unsafe { assert_eq!(libc::raise(libc::SIGUSR1), 0) }).unwrap();
    for inside in [true, false] {
        ENTERED.store(false, Ordering::SeqCst);
        LEAVE.store(false, Ordering::SeqCst);
        let cell = load(&ns, "cell", &pausing(3));
        let run = typed::<(), i32>(&cell, "run");
        let task = spawn(move || {
            attach();
            // SAFETY: as above.
            if inside { run.call(()).unwrap() } else { unsafe { 3 + libc::raise(libc::SIGUSR1) } }
        });
        drop(cell);
        while !ENTERED.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        unload(&ns, "cell");
        if inside {
            settle(1);
        }
        LEAVE.store(true, Ordering::SeqCst);
        assert_eq!(task.join().unwrap(), 3);
        settle(0);
    }
}

#[test]
fn looking_at_a_task_does_not_end_its_system_call() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let reading = Arc::new(AtomicBool::new(false));
    let is_reading = reading.clone();
    let reader = spawn(move || {
        attach();
        let mut byte = 0u8;
        is_reading.store(true, Ordering::SeqCst);
        // SAFETY: room for one byte.
        unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) }
    });
    while !reading.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    for _ in 0..50 {
        load(&ns, "cell", r#"(module (func (export "f")))"#);
        thread::sleep(Duration::from_millis(1));
        unload(&ns, "cell");
    }
    // SAFETY: one byte.
    assert_eq!(unsafe { libc::write(pipe[1], c"x".as_ptr().cast(), 1) }, 1);
    assert_eq!(reader.join().unwrap(), 1);
    settle(0);
}

#[test]
fn tasks_that_trap_panic_and_are_killed_are_looked_at_all_the_while() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "panic", |_: &Caller| -> () { std::panic::resume_unwind(Box::new("on purpose")) }).unwrap();
    let text = |i: usize| {
        format!(
            r#"(module (import "env" "panic" (func $panic)) (memory 1)
            (func (export "version") (result i32) (i32.const {i}))
            (func (export "spin") (loop $l (br $l)))
            (func (export "fault") (drop (i32.load (i32.const -4))))
            (func (export "unreachable") unreachable)
            (func (export "panic") call $panic))"#
        )
    };
    load(&ns, "cell", &text(0));
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ids = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        for id in &ids {
            let (ns, stop, calls) = (&ns, &stop, &calls);
            scope.spawn(move || {
                id.store(attach(), Ordering::SeqCst);
                while !stop.load(Ordering::SeqCst) {
                    let Some(cell) = ns.get_crate("cell") else { continue };
                    for name in ["version", "fault", "unreachable", "panic", "spin"] {
                        let Ok(f) = cell.func(name) else { break };
                        let mut results = vec![Val::I32(0); usize::from(name == "version")];
                        let call = || f.call(&[], &mut results).map_err(|e| e.to_string());
                        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
                        // Of these, only a kill ends `spin`, and it may end any other.
                        assert!(name == "version" || name == "panic" || outcome.unwrap().is_err(), "{name}");
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for i in 1..300 {
            load(&ns, "cell", &text(i));
            for id in &ids {
                let _ = kill_task(id.load(Ordering::SeqCst));
            }
            apart(reclaim);
        }
        stop.store(true, Ordering::SeqCst);
        while calls.load(Ordering::Relaxed) < 5 || ids.iter().any(|id| kill_task(id.load(Ordering::SeqCst)).is_ok()) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    drop(ns);
    settle(0);
}

#[test]
fn many_versions_in_use_are_each_kept_until_their_own_task_leaves() {
    const VERSIONS: u32 = 16;
    /// The version that is called, the one whose task is inside, and those that may leave. Nothing of the heap: an address of something
    /// freed, on the stack of a task that stays, may be that of something new.
    static CALLED: AtomicU32 = AtomicU32::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static LEAVE: [AtomicBool; VERSIONS as usize + 1] = [const { AtomicBool::new(false) }; VERSIONS as usize + 1];
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "pause", |_: &Caller| {
        let version = CALLED.load(Ordering::SeqCst);
        INSIDE.store(version, Ordering::SeqCst);
        while !LEAVE[version as usize].load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    })
    .unwrap();
    let mut parked = Vec::new();
    for i in 1..=VERSIONS {
        let cell = load(&ns, "cell", &pausing(i as usize));
        let run = typed::<(), i32>(&cell, "run");
        CALLED.store(i, Ordering::SeqCst);
        parked.push((i, spawn(move || run.call(()).unwrap())));
        while INSIDE.load(Ordering::SeqCst) != i {
            thread::yield_now();
        }
    }
    unload(&ns, "cell");
    settle(VERSIONS as usize);
    assert_eq!(versions(), (1..=VERSIONS).collect::<Vec<_>>());
    // In an order that is not that of the versions.
    while !parked.is_empty() {
        let (i, task) = parked.swap_remove(parked.len() / 2);
        LEAVE[i as usize].store(true, Ordering::SeqCst);
        assert_eq!(task.join().unwrap(), i as i32);
        assert_eq!(versions(), {
            let mut left: Vec<u32> = parked.iter().map(|p| p.0).collect();
            left.sort_unstable();
            left
        });
    }
}

#[test]
fn a_cell_that_unloads_itself_is_freed_when_its_call_returns() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let me = Arc::downgrade(&ns);
    ns.define("env", "pause", move |_: &Caller| me.upgrade().unwrap().unload("cell").unwrap()).unwrap();
    let cell = load(&ns, "cell", &pausing(5));
    let run = typed::<(), i32>(&cell, "run");
    drop(cell);
    let called = || {
        let result: Result<i32, Trap> = run.call(());
        (result.unwrap(), versions())
    };
    assert_eq!(apart(called), (5, vec![]));
}
