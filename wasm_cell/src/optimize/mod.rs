//! What is done to a function before Cranelift's back end gets it.
//!
//! Cranelift's own optimiser, which works on values one by one and has no notion of loop variables, takes a fifth of the time of a compilation,
//! and code of compilers that have optimised it already runs no faster for it: it is there for those who ask for it
//! ([`crate::OptLevel::SpeedAndSize`]). In its place:
//!
//! 1. [`exits`]: what comes after a loop does not lie in its middle.
//! 2. [`values`]: what was computed is not computed again, what was stored not loaded, what does not change not computed in a loop.
//! 3. [`ranges`]: between which bounds 32-bit values lie, loop variables included. The others ask it.
//! 4. [`rebase`]: loop variables that count up to zero become indices.
//! 5. [`latch`]: a loop's last comparison looks at the variable's next value, so that the old one is dead by then.
//! 6. [`addresses`]: constants that are added to an index without wrapping go into the access; small shifts become scaled indices.
//! 7. [`vectors`]: loads of vectors have the types of their uses; which of them cannot trap.
//! 8. [`loads`]: where there are many, loads stand next to what uses them.
//! 9. [`widen`]: 32-bit values that go around a loop and are used as indices are kept in 64 bits, so that no access extends them.
//! 10. [`multiply`]: multiplications by 3, 5 and 9 are additions.
//!
//! After them, and without them too, [`sites`] gives accesses that become part of other instructions their place in the wasm code.
//!
//! All of these replace pure computations by equal ones, but for three: [`exits`] lets the arms of a branch change places, [`values`] leaves out a
//! load of bytes that were accessed at the same address before, and [`loads`] moves loads, though none past what stores or calls, and none that
//! may trap past another that may. No store, call or check is added, removed or moved, so every trap happens where it did.

mod addresses;
mod edges;
mod exits;
mod latch;
mod loads;
mod multiply;
mod pattern;
mod range;
mod ranges;
mod rebase;
pub(crate) mod settled;
pub(crate) mod sites;
mod values;
pub(crate) mod vectors;
mod widen;

use crate::generator::Effort;
use alloc::vec::Vec;
use cranelift_codegen::Context;
use cranelift_codegen::ir::{Block, Function, Inst, Opcode};
use edges::{Edge, Edges, argument, arguments, set_argument};

/// Changes whenever these passes make other code: code of another version is as good, and not the same.
pub(crate) const VERSION: u32 = 11;

/// Runs the passes on a function. `memory_bytes`: what the memory holds at least, if there is only one. Control flow and dominators stay what
/// they are, but for the order of blocks, and no value that is used is an alias afterwards.
pub(crate) fn run(context: &mut Context, effort: Effort, memory_bytes: u64) {
    let loops = effort == Effort::Loops;
    if loops {
        context.compute_loop_analysis();
        exits::run(context);
    }
    let Context { func, domtree, loop_analysis, .. } = context;
    let edges = &Edges::of(func);
    // Those that there are already are resolved on the way.
    if loops {
        values::run(func, edges, domtree, loop_analysis);
    }
    func.dfg.resolve_all_aliases();
    let loops = loops && loop_analysis.loops().next().is_some();
    if loops {
        rebase::run(func, edges, domtree);
        latch::compare_next(func, edges, domtree);
    }
    let accesses = addresses::plan(func, edges, domtree);
    addresses::apply(func, accesses);
    if loops {
        latch::sink_next(func, edges, domtree);
    }
    let Survey { vectors, products, crowded } = Survey::of(func);
    let safe = vectors::run(func, vectors, edges, domtree, memory_bytes);
    loads::run(func, &crowded, &safe);
    if widen::run(func, edges) {
        func.dfg.resolve_all_aliases();
    }
    multiply::run(func, &products);
}

/// What there is for passes that have nothing to do in most functions.
#[derive(Default)]
struct Survey {
    /// Loads of vectors.
    vectors: Vec<Inst>,
    products: Vec<Inst>,
    /// Blocks with more than [`loads::FEW`] loads from linear memories, in order.
    crowded: Vec<Block>,
}

impl Survey {
    fn of(func: &Function) -> Survey {
        let mut survey = Survey::default();
        for block in func.layout.blocks() {
            let mut loads = 0;
            for inst in func.layout.block_insts(block) {
                match func.dfg.insts[inst].opcode() {
                    Opcode::Imul => survey.products.push(inst),
                    opcode if opcode.can_load() => {
                        loads += usize::from(loads::is_load(func, inst));
                        if vectors::is_load(func, inst) {
                            survey.vectors.push(inst);
                        }
                    }
                    _ => {}
                }
            }
            if loads > loads::FEW {
                survey.crowded.push(block);
            }
        }
        survey.crowded.sort_unstable();
        survey
    }
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
