//! What is replaced or unloaded lives exactly as long as some task may use it: in a frame, a register, a saved context, a vector
//! register, below its stack pointer. And what swaps leave: nothing.

use super::{
    Check, Outcome,
    cells::text,
    expect, expect_eq,
    tasks::{join, start},
};

use crate::held::Held;
use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::{
    arch::asm,
    ops::Range,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};
use kernel_config::bare_metal::RESCHEDULE_VECTOR;
use namespace_bridge::{
    CellModule, CrateNamespace, LoadOptions, TypedFunc, compile_module, reclaim, retired,
    swap::{SwapError, SwapRequest, SwapStep},
    text_index::TEXT,
};
use runtime_port::platform;
use spin::Mutex;
use wasm_cell::trap::TrapCode;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("tasks_parked_in_versions_of_a_cell_keep_exactly_those", tasks_parked_in_versions_of_a_cell_keep_exactly_those),
    ("a_task_that_traps_out_of_an_old_version_frees_it", a_task_that_traps_out_of_an_old_version_frees_it),
    ("a_killed_task_frees_the_old_version_it_was_in", a_killed_task_frees_the_old_version_it_was_in),
    ("an_address_in_a_saved_register_keeps_the_version", an_address_in_a_saved_register_keeps_the_version),
    (
        "an_address_in_a_saved_vector_register_keeps_the_version",
        an_address_in_a_saved_vector_register_keeps_the_version,
    ),
    ("an_address_in_a_register_of_a_task_that_yields_keeps_the_version", an_address_across_a_yield_keeps_the_version),
    ("an_address_below_the_stack_pointer_keeps_the_version", an_address_below_the_stack_pointer_keeps_the_version),
    ("a_task_on_a_foreign_stack_keeps_every_version", a_task_on_a_foreign_stack_keeps_every_version),
    ("a_task_without_an_address_keeps_no_version", a_task_without_an_address_keeps_no_version),
    ("ten_thousand_swaps_of_cells_leave_memory_flat", ten_thousand_swaps_of_cells_leave_memory_flat),
];

const PARKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/parked.wasm"));

/// Name of the cells here: other checks may have left something that waits.
const CELL: &str = "parked";

/// Runs `f` in a task of its own, so that no address stays on the stack of the one that checks.
fn apart<R: Send + 'static>(f: impl FnOnce() -> Result<R, String> + Send + 'static) -> Result<R, String> {
    let its: Arc<Mutex<Option<Result<R, String>>>> = Arc::default();
    let task = its.clone();
    join([start("apart", move || {
        let done = f();
        *task.lock() = Some(done);
    })?])?;
    let done = its.lock().take();
    done.unwrap_or_else(|| Err(String::from("the task that was to check this panicked")))
}

/// Version `number` of the cell.
fn module(number: u8) -> Result<Arc<CellModule>, String> {
    /// `i32.const 33`, as it is encoded.
    const PLACE: [u8; 2] = [0x41, 33];
    let mut bytes = PARKED.to_vec();
    for at in 0..bytes.len() - 1 {
        if bytes[at..].starts_with(&PLACE) {
            bytes[at + 1] = number;
        }
    }
    compile_module(CELL, &bytes, &LoadOptions::default()).map_err(text)
}

/// A place in the host where tasks wait until their number is let go.
#[derive(Default)]
struct Pause {
    entered: AtomicU32,
    /// A bit for each that may leave.
    released: AtomicU32,
}

impl Pause {
    fn wait(&self) {
        let mine = 1u32 << (self.entered.fetch_add(1, SeqCst) & 31);
        platform().tasks().wake(&self.entered, u32::MAX);
        loop {
            let released = self.released.load(SeqCst);
            if released & mine != 0 || namespace_bridge::kill::is_pending() {
                return;
            }
            platform().tasks().wait(&self.released, released, None);
        }
    }

    fn until_entered(&self, count: u32) {
        loop {
            let entered = self.entered.load(SeqCst);
            if entered >= count {
                return;
            }
            platform().tasks().wait(&self.entered, entered, None);
        }
    }

    fn release(&self, number: u32) {
        self.released.fetch_or(1 << number, SeqCst);
        platform().tasks().wake(&self.released, u32::MAX);
    }
}

