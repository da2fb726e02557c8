//! Native cells in ring 0: objects of rustc, gcc and clang, from the boot archive (`xtask::native` puts them there).

use super::{
    Check, Outcome, catch,
    cells::{load, text},
    expect, expect_eq,
};
use crate::{archive_cells, boot_archive};
use alloc::{format, string::String, sync::Arc, vec::Vec};
use namespace_bridge::{
    CrateNamespace, LoadOptions, LoadedCrate, SectionType,
    native::crate_name_from_path,
    swap::{StatePlan, SwapError, SwapRequest, SwapStep},
};
use runtime_port::{backtrace, bare_metal::memory::frame_use, platform};
use wasm_cell::trap::TrapCode;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("the_base_images_symbols_are_known", the_base_images_symbols_are_known),
    ("native_cells_of_rustc_run", native_cells_of_rustc_run),
    ("native_cells_use_core_and_alloc_of_the_base_image", native_cells_use_core_and_alloc_of_the_base_image),
    ("native_cells_of_c_compilers_run", native_cells_of_c_compilers_run),
    ("native_cells_call_the_base_image_directly", native_cells_call_the_base_image_directly),
    ("data_of_other_cells_is_not_referred_to_directly", data_of_other_cells_is_not_referred_to_directly),
    ("panics_unwind_through_native_cells", panics_unwind_through_native_cells),
    ("wasm_and_native_cells_call_each_other", wasm_and_native_cells_call_each_other),
    ("native_cells_swap_with_native_and_wasm_cells", native_cells_swap_with_native_and_wasm_cells),
    ("cells_that_need_each_other_are_swapped_in_one_step", cells_that_need_each_other_are_swapped_in_one_step),
    ("native_cells_load_on_demand_from_the_boot_archive", native_cells_load_on_demand_from_the_boot_archive),
    ("damaged_native_objects_are_an_error", damaged_native_objects_are_an_error),
    ("native_cells_come_and_go_and_leave_no_frame", native_cells_come_and_go_and_leave_no_frame),
];

const WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swapped.wasm"));
const RING_B: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ring_b.wasm"));
const USER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/native_user.wasm"));

type Unary = extern "C-unwind" fn(u64) -> u64;
type Int = extern "C-unwind" fn(i32) -> i32;
type Ints = extern "C-unwind" fn(i32, i32) -> i32;

/// An object of the boot archive.
fn object(file: &str) -> Result<&'static [u8], String> {
    let path = format!("native/{file}");
    let found = boot_archive().and_then(|archive| archive.file(&path));
    found.ok_or_else(|| format!("no `{path}` in the boot archive; `cargo xtask boot --test` packs it"))
}

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("native", None)
}

fn load_native(namespace: &CrateNamespace, name: &str, file: &str) -> Result<Arc<LoadedCrate>, String> {
    let load = namespace.load_native(name, object(file)?, LoadOptions::default());
    load.map_err(|e| format!("{file}: {e}"))
}

/// The stable entry of a symbol, as a function pointer.
///
/// # Safety
/// `F` is the function's type.
unsafe fn entry<F: Copy>(cell: &LoadedCrate, symbol: &str) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    let address = cell.native_address(symbol).ok_or_else(|| format!("no function `{symbol}`"))?;
    // SAFETY: the caller's promise; the sizes are equal.
    Ok(unsafe { core::mem::transmute_copy(&address) })
}

fn the_base_images_symbols_are_known() -> Outcome {
    let main = backtrace::find("_Unwind_Resume").ok_or("`_Unwind_Resume` is not known: no nano_core.sym?")?;
    expect("`_Unwind_Resume` is no function", main.is_function && main.size > 0)?;
    expect("`rust_eh_personality`", backtrace::find("rust_eh_personality").is_some_and(|d| d.is_function))?;
    expect_eq("`memcpy`", backtrace::find("memcpy").map(|d| d.address), Some(memcpy as *const () as usize))?;
    expect_eq("no symbol", backtrace::find("no_such_symbol"), None)?;
    let here = backtrace::resolve(the_base_images_symbols_are_known as *const () as usize + 1);
    let name = here.map(|s| s.name).unwrap_or_default();
    expect(&format!("this function is called `{name}`"), name.ends_with("the_base_images_symbols_are_known"))
}

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
}

