//! What is done to a function between Cranelift's optimiser and its back end.
//!
//! Cranelift works on values one by one and has no notion of loop variables. What follows from knowing them is done here:
//!
//! 1. [`ranges`]: between which bounds 32-bit values lie, loop variables included. The others ask it.
//! 2. [`rebase`]: loop variables that count up to zero become indices.
//! 3. [`latch`]: a loop's last comparison looks at the variable's next value, so that the old one is dead by then.
//! 4. [`addresses`]: constants that are added to an index without wrapping go into the access; small shifts become scaled indices.
//! 5. [`vectors`]: loads of vectors have the types of their uses; which of them cannot trap.
//! 6. [`loads`]: where there are many, loads stand next to what uses them.
//! 7. [`widen`]: 32-bit values that go around a loop and are used as indices are kept in 64 bits, so that no access extends them.
//! 8. [`multiply`]: multiplications by 3, 5 and 9 are additions.
//!
//! After them, and without them too, [`sites`] gives accesses that become part of other instructions their place in the wasm code.
//!
//! All of these replace pure computations by equal ones, but for [`loads`], which moves loads, though none past what stores or calls, and none that may
//! trap past another that may. No store, call or check is added, removed or moved, so every trap happens where it did.

mod addresses;
mod edges;
mod latch;
mod loads;
mod multiply;
mod pattern;
mod ranges;
mod rebase;
pub(crate) mod settled;
pub(crate) mod sites;
pub(crate) mod vectors;
mod widen;

use crate::generator::Effort;
use cranelift_codegen::Context;
use cranelift_codegen::ir::{Block, Function};
use edges::{Edge, Edges, argument, arguments, set_argument};

/// Changes whenever these passes make other code: code of another version is as good, and not the same.
pub(crate) const VERSION: u32 = 7;

/// Runs the passes on a function that Cranelift has optimised. `memory_bytes`: what the memory holds at least, if there is only one. Control
/// flow and dominators stay what they are, and no value that is used is an alias afterwards.
pub(crate) fn run(context: &mut Context, effort: Effort, memory_bytes: u64) {
    let Context { func, domtree, .. } = context;
    // A function with loops gets the full effort.
    let loops = effort == Effort::Full;
    if loops {
        // Cranelift's optimiser may have left some.
        func.dfg.resolve_all_aliases();
    }
    let edges = &Edges::of(func);
    if loops {
        rebase::run(func, edges, domtree);
        latch::compare_next(func, edges, domtree);
    }
    let accesses = addresses::plan(func, edges, domtree);
    addresses::apply(func, accesses);
    if loops {
        latch::sink_next(func, edges, domtree);
    }
    let safe = vectors::run(func, edges, domtree, memory_bytes);
    loads::run(func, &safe);
    let widened = widen::run(func, edges);
    if loops || widened {
        func.dfg.resolve_all_aliases();
    }
    multiply::run(func);
}

/// Steps that a pass may take to look at what edges pass for single parameters: blocks with many of both are left as they are.
const STEPS: usize = 1 << 20;

/// Takes from `steps` what looking at one parameter of a block costs; false if there are not so many left.
fn afford(steps: &mut usize, func: &Function, edges: &Edges, block: Block) -> bool {
    let cost = edges.into(block).len().saturating_mul(func.dfg.num_block_params(block));
    match steps.checked_sub(cost) {
        Some(left) => *steps = left,
        None => *steps = 0,
    }
    *steps > 0
}
