//! The personality routine of Rust code, for kernels without `std`: reads the exception table that the compiler writes for each
//! function with something to clean up (`.gcc_except_table`, the format of GCC's `unwind-pe.h` and LLVM's `EHStreamer`).
//!
//! ```text
//! u8 base encoding [, base]    u8 type encoding [, uleb offset]    u8 call site encoding    uleb bytes of the call sites
//! call sites, sorted: start, length, landing pad (0: none), all from the function's start; uleb action (0: cleanup)
//! action records: sleb filter (0: cleanup, greater: catch), sleb next
//! ```

use super::context::Context;
use super::reader::{Reader, encoding};
use super::two_phase::{ReasonCode, UnwindException, action, reason};

/// What a function does when an exception passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// Nothing.
    None,
    /// Clean up here and go on.
    Cleanup(usize),
    /// It ends here.
    Catch(usize),
    /// No unwinding is allowed there.
    Terminate,
}

/// Bytes that a table is read for, at most. Its own length field says how long the call sites really are.
const LONGEST: usize = 16 << 20;

/// The personality routine of functions that rustc compiled.
///
/// # Safety
/// `context` is a frame of such a function.
pub unsafe extern "C" fn rust_personality(
    version: i32,
    actions: i32,
    _class: u64,
    exception: *mut UnwindException,
    context: &mut Context,
) -> ReasonCode {
    let searching = actions & action::SEARCH_PHASE != 0;
    let fatal = if searching { reason::FATAL_PHASE1_ERROR } else { reason::FATAL_PHASE2_ERROR };
    if version != 1 {
        return fatal;
    }
    let table = context.language_specific_data();
    let response = match table {
        0 => Some(Response::None),
        // SAFETY: the compiler put the table there; it is read up to the end that it names.
        _ => unsafe {
            let bytes = core::slice::from_raw_parts(table as *const u8, LONGEST.min(usize::MAX - table));
            respond(bytes, table, context.region_start(), context.lookup_pc())
        },
    };
    match response {
        // It was interrupted where nothing is called: what is to be cleaned up there nobody has written down.
        Some(Response::Terminate) if context.is_interrupted() => reason::CONTINUE_UNWIND,
        None | Some(Response::Terminate) => fatal,
        Some(Response::None) => reason::CONTINUE_UNWIND,
        Some(Response::Cleanup(_)) if searching => reason::CONTINUE_UNWIND,
        Some(Response::Catch(_)) if searching => reason::HANDLER_FOUND,
        Some(Response::Cleanup(pad) | Response::Catch(pad)) => {
            context.land(pad, exception as usize, 0);
            reason::INSTALL_CONTEXT
        }
    }
}

/// Looks the call site up. `None` for a table that makes no sense.
fn respond(table: &[u8], address: usize, function: usize, pc: usize) -> Option<Response> {
    let mut r = Reader::new(table, address, 0);
    let base = match r.u8()? {
        encoding::OMIT => function,
        encoding => r.pointer(encoding, 0)?,
    };
    if r.u8()? != encoding::OMIT {
        r.uleb()?;
    }
    let format = r.u8()?;
    let length = usize::try_from(r.uleb()?).ok()?;
    let actions = r.at().checked_add(length)?;
    let mut sites = r.until(actions)?;
    let offset = pc.checked_sub(function)?;
    while !sites.is_at_end() {
        let (start, length) = (sites.number(format)?, sites.number(format)?);
        let (pad, action) = (sites.number(format)?, sites.uleb()?);
        if offset < start {
            break;
        }
        if offset - start >= length {
            continue;
        }
        if pad == 0 {
            return Some(Response::None);
        }
        let pad = base.wrapping_add(pad);
        let Some(record) = usize::try_from(action).ok()?.checked_sub(1) else { return Some(Response::Cleanup(pad)) };
        let filter = Reader::at_offset(r, actions.checked_add(record)?).sleb()?;
        return Some(if filter == 0 { Response::Cleanup(pad) } else { Response::Catch(pad) });
    }
    Some(Response::Terminate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_sites_are_found() {
        // Function at 0x1000; sites 0..16 cleanup at +0x40, 16..32 nothing, 48..64 catch at +0x50.
        let table = [0xff, 0xff, 0x01, 12, 0, 16, 0x40, 0, 16, 16, 0, 0, 48, 16, 0x50, 1, /* action */ 1, 0];
        let at = |pc: usize| respond(&table, 0x9000, 0x1000, pc);
        assert_eq!(at(0x1000), Some(Response::Cleanup(0x1040)));
        assert_eq!(at(0x101f), Some(Response::None));
        assert_eq!(at(0x1020), Some(Response::Terminate), "between sites");
        assert_eq!(at(0x1030), Some(Response::Catch(0x1050)));
        assert_eq!(at(0x1040), Some(Response::Terminate));
        for cut in 0..table.len() {
            let _ = respond(&table[..cut], 0x9000, 0x1000, 0x1030);
        }
    }
}