fn native_cells_of_rustc_run() -> Outcome {
    for file in ["shapes_0.o", "shapes.o", "shapes_v0.o", "shapes_large.o"] {
        let namespace = namespace();
        let cell = load_native(&namespace, "shapes", file)?;
        // SAFETY: the types are those of the source.
        let (total, count, format) = unsafe {
            (
                entry::<Unary>(&cell, "shapes_total")?,
                entry::<Unary>(&cell, "shapes_count")?,
                entry::<Unary>(&cell, "shapes_format")?,
            )
        };
        expect_eq("areas through vtables", total(5), 36)?;
        expect_eq("a static", (count(3), count(1)), (10, 11))?;
        let written = alloc::format!("{:>8}|{:?}", 77, Some(77));
        expect_eq("formatting by the base image", format(77), written.bytes().map(u64::from).sum())?;
        // SAFETY: as above.
        let function: extern "C-unwind" fn(u64) -> usize = unsafe { entry(&cell, "shapes_function")? };
        expect_eq("a function's address", Some(function(0)), cell.native_address("shapes_total"))?;
        drop(cell);
        namespace.unload("shapes").map_err(text)?;
        let gone = namespace_bridge::catch_trap(|| total(5)).err().map(|trap| trap.code());
        expect_eq("a call of what is gone", gone, Some(TrapCode::FunctionGone))?;
    }
    Ok(())
}

fn native_cells_use_core_and_alloc_of_the_base_image() -> Outcome {
    /// What each panic of the source says, or the beginning of it.
    const PANICS: [&str; 12] = [
        "index out of bounds: the len is 3 but the index is 7",
        "range end index 9 out of range for slice of length 3",
        "slice index starts at 2 but ends at 1",
        "attempt to divide by zero",
        "called `Option::unwrap()` on a `None` value",
        "a number",
        "end byte index 1 is not a char boundary; it is inside 'à' (bytes 0..2) of `à`",
        "called `Result::unwrap()` on an `Err` value: ParseIntError { kind: InvalidDigit }",
        "internal error: entered unreachable code",
        "assertion `left == right` failed: unequal",
        "removal index (is 3) should be < len (is 3)",
        "`at` split index (is 4) should be <= len (is 3)",
    ];
    for file in ["needs_library_0.o", "needs_library.o", "needs_library_static.o"] {
        let namespace = namespace();
        let cell = load_native(&namespace, "needs_library", file)?;
        // SAFETY: the types are those of the source.
        let (wrongs, panics) =
            unsafe { (entry::<Unary>(&cell, "needs_wrongs")?, entry::<Unary>(&cell, "needs_panic")?) };
        for x in [1, 77, 1 << 40] {
            expect_eq(&format!("{file}: what is wrong with {x}, a bit each"), wrongs(x), 0)?;
        }
        for (which, expected) in (0..).zip(PANICS) {
            let reason = catch(|| panics(which)).err();
            let message = reason.as_ref().and_then(|r| r.message()).unwrap_or("no panic");
            expect(&format!("{file}: panic {which} says `{message}`"), message.starts_with(expected))?;
        }
        expect_eq("no panic", catch(|| panics(PANICS.len() as u64)).ok(), Some(0))?;
    }
    Ok(())
}

/// The objects of the boot archive whose names begin so.
fn objects(start: &str) -> Result<Vec<(&'static str, &'static [u8])>, String> {
    let archive = boot_archive().ok_or("no boot archive; `cargo xtask boot --test` packs one")?;
    let found: Vec<_> = archive
        .entries()
        .filter_map(|e| e.name.strip_prefix("native/").filter(|n| n.starts_with(start)).map(|n| (n, e.content)))
        .collect();
    expect(&format!("no object `{start}…` in the boot archive"), !found.is_empty())?;
    Ok(found)
}

