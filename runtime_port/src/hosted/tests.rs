//! Signals, stacks and threads of the hosted port.

use crate::memory::{MappedPages, PteFlags, create_mapping};
use crate::platform::platform;
use crate::task::{self, TaskError};
use crate::trap::{Exception, ExceptionAction, ExceptionContext};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use kernel_config::memory::PAGE_SIZE;
use kernel_config::task::YELLOW_ZONE;
use std::boxed::Box;
use std::process::{Command, Output};
use std::string::String;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::vec::Vec;

/// Code that faults: each snippet starts at a multiple of 16 and is followed by `ret` at +15.
struct FaultyCode(MappedPages);

/// `mov rax, [rdi]`, `div` by zero in `ecx`, `ud2`.
const SNIPPETS: [&[u8]; 3] =
    [&[0x48, 0x8b, 0x07], &[0x31, 0xd2, 0x31, 0xc9, 0xb8, 1, 0, 0, 0, 0xf7, 0xf1], &[0x0f, 0x0b]];

static CODE_START: AtomicUsize = AtomicUsize::new(0);

impl FaultyCode {
    fn get() -> &'static FaultyCode {
        static CODE: OnceLock<FaultyCode> = OnceLock::new();
        CODE.get_or_init(|| {
            let mut pages = create_mapping(PAGE_SIZE, PteFlags::VALID | PteFlags::WRITABLE).unwrap();
            for (i, snippet) in SNIPPETS.iter().enumerate() {
                let place = pages.as_slice_mut::<u8>(16 * i, 16).unwrap();
                place.fill(0x90);
                place[..snippet.len()].copy_from_slice(snippet);
                place[15] = 0xc3;
            }
            pages.remap(PteFlags::VALID | PteFlags::EXECUTABLE).unwrap();
            CODE_START.store(pages.start_address().value(), Ordering::Release);
            platform().traps().install_handler(skip_fault).unwrap();
            platform().traps().install_handler(skip_fault).unwrap();
            FaultyCode(pages)
        })
    }

    fn run(&self, snippet: usize, argument: usize) -> usize {
        let address = self.0.start_address().value() + 16 * snippet;
        // SAFETY: the snippets follow the C calling convention; their faults are answered by `skip_fault`.
        let f: extern "C" fn(usize) -> usize = unsafe { core::mem::transmute(address) };
        f(argument)
    }
}

/// Resumes a fault in the code at the snippet's `ret`, with a result that tells what was seen.
fn skip_fault(context: &mut ExceptionContext) -> ExceptionAction {
    let start = CODE_START.load(Ordering::Acquire);
    if !(start..start + 16 * SNIPPETS.len()).contains(&context.rip) {
        return ExceptionAction::NotMine;
    }
    context.rax = match context.exception {
        Exception::PageFault => context.fault_address.unwrap_or(1),
        Exception::DivideError => 0xd1,
        Exception::InvalidOpcode => 0x0d,
        Exception::GeneralProtection => 0x69,
        Exception::Breakpoint | Exception::Interrupt => return ExceptionAction::NotMine,
    };
    context.rip = (context.rip & !15) + 15;
    ExceptionAction::Resume
}

#[test]
fn every_kind_of_fault_reaches_the_handler() {
    let code = FaultyCode::get();
    let word = 77u64;
    assert_eq!(code.run(0, (&raw const word) as usize), 77);
    assert_eq!(code.run(0, 0x10), 0x10);
    assert_eq!(code.run(0, usize::MAX - 3), usize::MAX - 3, "the last page of the address space is never mapped");
    assert_eq!(code.run(0, 1 << 63), 0x69, "not canonical");
    assert_eq!(code.run(1, 0), 0xd1);
    assert_eq!(code.run(2, 0), 0x0d);
}

#[test]
fn guard_faults_are_caught_on_several_threads_at_once() {
    let code = FaultyCode::get();
    let guard = crate::memory::GrowableMapping::new(1 << 20, 1 << 16).unwrap();
    let outside = guard.start_address().value() + (1 << 16);
    std::thread::scope(|s| {
        for thread in 0..4 {
            s.spawn(move || {
                if thread % 2 == 0 {
                    platform().tasks().attach().unwrap();
                }
                for i in 0..2000 {
                    assert_eq!(code.run(0, outside + 8 * i), outside + 8 * i);
                    assert_eq!(code.run(i % 2 + 1, 0), [0xd1, 0x0d][i % 2]);
                }
            });
        }
    });
}

