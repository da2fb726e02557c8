//! The region of cells: code, and what it addresses, within reach of 32 bits from everywhere; and what happens when it is full.

use super::{
    Check, Outcome,
    cells::{TRAPS, load, namespace, text},
    expect, expect_eq,
    tasks::{join, start},
};
use crate::image;
use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::ops::Range;
use kernel_config::{bare_metal::CELLS, limits::CELL_BYTES, memory::PAGE_SIZE};
use namespace_bridge::{
    SectionType,
    swap::{StatePlan, SwapRequest},
};
#[cfg(feature = "inject")]
use runtime_port::bare_metal::memory::frame_use;
use runtime_port::{
    bare_metal::memory::for_each_page,
    memory::{AllocatedPages, GrowableMapping, MemoryError, PteFlags},
    platform,
};
use spin::Mutex;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("image_and_cells_reach_each_other_with_32_bits", image_and_cells_reach_each_other_with_32_bits),
    ("a_full_region_of_cells_is_an_error_that_loses_nothing", a_full_region_of_cells_is_an_error_that_loses_nothing),
    #[cfg(feature = "inject")]
    (
        "ten_thousand_cells_come_and_go_and_leave_the_region_whole",
        ten_thousand_cells_come_and_go_and_leave_the_region_whole,
    ),
];

const ARITHMETIC: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/arithmetic.wasm"));

/// Every address of the base image and of cells.
fn reach() -> Range<usize> {
    image::text().0..CELLS.end
}

fn image_and_cells_reach_each_other_with_32_bits() -> Outcome {
    expect("the image and the region of cells are more than 2 GiB together", reach().len() <= 1 << 31)?;
    expect("an address of a cell does not fit into 31 bits", CELLS.end <= 1 << 31)?;
    expect("the image lies in the region of cells", image::layout(&[]).data.1 <= CELLS.start)?;
    let namespace = namespace()?;
    for i in 0..20 {
        load(&namespace, &format!("traps{i}"), TRAPS)?;
        load(&namespace, &format!("arithmetic{i}"), ARITHMETIC)?;
    }
    // Executable are the image, and in the region of cells: text, entries, stubs of the host's functions. Nothing else anywhere.
    let (mut outside, mut cells) = (None, 0);
    for_each_page(&mut |start, size, flags| {
        if flags.contains(PteFlags::EXECUTABLE) {
            let inside = reach().contains(&start) && start + size <= reach().end;
            outside = outside.or((!inside).then_some(start));
            cells += usize::from(CELLS.contains(&start));
        }
    });
    expect_eq("executable page out of reach", outside, None)?;
    expect(&format!("{cells} executable pages in the region of cells"), cells >= 40)?;
    let cell = namespace.get_crate("arithmetic7").ok_or("a cell is gone")?;
    for section in cell.sections() {
        let address = section.virt_addr.value();
        let in_region = CELLS.contains(&address) && address + section.size <= CELLS.end;
        // A linear memory would fill it.
        let expected = section.typ != SectionType::Bss;
        expect_eq(&format!("whether {:?} at {address:#x} lies with the cells", section.typ), in_region, expected)?;
    }
    expect("it has no memory", cell.sections().iter().any(|s| s.typ == SectionType::Bss))
}

/// Takes all that is left of the region of cells, in ever smaller pieces.
fn rest() -> Result<Vec<AllocatedPages>, String> {
    let (mut all, mut size) = (Vec::new(), CELL_BYTES);
    while size >= PAGE_SIZE {
        match AllocatedPages::reserve_for_code(size) {
            Ok(pages) => all.push(pages),
            Err(MemoryError::OutOfCodeSpace(wanted)) if wanted == size => size /= 2,
            Err(error) => return Err(text(error)),
        }
    }
    Ok(all)
}

/// Runs `f` in a task of its own, so that no address stays on the stack of the one that checks.
fn apart(f: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    let told = Arc::new(Mutex::new(Err(String::from("the task that was to check this panicked"))));
    let its = told.clone();
    join([start("apart", move || {
        let outcome = f();
        *its.lock() = outcome;
    })?])?;
    told.lock().clone()
}

fn a_full_region_of_cells_is_an_error_that_loses_nothing() -> Outcome {
    let namespace = namespace()?;
    let cell = load(&namespace, "arithmetic", ARITHMETIC)?;
    let fib = cell.typed_func::<(i32,), i32>("fib").map_err(text)?;
    let taken = rest()?;
    let full = platform().memory().statistics();
    for _ in 0..3 {
        let (cells, namespace) = (namespace.crate_count(), namespace.clone());
        apart(move || {
            let error = load(&namespace, "traps", TRAPS).err().unwrap_or_default();
            expect(&format!("no reason in `{error}`"), error.contains("region for code"))?;
            expect_eq("cells", namespace.crate_count(), cells)?;
            let request = SwapRequest::new("arithmetic").with_wasm(TRAPS).state(StatePlan::Fresh);
            expect("a swap found room", namespace.swap(request).is_err())
        })?;
        // Freed by nobody but who asks.
        namespace_bridge::reclaim();
        expect_eq("reservations", platform().memory().statistics(), full)?;
    }
    expect_eq("a call of the cell in service", fib.call((10,)).map_err(text)?, 55)?;
    let memory = GrowableMapping::new(1 << 32, 1 << 20).map_err(text)?;
    expect("a linear memory lies with the cells", !CELLS.contains(&memory.start_address().value()))?;
    drop((taken, memory));
    let traps = load(&namespace, "traps", TRAPS)?;
    let trapped = traps.typed_func::<(), ()>("unreachable").map_err(text)?;
    expect("a cell loaded afterwards does not trap", trapped.call(()).is_err())
}

#[cfg(feature = "inject")]
fn ten_thousand_cells_come_and_go_and_leave_the_region_whole() -> Outcome {
    /// Cells that are there at one time.
    const CELLS_AT_ONCE: usize = 8;
    let round = |count: usize| {
        apart(move || {
            let namespace = namespace()?;
            for i in 0..count {
                // Two sizes, and not in the order in which they came.
                let bytes = if i % 3 == 0 { TRAPS } else { ARITHMETIC };
                load(&namespace, &format!("cell{}", i * 5 % CELLS_AT_ONCE), bytes)?;
                if i >= CELLS_AT_ONCE - 1 {
                    namespace.unload(&format!("cell{}", (i + 1) * 5 % CELLS_AT_ONCE)).map_err(text)?;
                }
            }
            Ok(())
        })
    };
    let left = || -> Result<_, String> {
        namespace_bridge::reclaim();
        Ok((rest()?.len(), platform().memory().statistics(), frame_use()))
    };
    round(200)?; // lets the heap and lists reach their size
    let before = left()?;
    round(10_000)?;
    expect_eq("pieces of the region, reservations, frames", left()?, before)
}