/// A namespace with version 1 of the cell, and its pause.
fn bed() -> Result<(Arc<CrateNamespace>, Arc<Pause>), String> {
    let (namespace, pause) = (CrateNamespace::new("reclaim", None), Arc::new(Pause::default()));
    let inside = pause.clone();
    namespace.define("host", "pause", move || inside.wait()).map_err(text)?;
    namespace.load_module(CELL, &module(1)?, LoadOptions::default()).map_err(text)?;
    Ok((namespace, pause))
}

fn swap(namespace: &CrateNamespace, number: u8) -> Outcome {
    let request = SwapRequest::new(CELL).with_module(&module(number)?).keep_old(false);
    namespace.swap(request).map(drop).map_err(text)
}

/// What waits: versions, and the tasks that keep them.
fn waiting() -> Vec<(u32, Vec<u64>)> {
    let mut all: Vec<_> = retired().into_iter().filter(|r| &*r.name == CELL).map(|r| (r.version, r.held_by)).collect();
    all.sort_unstable();
    all
}

/// Looks until what waits is as expected, or for long. What is on its way while somebody looks may be taken for more.
fn settle(expected: Vec<(u32, Vec<u64>)>) -> Outcome {
    apart(move || {
        for _ in 0..1000 {
            reclaim();
            if waiting() == expected {
                break;
            }
            platform().tasks().yield_now();
        }
        expect_eq("what waits, and for whom", waiting(), expected)
    })
}

/// Calls `export` of the version in service with 100 in a task of its own, which then says what still waits. `answer` gets that, and
/// the result or the trap's code.
type Answer = Arc<Mutex<Option<(Result<i32, TrapCode>, Vec<u32>)>>>;

fn park(namespace: &Arc<CrateNamespace>, export: &'static str) -> Result<(u64, Answer), String> {
    let answer = Answer::default();
    let (namespace, its) = (namespace.clone(), answer.clone());
    let id = start("parked", move || {
        let Some(Ok(function)) = namespace.get_crate(CELL).map(|c| c.typed_func::<(i32,), i32>(export)) else { return };
        let result = function.call((100,)).map_err(|trap| trap.code());
        // It looked itself when it left; nobody else has.
        let versions = waiting().into_iter().map(|(version, _)| version).collect();
        *its.lock() = Some((result, versions));
    })?;
    Ok((id, answer))
}

fn tasks_parked_in_versions_of_a_cell_keep_exactly_those() -> Outcome {
    settle(Vec::new())?;
    let (namespace, pause) = apart(bed)?;
    let mut parked = Vec::new();
    for number in 1..=3u8 {
        let its = namespace.clone();
        apart(move || if number > 1 { swap(&its, number) } else { Ok(()) })?;
        parked.push(park(&namespace, "run")?);
        pause.until_entered(number.into());
    }
    let its = namespace.clone();
    apart(move || (4..=12).try_for_each(|number| swap(&its, number)))?;
    let texts = TEXT.len();
    let ids: Vec<u64> = parked.iter().map(|(id, _)| *id).collect();
    let kept = |versions: &[usize]| versions.iter().map(|v| (*v as u32, alloc::vec![ids[*v - 1]])).collect::<Vec<_>>();
    settle(kept(&[1, 2, 3]))?;
    let all = TEXT.len();
    expect(&format!("{texts} texts, then {all}"), all <= texts)?;
    for (task, rest) in [(2, &[1, 3][..]), (3, &[1]), (1, &[])] {
        pause.release(task as u32 - 1);
        let (id, answer) = &parked[task - 1];
        join([*id])?;
        let (result, versions) = answer.lock().take().ok_or("a task did not answer")?;
        expect_eq("the version that ran", result, Ok(100 + task as i32))?;
        expect_eq("what it left waiting", versions, rest.iter().map(|v| *v as u32).collect())?;
    }
    expect_eq("texts of the three", all - TEXT.len(), 3)?;
    apart(move || {
        let version = namespace.get_crate(CELL).and_then(|c| c.typed_func::<(), i32>("version").ok());
        expect_eq("the version in service", version.and_then(|f| f.call(()).ok()), Some(12))
    })
}

