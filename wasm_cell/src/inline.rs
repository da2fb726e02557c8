//! Functions that are small enough to be translated in place of calls to them.
//!
//! A call costs moves into argument registers, saving what lives across it, a frame and a return: more than what a function of a few
//! instructions does. Such a function's body is translated where it is called, once more beside its own; calls in what was put in place of
//! a call stay calls, so a recursive function has its own body in it once, and code grows by a bounded share ([`Budget`]). Outside of loops, and in
//! large functions, only what is little more code than the call is put in its place: the rest would cost more time to compile than it saves.
//!
//! Bodies are looked at, and validated, before the first function is translated: what is translated without the validator at its side has
//! to be valid.

use crate::metadata::Metadata;
use crate::module::Body;
use hashbrown::HashMap;
use wasmparser::{FuncToValidate, FuncValidatorAllocations, FunctionBody, Operator};

/// Longest body, in bytes. Fits the 8 bits that a place in it has in [`crate::translate::Instance`].
const BYTES: usize = 120;

/// Most parameters and other locals of one.
const LOCALS: u32 = 16;

/// Most instructions, weighted by [`cost`].
const COST: u32 = 12;

/// Most of one that is put in place of calls outside of loops: little more code than the call.
const TINY: u32 = 4;

/// Bytes of a body beyond which that holds for calls in loops too: little of a large function's loops is what is done most.
const LARGE: usize = 1024;

/// Cost of a call, direct or not.
const CALL: u32 = 3;

/// What each function may take in, in bytes of bodies, beyond as many as its own body has.
const ALLOWANCE: usize = 256;

/// A small function.
pub(crate) struct Small<'a> {
    pub body: FunctionBody<'a>,
    cost: u32,
}

/// The small functions of a module.
#[derive(Default)]
pub(crate) struct Inlinable<'a> {
    /// By function index.
    bodies: HashMap<u32, Small<'a>>,
}

impl<'a> Inlinable<'a> {
    /// Looks for them.
    pub fn find(meta: &Metadata, bodies: &[Body<'a>]) -> Inlinable<'a> {
        let mut allocations = FuncValidatorAllocations::default();
        let mut found = HashMap::new();
        for body in bodies.iter().filter(|b| b.body.as_bytes().len() <= BYTES) {
            let parameters = meta.func_type(body.validate.index).map_or(0, |ty| ty.params.len());
            // A function that is alone is validated twice only if it calls itself.
            let is_called = bodies.len() > 1 || calls(&body.body, body.validate.index);
            let Some(cost) = cost_of(&body.body, parameters).filter(|_| is_called) else { continue };
            let FuncToValidate { resources, index, ty, features, .. } = &body.validate;
            let (resources, index, ty, features) = (resources.clone(), *index, *ty, *features);
            let validate = FuncToValidate { resources, index, ty, features };
            let mut validator = validate.into_validator(core::mem::take(&mut allocations));
            // What is wrong with one that is not valid is said when its turn comes.
            if validator.validate(&body.body).is_ok() {
                found.insert(index, Small { body: body.body.clone(), cost });
            }
            allocations = validator.into_allocations();
        }
        Inlinable { bodies: found }
    }

    /// The body of a function that is small.
    pub fn get(&self, function: u32) -> Option<&Small<'a>> {
        self.bodies.get(&function)
    }
}

/// What one function may still take in.
#[derive(Clone, Copy, Default)]
pub(crate) struct Budget {
    /// Bytes of bodies.
    left: usize,
    /// Most cost of what is put in place of calls that may well be done many times.
    repeated: u32,
}

impl Budget {
    /// Of a function with a body of so many bytes.
    pub fn of(bytes: usize) -> Budget {
        let repeated = if bytes <= LARGE { COST } else { TINY };
        Budget { left: bytes.saturating_add(ALLOWANCE), repeated }
    }

    /// Takes a body from it, if there is so much left. `repeated`: whether the call may well be done many times.
    pub fn take(&mut self, small: &Small<'_>, repeated: bool) -> bool {
        if small.cost > if repeated { self.repeated } else { TINY } {
            return false;
        }
        match self.left.checked_sub(small.body.as_bytes().len()) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

fn calls(body: &FunctionBody<'_>, function: u32) -> bool {
    let Ok(operators) = body.get_operators_reader() else { return false };
    operators.into_iter().any(|op| matches!(op, Ok(Operator::Call { function_index }) if function_index == function))
}

/// What a small function costs; `None` for others.
fn cost_of(body: &FunctionBody<'_>, parameters: usize) -> Option<u32> {
    let mut count = parameters as u32;
    for local in body.get_locals_reader().ok()? {
        count = count.saturating_add(local.ok()?.0);
    }
    if count > LOCALS {
        return None;
    }
    let mut total = 0;
    for op in body.get_operators_reader().ok()? {
        total += cost(&op.ok()?)?;
        if total > COST {
            return None;
        }
    }
    Some(total)
}

/// About how many machine instructions it takes; `None` for what stays where it is.
fn cost(op: &Operator<'_>) -> Option<u32> {
    use Operator::*;
    Some(match op {
        Nop | Block { .. } | Loop { .. } | End | Else | LocalGet { .. } | LocalSet { .. } | LocalTee { .. } | Drop => 0,
        I32Const { .. } | I64Const { .. } | F32Const { .. } | F64Const { .. } | Return | Br { .. } => 0,
        Call { .. } | CallIndirect { .. } => CALL,
        // Calls of builtins, tables of branches.
        MemoryGrow { .. } | BrTable { .. } => return None,
        op => match crate::translate::proposal(op) {
            "mvp" | "sign_extension" | "saturating_float_to_int" => 1,
            _ => return None,
        },
    })
}
