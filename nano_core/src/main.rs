//! The bootable base kernel: runs wasm cells in ring 0.
//!
//! Boot ([`boot`], [`descriptors`], [`heap`], the port's `init` functions), then what the command line asks for:
//! the kernel's own checks ([`check`]), or a wasm module from the boot archive ([`run`]). Ends the machine with a status.
#![no_std]
#![no_main]
#![feature(panic_can_unwind)] // tells a panic that must not unwind from one that may
#![feature(alloc_error_handler)] // makes errors of allocations that failed
#![feature(lang_items)] // names the personality routine of Rust code
#![expect(internal_features, reason = "std, which has the personality routine elsewhere, is not there")]

extern crate alloc;

mod archive_cells;
mod boot;
mod check;
mod components;
mod console_line;
mod descriptors;
mod exceptions;
mod exit;
mod fault;
mod freestanding;
mod heap;
#[cfg(feature = "inject")]
mod held;
mod image;
#[cfg(feature = "inject")]
mod injection;
#[cfg(feature = "inject")]
mod measure;
mod panic;
mod run;
mod shell;
#[cfg(feature = "inject")]
mod storm;
#[cfg(feature = "conformance")]
mod suites;
mod symbols;

use alloc::vec::Vec;
use boot::StartInfo;
use core::fmt::Write;
use exit::{Status, exit, fatal};
use kernel_config::{bare_metal::BOOT_TASK_STACK, memory::PAGE_SIZE};
use namespace_bridge::CrateNamespace;
use nano_core::{archive::Archive, command_line::CommandLine};
use planks::printable::Printable;
use runtime_port::{
    bare_metal::{
        self, console,
        console::Console,
        cpu,
        memory::{BareMemory, BootMemory},
        task, time, timer, unwind,
    },
    memory::{MemoryPort, PteFlags},
};
use x86_64::instructions::interrupts;

/// What the boot task works on.
struct Boot {
    command_line: &'static [u8],
    archive: Option<&'static [u8]>,
}

/// What to do about a machine on which the kernel does not start.
const MORE_MEMORY: &str = ". Give the machine 32 MiB or more (`-m 128`)";

static BOOT: spin::Once<Boot> = spin::Once::new();

/// Rust's entry, on the boot stack with the loader's start info.
extern "C" fn kernel_main(start_info: u32) -> ! {
    // SAFETY: this runs once, alone, first.
    unsafe {
        console::init();
        descriptors::load();
    }
    // SAFETY: the loader passed the address, and nothing was written since.
    let info = match unsafe { StartInfo::at(start_info) } {
        Ok(info) => info,
        Err(error) => fatal(format_args!("{error}")),
    };
    let (ram, reserved, guards) = (info.ram(), info.reserved(), image::guards());
    let memory = BootMemory { ram: ram.as_slice(), reserved: reserved.as_slice(), image: image::layout(&guards) };
    // SAFETY: once; the boot code mapped the first 4 GiB twice, and the loader's map is what there is to believe.
    if let Err(error) = unsafe { bare_metal::memory::init(&memory) } {
        fatal(format_args!("cannot set up memory: {error}{MORE_MEMORY}"));
    }
    cpu::enable_vectors();
    cpu::enable_protection();
    // SAFETY: the linker script put the unwind info there.
    unsafe { unwind::init(image::unwind_info()) };
    #[cfg(feature = "inject")]
    injection::prepare();
    bare_metal::install(bare_metal::Kernel { fatal, heap_statistics: heap::statistics });
    let (hz, rate) = time::calibrate(None);
    // SAFETY: once; the gates were loaded first thing.
    let tick = unsafe { timer::start() };
    let mib = (bare_metal::memory::frame_use().total * PAGE_SIZE) >> 20;
    let mhz = hz / 1_000_000;
    // Output that fails is dropped.
    let _ = writeln!(Console, "nano_core: {mib} MiB of memory, counter at {mhz} MHz ({rate:?}), ticks by {tick:?}");
    BOOT.call_once(|| Boot { command_line: info.command_line(), archive: info.first_module() });
    enter_boot_task()
}