/// A task waits in version 1 while version 2 takes its place, then leaves as `leave` has it.
fn leaves(export: &'static str, leave: impl FnOnce(&Pause, u64) -> Outcome, with: Result<i32, TrapCode>) -> Outcome {
    settle(Vec::new())?;
    let (namespace, pause) = apart(bed)?;
    let (id, answer) = park(&namespace, export)?;
    pause.until_entered(1);
    let its = namespace.clone();
    apart(move || swap(&its, 2))?;
    settle(alloc::vec![(1, alloc::vec![id])])?;
    let texts = TEXT.len();
    leave(&pause, id)?;
    join([id])?;
    expect_eq("how it left, and what waits then", answer.lock().take(), Some((with, Vec::new())))?;
    expect_eq("texts", TEXT.len(), texts - 1)
}

fn a_task_that_traps_out_of_an_old_version_frees_it() -> Outcome {
    let release = |pause: &Pause, _| {
        pause.release(0);
        Ok(())
    };
    leaves("run_and_trap", release, Err(TrapCode::Unreachable))
}

fn a_killed_task_frees_the_old_version_it_was_in() -> Outcome {
    leaves("run", |_, id| namespace_bridge::kill_task(id).map_err(text), Err(TrapCode::Killed))
}

/// What a task does with an address while it holds it in one place only.
type Hold = fn(address: usize, held: &AtomicU32, release: &AtomicU32);

/// In a register, until it is preempted.
fn in_register(address: usize, held: &AtomicU32, release: &AtomicU32) {
    // SAFETY: reads and writes two words that live; `r15` is an operand, so the compiler saves it.
    unsafe {
        asm!("mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b",
            held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr(), in("r15") address, options(nostack));
    }
}

/// In a register while it gives the processor away.
fn across_a_yield(address: usize, held: &AtomicU32, release: &AtomicU32) {
    // SAFETY: as above; the kernel has a gate for the vector, which saves every register but `rax`. It uses no stack of ours.
    unsafe {
        asm!("mov dword ptr [{held}], 1", "2:", "mov rax, -1", "int {vector}", "cmp dword ptr [{release}], 0", "je 2b",
            held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr(), in("r12") address, out("rax") _,
            vector = const RESCHEDULE_VECTOR);
    }
}

/// In the upper half of a vector register, until it is preempted.
fn in_vector_register(address: usize, held: &AtomicU32, release: &AtomicU32) {
    let both = [0, address];
    // SAFETY: as in `in_register`.
    unsafe {
        asm!("movups xmm11, [{both}]", "mov qword ptr [{both} + 8], 0", "xor {both:e}, {both:e}",
            "mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b",
            both = inout(reg) both.as_ptr() => _, held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr(),
            out("xmm11") _, options(nostack));
    }
}

/// In the red zone below the stack pointer.
fn in_red_zone(address: usize, held: &AtomicU32, release: &AtomicU32) {
    // SAFETY: as in `in_register`; the red zone is the code's own, and the compiler is told that the stack is used.
    unsafe {
        asm!("push {address}", "lea rsp, [rsp + 8]", "xor {address:e}, {address:e}",
            "mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b",
            address = inout(reg) address => _, held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr());
    }
}

/// In its frame, on a stack that nobody knows of.
fn on_a_foreign_stack(address: usize, held: &AtomicU32, release: &AtomicU32) {
    let mut stack = alloc::vec![0usize; 4096];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: nothing is pushed by other code while the stack pointer is changed; it is put back.
    unsafe {
        asm!("mov r14, rsp", "mov rsp, {top}", "push {address}", "xor {address:e}, {address:e}",
            "mov dword ptr [{held}], 1", "2:", "pause", "cmp dword ptr [{release}], 0", "je 2b", "mov rsp, r14",
            address = inout(reg) address => _, held = in(reg) held.as_ptr(), release = in(reg) release.as_ptr(),
            top = in(reg) top, out("r14") _);
    }
}

