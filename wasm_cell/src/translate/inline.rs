//! Small functions in place of calls to them ([`crate::inline`]).
//!
//! The callee's body becomes a block of the caller: its parameters and locals are variables that get their values there, a return is a
//! branch to the block's end. Its instructions keep their own places in the wasm code, and each knows the call in whose place it stands, so
//! that a backtrace shows both functions ([`Instance`]).

use super::{FuncTranslator, Translated, clif_type, clif_type_of};
use crate::types::FuncType;
use alloc::vec::Vec;
use cranelift_codegen::ir::{SourceLoc, Type, UserFuncName};
use cranelift_frontend::Variable;
use wasmparser::{FunctionBody, OperatorsReader, OperatorsReaderAllocations};

/// Set in the source locations of instructions that stand in place of a call. Modules are smaller than that.
const INLINED: u32 = 1 << 31;
const _: () = assert!(kernel_config::limits::MODULE_BYTES < INLINED as usize);

/// Bits of such a location below the number of the instance: the place in the body.
const PLACE_BITS: u32 = 8;

/// Instances in one function: numbers that leave the location of nothing, all ones, alone.
const MOST: usize = (1 << (31 - PLACE_BITS)) - 1;

/// A body that was put in place of a call.
#[derive(Clone, Copy)]
pub(crate) struct Instance {
    /// Offset of the call in the module.
    call: u32,
    /// Offset of the body.
    body: u32,
}

impl Instance {
    /// The offset in the module of the instruction with this location, and that of the call in whose place it stands.
    pub fn place(instances: &[Instance], location: SourceLoc) -> (u32, Option<u32>) {
        let bits = location.bits();
        let number = ((bits & !INLINED) >> PLACE_BITS) as usize;
        match instances.get(number) {
            Some(instance) if bits & INLINED != 0 => {
                (instance.body + (bits & ((1 << PLACE_BITS) - 1)), Some(instance.call))
            }
            _ => (bits, None),
        }
    }
}

/// The call in whose place a body is being put.
pub(super) struct Inside {
    /// Open frames of the caller.
    base: usize,
}

/// Allocations that one translation leaves to the next.
#[derive(Default)]
pub(super) struct Allocations {
    /// Variables of bodies: each is used by one body after the other.
    variables: Vec<(Type, Variable)>,
    /// Which of them the body at hand has.
    taken: Vec<usize>,
    locals: Vec<Variable>,
    operators: OperatorsReaderAllocations,
}

impl Allocations {
    pub fn clear(&mut self) {
        self.variables.clear();
    }
}

/// What belongs to the function that is being translated, while another one's body is.
struct Outer<'a> {
    ty: &'a FuncType,
    locals: Vec<Variable>,
    unreachable_depth: u32,
}

impl<'a> FuncTranslator<'a> {
    /// Frames below that of the function at hand.
    pub(super) fn base(&self) -> usize {
        self.inside.as_ref().map_or(0, |inside| inside.base)
    }

    /// Puts the body of `func` in place of a call to it. False if it is to be called.
    pub(super) fn inline(&mut self, func: u32) -> Translated<bool> {
        let Some(small) = self.env.inlinable.get(func) else { return Ok(false) };
        if self.inside.is_some()
            || self.scratch.instances.len() >= MOST
            || !self.budget.take(small, self.is_repeated(func))
        {
            return Ok(false);
        }
        let body = &small.body;
        let start = body.range().start as u32;
        let number = self.scratch.instances.len() as u32;
        self.scratch.instances.push(Instance { call: self.builder.srcloc().bits(), body: start });

        let type_index = self.env.type_of(func);
        let args = self.pop_args(type_index);
        let outer = Outer {
            ty: core::mem::replace(&mut self.ty, self.env.func_type(type_index)),
            locals: core::mem::replace(&mut self.scratch.locals, core::mem::take(&mut self.scratch.inlining.locals)),
            unreachable_depth: core::mem::replace(&mut self.unreachable_depth, 0),
        };
        self.inside = Some(Inside { base: self.scratch.control.len() });
        self.scratch.locals.clear();
        self.scratch.inlining.taken.clear();
        for (i, value) in args.iter().enumerate() {
            let var = self.variable(clif_type(self.ty.params[i]));
            self.builder.def_var(var, *value);
            self.scratch.locals.push(var);
        }
        self.scratch.values = args;
        let result = self.inlined_body(body, INLINED | number << PLACE_BITS);

        self.inside = None;
        self.unreachable_depth = outer.unreachable_depth;
        self.scratch.inlining.locals = core::mem::replace(&mut self.scratch.locals, outer.locals);
        self.ty = outer.ty;
        result.map(|()| true)
    }

    /// Whether a call to `func` here may well be done many times: in a loop, or in `func`.
    fn is_repeated(&self, func: u32) -> bool {
        let is_me = match &self.builder.func.name {
            UserFuncName::User(name) => name.index == func,
            UserFuncName::Testcase(_) => false,
        };
        self.loops_open > 0 || is_me
    }

    /// A variable that the body at hand does not have yet.
    fn variable(&mut self, ty: Type) -> Variable {
        let Allocations { variables, taken, .. } = &mut self.scratch.inlining;
        let free = |(i, (t, _)): &(usize, &(Type, Variable))| *t == ty && !taken.contains(i);
        let found = variables.iter().enumerate().find(free).map(|(i, (_, var))| (i, *var));
        let (i, var) = found.unwrap_or_else(|| {
            let var = self.builder.declare_var(ty);
            variables.push((ty, var));
            (variables.len() - 1, var)
        });
        taken.push(i);
        var
    }

    /// Translates a body that was validated before. `location`: that of an instruction at its start.
    fn inlined_body(&mut self, body: &FunctionBody<'_>, location: u32) -> Translated {
        let start = body.range().start;
        let mut reader = body.get_binary_reader();
        for _ in 0..reader.read_var_u32()? {
            let count: u32 = reader.read()?;
            let ty = clif_type_of(reader.read()?);
            for _ in 0..count {
                let (zero, var) = (self.zero(ty), self.variable(ty));
                self.builder.def_var(var, zero);
                self.scratch.locals.push(var);
            }
        }
        self.push_function_frame();
        reader.set_features(crate::features::FEATURES);
        let operators = core::mem::take(&mut self.scratch.inlining.operators);
        let mut reader = OperatorsReader::new_with_allocs(reader, operators);
        while !reader.eof() {
            let (op, offset) = reader.read_with_offset()?;
            self.builder.set_srcloc(SourceLoc::new(location | (offset - start) as u32));
            self.operator(&op, offset)?;
            self.check_size()?;
        }
        reader.finish()?;
        self.scratch.inlining.operators = reader.into_allocations();
        Ok(())
    }
}