/// Goes on on a large stack with a guard page below.
fn enter_boot_task() -> ! {
    let stack = match boot_task_stack() {
        Ok(stack) => stack,
        Err(error) => fatal(format_args!("no memory for the boot task's stack: {error}{MORE_MEMORY}")),
    };
    // SAFETY: the stack is mapped, ours and unused; a zero return address ends it for the unwinder.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "push rbp",
            "jmp {main}",
            top = in(reg) stack.1,
            main = sym boot_task,
            in("rdi") stack.0,
            in("rsi") stack.1,
            options(noreturn),
        )
    }
}

fn boot_task_stack() -> Result<(usize, usize), runtime_port::memory::MemoryError> {
    let reservation = BareMemory.reserve(PAGE_SIZE + BOOT_TASK_STACK)?;
    let bottom = reservation + PAGE_SIZE;
    // SAFETY: reserved just now; the page below stays unmapped.
    unsafe { bare_metal::memory::commit(bottom..bottom + BOOT_TASK_STACK, PteFlags::VALID | PteFlags::WRITABLE)? };
    Ok((bottom, bottom + BOOT_TASK_STACK))
}

extern "C" fn boot_task(bottom: usize, top: usize) -> ! {
    // SAFETY: we run on this stack, which was mapped through the port and is never unmapped.
    if let Err(error) = unsafe { task::init_boot_task(bottom..top) } {
        fatal(format_args!("{error}"));
    }
    console::enable_input();
    // Nobody has set another one.
    runtime_port::console::init_log(log::LevelFilter::Warn);
    interrupts::enable();
    exit(main())
}

/// Does what the command line says.
fn main() -> Status {
    let Some(boot) = BOOT.get() else { fatal(format_args!("the boot task started before boot ended")) };
    let Ok(line) = core::str::from_utf8(boot.command_line) else {
        return failure(format_args!("the command line is not UTF-8"));
    };
    #[cfg(feature = "inject")]
    if let Some(status) = injection::asked(line).or_else(|| storm::asked(line)).or_else(|| measure::asked(line)) {
        return status;
    }
    #[cfg(feature = "conformance")]
    if let Some(status) = suites::asked(line, boot.archive) {
        return status;
    }
    let line = match CommandLine::parse(line) {
        Ok(line) => line,
        Err(error) => return failure(format_args!("{error}")),
    };
    let archive = match boot.archive.map(Archive::new).transpose() {
        Ok(archive) => archive,
        Err(error) => return failure(format_args!("boot archive: {error}")),
    };
    if let Some(archive) = &archive {
        symbols::init(archive);
    }
    if let Some(part) = line.test {
        return check::run_all(part);
    }
    if let Some(kind) = line.fault {
        return survived(kind);
    }
    if let Some(file) = line.run {
        return match run::run(file, &line, archive) {
            Ok(()) => Status::Success,
            Err(error) => failure(format_args!("{error}")),
        };
    }
    if line.shell || line == CommandLine::default() {
        if archive.is_none() {
            // The shell is of use without one.
            let _ = writeln!(
                Console,
                "no boot archive: `-initrd FILE` gives one (cpio, `newc` format); `receive` takes files over this line"
            );
        }
        components::file_system::init(boot.archive.unwrap_or_default());
        return match run::host_namespace().and_then(|host| {
            let namespace = CrateNamespace::new("kernel", Some(host));
            components::start(&namespace);
            if let Some(archive) = boot_archive() {
                archive_cells::provide(&namespace, archive, "");
            }
            shell::run(namespace)
        }) {
            Ok(()) => Status::Success,
            Err(error) => failure(format_args!("{error}")),
        };
    }
    failure(format_args!("nothing to do: give `shell`, `test`, or `run=FILE`, with `invoke=FUNCTION` and `args=A,B`"))
}

/// The boot archive, if there is one and it is whole.
fn boot_archive() -> Option<Archive<'static>> {
    Archive::new(BOOT.get()?.archive?).ok()
}

/// Faults on request. That it comes back is a failure.
fn survived(kind: &str) -> Status {
    match fault::cause(kind) {
        None => {
            failure(format_args!("no fault `{kind}`; there are: {}", fault::kinds().collect::<Vec<_>>().join(", ")))
        }
        Some(Err(error)) => failure(format_args!("{error}")),
        Some(Ok(())) => failure(format_args!("the fault `{kind}` did not end the kernel")),
    }
}

fn failure(message: core::fmt::Arguments<'_>) -> Status {
    // The status tells it too.
    let _ = writeln!(Console, "error: {}", Printable(message));
    Status::Failure
}