/// Unloads a cell while another task does `hold` with an address of its code, of which it gets the bits of `mask`. How many of its
/// versions wait meanwhile, however often somebody looks.
fn kept_by(hold: Hold, mask: usize) -> Result<usize, String> {
    settle(Vec::new())?;
    // Inverted, so that nobody finds it where it is not meant to be.
    let (namespace, hidden) = apart(|| {
        let (namespace, _) = bed()?;
        let cell = namespace.get_crate(CELL).ok_or("no cell")?;
        let hidden = !(cell.code().ok_or("no code")?.text().start + 20);
        Ok((namespace, hidden))
    })?;
    let words = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let its = words.clone();
    let task = start("holds", move || {
        if platform().tasks().attach().is_ok() {
            hold(!hidden & mask, &its.0, &its.1);
        }
    })?;
    while words.0.load(SeqCst) == 0 {
        platform().tasks().yield_now();
    }
    let kept = apart(move || {
        namespace.unload(CELL).map_err(text)?;
        let looks = (0..20).map(|_| {
            reclaim();
            waiting().len()
        });
        Ok(looks.min().unwrap_or_default())
    });
    words.1.store(1, SeqCst);
    join([task])?;
    settle(Vec::new())?;
    kept
}

fn an_address_in_a_saved_register_keeps_the_version() -> Outcome {
    expect_eq("versions that wait", kept_by(in_register, usize::MAX)?, 1)
}

fn an_address_across_a_yield_keeps_the_version() -> Outcome {
    expect_eq("versions that wait", kept_by(across_a_yield, usize::MAX)?, 1)
}

fn an_address_in_a_saved_vector_register_keeps_the_version() -> Outcome {
    expect_eq("versions that wait", kept_by(in_vector_register, usize::MAX)?, 1)
}

fn an_address_below_the_stack_pointer_keeps_the_version() -> Outcome {
    expect_eq("versions that wait", kept_by(in_red_zone, usize::MAX)?, 1)
}

fn a_task_on_a_foreign_stack_keeps_every_version() -> Outcome {
    expect_eq("versions that wait", kept_by(on_a_foreign_stack, usize::MAX)?, 1)
}

fn a_task_without_an_address_keeps_no_version() -> Outcome {
    expect_eq("versions that wait", kept_by(in_register, 0xfff)?, 0)
}

/// Swaps of a cell, with a call after each.
struct Series {
    namespace: Arc<CrateNamespace>,
    modules: Vec<Arc<CellModule>>,
    version: TypedFunc<(), i32>,
}

impl Series {
    fn new() -> Result<Arc<Series>, String> {
        let (namespace, _) = bed()?;
        let cell = namespace.get_crate(CELL).ok_or("no cell")?;
        let version = cell.typed_func::<(), i32>("version").map_err(text)?;
        Ok(Arc::new(Series { namespace, modules: (1..=8).map(module).collect::<Result<_, _>>()?, version }))
    }

    /// Every seventh is made to fail, every third is not kept for a rollback.
    fn run(&self, numbers: Range<usize>) -> Outcome {
        let served = |version: usize| -> Outcome {
            let result = self.version.call(()).map_err(text)?;
            expect_eq("the version in service", result, version as i32)
        };
        let mut current = self.version.call(()).map_err(text)? as usize;
        for number in numbers {
            let next = 1 + number % self.modules.len();
            let request = SwapRequest::new(CELL).with_module(&self.modules[next - 1]);
            let request = request.keep_old(!number.is_multiple_of(3));
            if number % 7 == 3 {
                let step = SwapStep::ALL[number / 7 % SwapStep::ALL.len()];
                let result = self.namespace.swap(request.fail_at(step));
                expect("a swap that was to fail", matches!(result, Err(SwapError::Injected { .. })))?;
            } else {
                self.namespace.swap(request).map_err(text)?;
                current = next;
            }
            served(current)?;
        }
        self.namespace.clear_unloaded_crate_cache();
        Ok(())
    }
}

fn ten_thousand_swaps_of_cells_leave_memory_flat() -> Outcome {
    settle(Vec::new())?;
    let series = apart(Series::new)?;
    let run = |numbers: Range<usize>| -> Result<Held, String> {
        let series = series.clone();
        apart(move || series.run(numbers))?;
        settle(Vec::new())?;
        Ok(Held::now())
    };
    let before = run(0..1_000)?;
    let after = run(1_000..11_000)?;
    expect(&format!("{before:?} before, {after:?} after"), !before.has_grown_to(&after))
}