fn native_cells_of_c_compilers_run() -> Outcome {
    for (file, _) in objects("basic_")? {
        let namespace = namespace();
        let cell = load_native(&namespace, "basic", file)?;
        // SAFETY: the types are those of the source.
        unsafe {
            let state: Int = entry(&cell, "c_state")?;
            expect_eq(&format!("{file}: data of every kind"), (state(1), state(1)), (59, 63))?;
            let apply: Ints = entry(&cell, "c_apply")?;
            expect_eq(&format!("{file}: a table of functions"), (apply(0, 21), apply(1, 21)), (42, -21))?;
            expect_eq(&format!("{file}: strings"), entry::<Int>(&cell, "c_length")?(0), 4)?;
            expect_eq(&format!("{file}: a weak function"), entry::<Int>(&cell, "c_weak")?(0), -1)?;
            let switch: Int = entry(&cell, "c_switch")?;
            let results: Vec<i32> = (0..8).map(|x| switch(x)).collect();
            expect_eq(&format!("{file}: a switch"), &results[..], &[-3, 100, 17, -8, 12, 1234, -99, 0][..])?;
            expect_eq(&format!("{file}: order of constructors"), entry::<Int>(&cell, "c_order")?(0), 12)?;
            let mean: extern "C-unwind" fn(*const f64, usize) -> f64 = entry(&cell, "c_mean")?;
            expect_eq(&format!("{file}: floats"), mean([1.0, 2.0, 6.0].as_ptr(), 3), 3.0)?;
            let mut told = 0i32;
            entry::<extern "C-unwind" fn(*mut i32)>(&cell, "c_tell")?(&mut told);
            drop(cell);
            namespace.unload("basic").map_err(text)?;
            expect_eq(&format!("{file}: its destructor"), (&raw const told).read_volatile(), 1)?;
        }
    }
    Ok(())
}

fn native_cells_call_the_base_image_directly() -> Outcome {
    let function = backtrace::find("strlen").ok_or("`strlen` is not known")?.address;
    for (file, _) in objects("basic_O2_")? {
        let namespace = namespace();
        let cell = load_native(&namespace, "basic", file)?;
        let text = cell.sections().into_iter().find(|s| s.typ == SectionType::Text).ok_or("no text")?;
        let start = text.virt_addr.value();
        // SAFETY: the text of a cell that is loaded is mapped readable.
        let code = unsafe { core::slice::from_raw_parts(start as *const u8, text.size) };
        let calls = code.windows(5).enumerate().filter(|(at, bytes)| {
            let distance = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as isize;
            // call, jmp
            matches!(bytes[0], 0xe8 | 0xe9) && (start + at + 5).wrapping_add_signed(distance) == function
        });
        expect(&format!("{file} does not call `strlen` directly"), calls.count() > 0)?;
    }
    Ok(())
}

fn data_of_other_cells_is_not_referred_to_directly() -> Outcome {
    for (file, bytes) in objects("direct_")? {
        let namespace = namespace();
        let basic = file.replace("direct_", "basic_O2_");
        load_native(&namespace, "basic", &basic)?;
        let error = namespace.load_native("direct", bytes, LoadOptions::default()).err().map(text).unwrap_or_default();
        expect(&format!("{file}: `{error}`"), error.contains("-fPIC") && error.contains("c_initialised"))?;
        expect_eq("cells", namespace.crate_count(), 1)?;
    }
    Ok(())
}