#[test]
fn the_table_of_handlers_ends_with_an_error() {
    if is_child("handlers") {
        macro_rules! fill { ($($n:literal)*) => { [$({
            fn handler(c: &mut ExceptionContext) -> ExceptionAction {
                if c.rip == $n { ExceptionAction::Resume } else { ExceptionAction::NotMine }
            }
            platform().traps().install_handler(handler)
        }),*] } }
        let results = fill!(1 2 3 4 5 6 7 8 9);
        assert!(results[..8].iter().all(Result::is_ok) && results[8].is_err());
        std::println!("the ninth was refused");
        return;
    }
    let output = run_child("the_table_of_handlers_ends_with_an_error", "handlers");
    assert!(text(&output).contains("the ninth was refused"), "{}", text(&output));
}

#[test]
fn attached_thread_has_a_yellow_zone_that_faults_and_is_restored() {
    let code = FaultyCode::get();
    for _ in 0..50 {
        let thread = std::thread::spawn(move || {
            let first = platform().tasks().attach().unwrap();
            let (limit, top) = (first.stack_limit.get(), first.stack_top.get());
            assert!(core::ptr::eq(first, platform().tasks().attach().unwrap()));
            assert!(limit < task::stack_pointer() && task::stack_pointer() < top);
            assert_eq!(code.run(0, limit - 8), limit - 8);
            assert_eq!(code.run(0, limit - YELLOW_ZONE), limit - YELLOW_ZONE);
            // Just above and just below the zone there is stack.
            let _ = (code.run(0, limit), code.run(0, limit - YELLOW_ZONE - 8));
        });
        thread.join().unwrap();
        // A thread that gets the same stack again can use all of it.
        std::thread::spawn(|| assert!(use_stack(1_900_000) > 0)).join().unwrap();
    }
}

/// Uses about `bytes` of stack.
#[inline(never)]
fn use_stack(bytes: usize) -> usize {
    let block = core::hint::black_box([1u8; 4096]);
    let below = if bytes > 8192 { use_stack(bytes - 4096 - 64) } else { 0 };
    below + usize::from(core::hint::black_box(&block)[7])
}

#[test]
fn too_small_a_stack_is_an_error() {
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(|| platform().tasks().attach().map(|_| ()));
    assert!(matches!(thread.unwrap().join().unwrap(), Err(TaskError::Stack(_))));
}

#[test]
fn native_code_may_go_on_in_the_zone_and_attach_closes_it() {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        let locals = platform().tasks().attach().unwrap();
        let left = task::stack_pointer() - locals.stack_limit.get();
        use_stack(left + YELLOW_ZONE / 2);
        assert!(FaultyCode::get().run(0, locals.stack_limit.get() - 8) != locals.stack_limit.get() - 8);
        platform().tasks().attach().unwrap();
        assert_eq!(FaultyCode::get().run(0, locals.stack_limit.get() - 8), locals.stack_limit.get() - 8);
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn native_stack_overflow_of_an_attached_thread_is_still_reported_by_std() {
    if is_child("overflow") {
        let body = || {
            let _ = FaultyCode::get();
            platform().tasks().attach().unwrap();
            use_stack(usize::MAX);
        };
        std::thread::Builder::new().name("deep".into()).spawn(body).unwrap().join().unwrap();
        return;
    }
    let output = run_child("native_stack_overflow_of_an_attached_thread_is_still_reported_by_std", "overflow");
    assert!(!output.status.success());
    assert!(text(&output).contains("has overflowed its stack"), "{}", text(&output));
}

#[test]
fn a_wild_access_still_ends_the_process_by_its_signal() {
    if is_child("wild") {
        let _ = FaultyCode::get();
        // SAFETY: not safe at all; the process is to die here.
        unsafe { core::ptr::read_volatile(core::ptr::without_provenance::<u8>(0x1234)) };
        return;
    }
    let output = run_child("a_wild_access_still_ends_the_process_by_its_signal", "wild");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(libc::SIGSEGV));
}