fn panics_unwind_through_native_cells() -> Outcome {
    extern "C-unwind" fn thrower(x: u64) -> u64 {
        panic!("expected by this check: thrown {x}")
    }
    for file in ["shapes_0.o", "shapes.o"] {
        let namespace = namespace();
        let cell = load_native(&namespace, "shapes", file)?;
        // SAFETY: the types are those of the source.
        let (fail, drops, call) = unsafe {
            let call: extern "C-unwind" fn(Unary, u64) -> u64 = entry(&cell, "shapes_call")?;
            (
                entry::<Unary>(&cell, "shapes_fail")?,
                entry::<extern "C-unwind" fn() -> u64>(&cell, "shapes_drops")?,
                call,
            )
        };
        expect_eq("no panic", catch(|| fail(2)).ok(), Some(2))?;
        let reason = catch(|| fail(3)).err();
        expect_eq("a panic of the cell", reason.as_ref().and_then(|r| r.message()), Some("x is 3"))?;
        expect_eq("destructors", drops(), 2)?;
        let reason = catch(|| call(thrower, 9)).err();
        let message = reason.as_ref().and_then(|r| r.message());
        expect_eq("a panic of the kernel", message, Some("expected by this check: thrown 9"))?;
        expect_eq("destructors", drops(), 3)?;
    }
    for (file, _) in objects("through_")? {
        let namespace = namespace();
        let cell = load_native(&namespace, "through", file)?;
        // SAFETY: the type is that of the source.
        let through: extern "C-unwind" fn(Unary, u64) -> u64 = unsafe { entry(&cell, "through")? };
        let message = catch(|| through(thrower, 8)).err().and_then(|r| r.message().map(String::from));
        expect_eq(file, message.as_deref(), Some("expected by this check: thrown 8"))?;
    }
    Ok(())
}

/// A namespace with the native cells `math` and `swapped` and a wasm cell that calls them.
fn with_user() -> Result<(Arc<CrateNamespace>, Arc<LoadedCrate>), String> {
    let namespace = namespace();
    load_native(&namespace, "math", "math.o")?;
    load_native(&namespace, "swapped", "swapped_1.o")?;
    let user = load(&namespace, "user", USER)?;
    Ok((namespace, user))
}

fn wasm_and_native_cells_call_each_other() -> Outcome {
    let (namespace, user) = with_user()?;
    let f = user.typed_func::<(i32,), i32>("f").map_err(text)?;
    expect_eq("wasm calls native", f.call((7,)).map_err(text)?, 1007)?;
    let divide = user.typed_func::<(i32, i32), i32>("divide").map_err(text)?;
    expect_eq("two results of a native cell", divide.call((17, 5)).map_err(text)?, 5)?;
    let fail = user.typed_func::<(i32,), i32>("fail").map_err(text)?;
    expect_eq("no panic", fail.call((1,)).map_err(text)?, 2)?;
    let reason = catch(|| fail.call((-1,)).is_ok()).err();
    expect_eq("a panic through wasm", reason.as_ref().and_then(|r| r.message()), Some("negative"))?;
    expect("a dependency was unloaded", namespace.unload("math").is_err())?;
    namespace.define("env", "twice", |x: i32| 2 * x).map_err(text)?;
    load(&namespace, "counter", WASM)?;
    let caller = load_native(&namespace, "caller", "caller.o")?;
    let int = |name: &str, x: i32| -> Result<i32, String> {
        caller.typed_func::<(i32,), i32>(name).map_err(text)?.call((x,)).map_err(text)
    };
    expect_eq("native calls wasm", int("inc_twice", 4)?, 8)?;
    expect_eq("native calls the host", int("call_twice", 21)?, 42)?;
    let trap = caller.typed_func::<(), ()>("call_fail").map_err(text)?.call(()).err();
    expect_eq("a trap through native frames", trap.map(|t| t.code()), Some(TrapCode::Unreachable))?;
    let drops = caller.typed_func::<(), i64>("drops").map_err(text)?.call(()).map_err(text)?;
    expect_eq("destructors that the trap ran", drops, 1)
}

fn native_cells_swap_with_native_and_wasm_cells() -> Outcome {
    let (namespace, user) = with_user()?;
    let f = user.typed_func::<(i32,), i32>("f").map_err(text)?;
    let many = user.typed_func::<(), i64>("many").map_err(text)?;
    let cell = namespace.get_crate("swapped").ok_or("no cell `swapped`")?;
    let add = cell.typed_func::<(i32,), i32>("add").map_err(text)?;
    // SAFETY: the function's type.
    let raw: Int = unsafe { cell.entry("f") }.map_err(text)?;
    drop(cell);
    let now = || -> Result<(i32, i32, i64), String> {
        Ok((f.call((7,)).map_err(text)?, raw(1), many.call(()).map_err(text)?))
    };
    expect_eq("version 1", now()?, (1007, 1001, 301))?;
    let second = object("swapped_2.o")?;
    for step in SwapStep::ALL {
        let result = namespace.swap(SwapRequest::new("swapped").with_native(second).fail_at(step));
        expect(&format!("a swap that was to fail at {step}"), matches!(result, Err(SwapError::Injected { .. })))?;
        expect_eq(&format!("after a failure at {step}"), now()?, (1007, 1001, 301))?;
    }
    namespace.swap(SwapRequest::new("swapped").with_native(second)).map_err(text)?;
    expect_eq("native to native", now()?, (2007, 2001, 302))?;
    namespace.rollback("swapped").map_err(text)?;
    expect_eq("and back", now()?, (1007, 1001, 301))?;
    expect_eq("its state", add.call((40,)).map_err(text)?, 40)?;
    let carry = || {
        StatePlan::custom(|context| {
            let total = context.old.typed_func::<(i32,), i32>("add")?.call((0,))?;
            context.new.typed_func::<(i32,), i32>("add")?.call((total,))?;
            Ok(())
        })
    };
    namespace.swap(SwapRequest::new("swapped").with_wasm(WASM).state(carry())).map_err(text)?;
    expect_eq("native to wasm", now()?, (3007, 3001, 303))?;
    expect_eq("its state", add.call((2,)).map_err(text)?, 42)?;
    namespace.swap(SwapRequest::new("swapped").with_native(second).state(carry())).map_err(text)?;
    expect_eq("wasm to native", now()?, (2007, 2001, 302))?;
    expect_eq("its state", add.call((8,)).map_err(text)?, 50)
}

fn cells_that_need_each_other_are_swapped_in_one_step() -> Outcome {
    let namespace = namespace();
    let [a, b] = [object("ring_a.o")?, object("ring_b.o")?];
    let new = SwapRequest::add("ring_a").with_native(a).and(SwapRequest::add("ring_b").with_native(b));
    namespace.swap(new).map_err(text)?;
    let even = namespace.get_crate("ring_a").ok_or("no cell")?.typed_func::<(i32,), i32>("even").map_err(text)?;
    let now = || -> Result<(i32, i32), String> { Ok((even.call((6,)).map_err(text)?, even.call((7,)).map_err(text)?)) };
    let needs = |cell: &str| {
        let on = namespace.get_crate(cell).map(|c| c.crates_i_depend_on()).unwrap_or_default();
        on.first().map(|c| (String::from(&*c.crate_name), c.version()))
    };
    expect_eq("native cells that came together", now()?, (1, 0))?;
    let both = || SwapRequest::new("ring_b").with_native(b).and(SwapRequest::new("ring_a").with_native(a));
    let mixed = || SwapRequest::new("ring_b").with_wasm(RING_B).and(SwapRequest::new("ring_a").with_native(a));
    for step in SwapStep::ALL {
        for request in [both(), mixed()] {
            let result = namespace.swap(request.fail_at(step));
            expect(&format!("a swap that was to fail at {step}"), matches!(result, Err(SwapError::Injected { .. })))?;
        }
        expect_eq(
            &format!("after failures at {step}"),
            (now()?, needs("ring_a")),
            ((1, 0), Some(("ring_b".into(), 1))),
        )?;
    }
    namespace.swap(both()).map_err(text)?;
    let each_other = (Some(("ring_b".into(), 2)), Some(("ring_a".into(), 2)));
    expect_eq("both anew", (now()?, (needs("ring_a"), needs("ring_b"))), ((1, 0), each_other))?;
    namespace.swap(mixed()).map_err(text)?;
    expect_eq("native and wasm", (now()?, needs("ring_a")), ((1, 50), Some(("ring_b".into(), 3))))?;
    namespace.rollback("ring_a").map_err(text)?;
    expect_eq("and back", now()?, (1, 0))?;
    namespace.swap(SwapRequest::remove("ring_a").and(SwapRequest::remove("ring_b"))).map_err(text)?;
    expect_eq("cells and symbols", (namespace.crate_count(), namespace.symbol_count()), (0, 0))
}