#[test]
fn spawned_tasks_run_end_and_survive_panics() {
    let tasks = platform().tasks();
    let seen = Arc::new(AtomicUsize::new(0));
    let ids: [u64; 3] = core::array::from_fn(|i| {
        let seen = seen.clone();
        let f = Box::new(move || {
            let id = platform().tasks().attach().unwrap().id.get();
            seen.fetch_add(id as usize, Ordering::Relaxed);
            if i == 1 {
                std::panic::resume_unwind(Box::new("ends only this task"));
            }
        });
        tasks.spawn("worker", 256 << 10, f).unwrap()
    });
    ids.iter().for_each(|id| tasks.join(*id).unwrap());
    assert_eq!(seen.load(Ordering::Relaxed) as u64, ids.iter().sum::<u64>());
    assert_eq!(tasks.interrupt(ids[0]), Err(TaskError::Ended(ids[0])));
    assert!(tasks.join(u64::MAX).is_err());
}

#[test]
fn a_kill_request_is_seen_by_the_task_and_its_handlers() {
    static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);
    fn count(context: &mut ExceptionContext) -> ExceptionAction {
        if context.exception == Exception::Interrupt {
            INTERRUPTS.fetch_add(1, Ordering::Relaxed);
        }
        ExceptionAction::NotMine
    }
    platform().traps().install_handler(count).unwrap();
    let tasks = platform().tasks();
    let f = || {
        while task::current().kill_requested.load(Ordering::Acquire) == 0 {
            core::hint::spin_loop()
        }
    };
    let id = tasks.spawn("spinner", 64 << 10, Box::new(f)).unwrap();
    tasks.interrupt(id).unwrap();
    tasks.request_kill(id).unwrap();
    tasks.join(id).unwrap();
    assert!(INTERRUPTS.load(Ordering::Relaxed) >= 1);
}

#[test]
fn waiting_times_out_and_wakes() {
    let tasks = platform().tasks();
    let word = AtomicU32::new(0);
    let start = Instant::now();
    while tasks.wait(&word, 0, Some(20_000_000)) {}
    assert!(start.elapsed() >= Duration::from_millis(19));
    assert!(tasks.wait(&word, 1, None), "another value: no sleep");
    assert_eq!(tasks.wake(&word, 5), 0);
    std::thread::scope(|s| {
        s.spawn(|| {
            while word.load(Ordering::Acquire) == 0 {
                tasks.wait(&word, 0, None);
            }
        });
        std::thread::sleep(Duration::from_millis(5));
        word.store(1, Ordering::Release);
        tasks.wake(&word, u32::MAX);
    });
}

#[test]
fn threads_that_attach_leave_nothing_behind() {
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let round = || std::thread::spawn(|| platform().tasks().attach().map(|_| ()).unwrap()).join().unwrap();
    (0..8).for_each(|_| round());
    let before = mappings();
    (0..400).for_each(|_| round());
    assert!(mappings() < before + 100, "{} mappings, {before} before", mappings());
}

/// Whether this process was started by `run_child` to play the role.
fn is_child(role: &str) -> bool {
    std::env::var("PORT_TEST_ROLE").is_ok_and(|r| r == role)
}

/// Runs one test of this binary in a process of its own, in a role.
fn run_child(test: &str, role: &str) -> Output {
    let name = std::format!("hosted::tests::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env("PORT_TEST_ROLE", role).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into()
}

#[test]
fn words_of_a_stopped_task_are_found_in_order_wherever_they_are() {
    let words: Vec<usize> = (0..43).collect();
    let at = |i: usize| words.as_ptr().addr() + i * size_of::<usize>();
    // Registers, none, its own stack, a second stack; the last of them ends within a word.
    let parts = [at(0)..at(3), at(0)..at(0), at(3)..at(24), at(24)..at(42) + 5];
    // SAFETY: words of the list, which nobody changes.
    let task = unsafe { task::StoppedTask::new(task::current(), None, true, parts) };
    let found = |end: usize, wanted: fn(usize) -> bool| {
        let mut found = Vec::new();
        task.find_words_below(end, wanted, |place, word| {
            assert_eq!(place, at(word));
            found.push(word);
        });
        found
    };
    assert_eq!(found(usize::MAX, |_| true), (0..42).collect::<Vec<_>>());
    assert_eq!(found(at(13), |_| true), (0..13).chain(24..42).collect::<Vec<_>>());
    assert_eq!(found(0, |_| true), (0..3).chain(24..42).collect::<Vec<_>>());
    assert_eq!(found(usize::MAX, |w| w % 10 == 2), [2, 12, 22, 32]);
    assert_eq!(found(usize::MAX, |_| false), []);
}