fn native_cells_load_on_demand_from_the_boot_archive() -> Outcome {
    let namespace = namespace();
    let archive = boot_archive().ok_or("no boot archive; `cargo xtask boot --test` packs one")?;
    let missing = load_native(&namespace, "ring_a", "ring_a.o").err().unwrap_or_default();
    expect(&format!("`{missing}`"), missing.contains("ring_b::odd"))?;
    expect_eq("cells after a failure", namespace.crate_count(), 0)?;
    archive_cells::provide(&namespace, archive, "native/");
    let cell = load_native(&namespace, "ring_a", "ring_a.o")?;
    expect_eq("the one that needs it in turn", namespace.get_crate("ring_b").is_some(), true)?;
    let even = cell.typed_func::<(i32,), i32>("even").map_err(text)?;
    expect_eq("calls around the circle", (even.call((10,)).map_err(text)?, even.call((7,)).map_err(text)?), (1, 0))?;
    // By the crate that a mangled symbol names: functions, data and a trait's table of the other crate.
    let user = load_native(&namespace, "uses_shapes", "uses_shapes.o")?;
    expect("`shapes` was not loaded", namespace.get_crate("shapes").is_some())?;
    // SAFETY: the types are those of the source.
    let total = unsafe { entry::<Unary>(&user, "uses_total")? };
    expect_eq("a sum over both crates", total(6), 54)?;
    expect("a dependency was unloaded", namespace.unload("shapes").is_err())
}

fn damaged_native_objects_are_an_error() -> Outcome {
    let namespace = namespace();
    let whole = object("shapes.o")?;
    for cut in (0..whole.len()).step_by(whole.len() / 60) {
        let object = whole.get(..cut).unwrap_or_default();
        expect("a cut object was loaded", namespace.load_native("cut", object, LoadOptions::default()).is_err())?;
    }
    let mut damaged = whole.to_vec();
    for at in 0..64 {
        for value in [0, 1, 0x7f, 0xff] {
            let byte = core::mem::replace(&mut damaged[at], value);
            // Loaded or not, nothing of it runs.
            if namespace.load_native("damaged", &damaged, LoadOptions::default()).is_ok() {
                namespace.unload_force("damaged").map_err(text)?;
            }
            damaged[at] = byte;
        }
    }
    expect_eq("cells and symbols", (namespace.crate_count(), namespace.symbol_count()), (0, 0))
}

fn native_cells_come_and_go_and_leave_no_frame() -> Outcome {
    let files: Vec<(&str, &[u8])> = ["shapes.o", "math.o", "swapped_1.o"]
        .into_iter()
        .map(|file| Ok((file, object(file)?)))
        .collect::<Result<_, String>>()?;
    let namespace = namespace();
    let round = || -> Result<_, String> {
        for _ in 0..20 {
            for (file, bytes) in &files {
                let name = crate_name_from_path(file).ok_or("no name")?;
                namespace.load_native(name, bytes, LoadOptions::default()).map_err(text)?;
            }
            for (file, _) in &files {
                namespace.unload(crate_name_from_path(file).ok_or("no name")?).map_err(text)?;
            }
        }
        namespace_bridge::reclaim();
        Ok((frame_use(), platform().memory().statistics(), runtime_port::unwind::registrations()))
    };
    round()?; // lets pools and the heap reach their size
    let before = round()?;
    expect_eq("frames, reservations, registrations", round()?, before)
}
