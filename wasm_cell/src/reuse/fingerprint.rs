//! What the machine code of one function depends on, as a hash.
//!
//! A body is gone through instruction by instruction. Bytes that name nothing go into the hash as they are; an index of a
//! function, type or global is cut out and replaced by the content of what it names, and so is everything that the
//! translation looks up for the others (records of memories and tables, their kind and bounds). Functions are named by
//! their first occurrence in the body, since references to them stay symbolic in the code. What is the same for a whole
//! module (settings, processor, builtins) comes in as [`Fingerprints::base`].
//!
//! The number of bytes of a cut-out index stays in the hash: so equal keys mean equal distances of all instructions from
//! the start of the body, and one difference corrects all wasm offsets of a function that is taken over.
//!
//! The list of immediates is complete by construction: [`immediate!`] has one arm for every name that the parser's list of
//! instructions uses, and no arm for others.

use crate::env::ModuleEnv;
use crate::features::FEATURES;
use crate::metadata::ConstOp;
use crate::optimize::vectors::FEW;
use crate::types::{MemoryStyle, ValType};
use alloc::vec::Vec;
use core::ops::Range;
use hashbrown::{HashMap, HashSet};
use kernel_config::memory::MEMORY_GUARD;
use wasmparser::{
    BlockType, FuncValidator, FunctionBody, MemArg, MemArgTarget, Operator, OperatorsReader,
    OperatorsReaderAllocations, ValidatorResources,
};

/// Bytes of the widest memory access.
const WIDEST_ACCESS: u64 = 16;

/// Bytes of a hash.
const HASH: usize = blake3::OUT_LEN;

/// The hashes of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Equal keys: equal machine code, but for symbolic references.
    pub key: [u8; 32],
    /// Equal shapes: equal bodies, but for which functions they name and where things lie in the data block.
    pub shape: [u8; 16],
}

/// Makes fingerprints, one function after the other, reusing its allocations.
#[derive(Default)]
pub(crate) struct Fingerprints {
    /// Hash of what concerns all functions of the module.
    pub base: [u8; 32],
    /// Functions that the last body names, in order of first occurrence; behind them those that only bodies name that are put in place of calls.
    pub callees: Vec<u32>,
    /// How many of them the body itself names.
    pub own_callees: usize,
    /// Functions whose bodies may be put in place of calls, in order of first occurrence.
    small: Vec<u32>,
    is_small_callee: HashSet<u32>,
    ordinals: HashMap<u32, u32>,
    /// The body without what was cut out.
    plain: Vec<u8>,
    /// How much of the body is in `plain` or cut out.
    copied: usize,
    /// Contents of what was named, for the key; before them is room for two hashes.
    contents: Vec<u8>,
    /// Names of what was named, for the shape; before them is room for a hash.
    names: Vec<u8>,
    memories: Vec<u32>,
    tables: Vec<u32>,
    /// Loads of vectors seen so far.
    vector_loads: usize,
    operators: OperatorsReaderAllocations,
}

impl Fingerprints {
    /// The fingerprint of `body`, of the function with index `function`, validated on the way.
    pub fn of(
        &mut self,
        env: &ModuleEnv<'_>,
        function: u32,
        body: &FunctionBody<'_>,
        validator: &mut FuncValidator<ValidatorResources>,
    ) -> wasmparser::Result<Fingerprint> {
        self.start(env, function);
        let origin = body.range().start;
        let mut reader = body.get_binary_reader();
        for _ in 0..reader.read_var_u32()? {
            let offset = reader.original_position();
            let count = reader.read()?;
            let ty = reader.read()?;
            validator.define_locals(offset, count, ty)?;
        }
        reader.set_features(FEATURES);
        let mut reader = OperatorsReader::new_with_allocs(reader, core::mem::take(&mut self.operators));
        while !reader.eof() {
            let (op, offset) = reader.read_with_offset()?;
            validator.op(offset, &op)?;
            let place = (offset - origin) as usize..(reader.original_position() - origin) as usize;
            self.add(env, function, body, &op, place);
        }
        reader.finish()?;
        self.operators = reader.into_allocations();
        self.end(env, function, body)
    }

    /// Begins with a function whose body somebody else reads.
    pub fn start(&mut self, env: &ModuleEnv<'_>, function: u32) {
        self.clear();
        self.type_index(env, env.type_of(function));
    }

    /// Adds the instruction of `body` that is at that place in it.
    pub fn add(
        &mut self,
        env: &ModuleEnv<'_>,
        function: u32,
        body: &FunctionBody<'_>,
        op: &Operator<'_>,
        place: Range<usize>,
    ) {
        if self.operator(env, function, op) {
            self.plain.extend_from_slice(body.as_bytes().get(self.copied..=place.start).unwrap_or_default());
            self.plain.push(place.len() as u8);
            self.copied = place.end;
        }
    }

    /// The fingerprint of a body whose instructions were all added.
    pub fn end(
        &mut self,
        env: &ModuleEnv<'_>,
        function: u32,
        body: &FunctionBody<'_>,
    ) -> wasmparser::Result<Fingerprint> {
        self.plain.extend_from_slice(body.as_bytes().get(self.copied..).unwrap_or_default());
        let plain = blake3::hash(&self.plain);
        self.own_callees = self.callees.len();
        self.add_small(env, function)?;
        Ok(self.finish(plain))
    }

    /// Adds the contents of the bodies that may be put in place of calls. Which are is a question of these bodies and their sizes alone.
    fn add_small(&mut self, env: &ModuleEnv<'_>, me: u32) -> wasmparser::Result<()> {
        // What they name is no part of the function's own shape; what they call in turn is called.
        let (names, small) = (self.names.len(), core::mem::take(&mut self.small));
        for function in &small {
            let Some(small) = env.inlinable.get(*function) else { continue };
            let body = &small.body;
            let ordinal = self.ordinal(*function).map_or(u64::MAX, u64::from);
            self.content(b'c', &[ordinal]);
            self.plain.clear();
            self.type_index(env, env.type_of(*function));
            let bytes = body.as_bytes();
            let origin = body.range().start;
            let mut copied = 0;
            let operators = body.get_operators_reader()?;
            let mut operators = operators.into_iter_with_offsets();
            let mut next = operators.next().transpose()?;
            while let Some((op, offset)) = next {
                next = operators.next().transpose()?;
                let start = (offset - origin) as usize;
                let end = next.as_ref().map_or(bytes.len(), |(_, next)| (next - origin) as usize);
                if self.operator(env, me, &op) {
                    self.plain.extend_from_slice(bytes.get(copied..=start).unwrap_or_default());
                    self.plain.push((end - start) as u8);
                    copied = end;
                }
            }
            self.plain.extend_from_slice(bytes.get(copied..).unwrap_or_default());
            let plain = blake3::hash(&self.plain);
            self.contents.extend_from_slice(plain.as_bytes());
        }
        self.names.truncate(names);
        self.small = small;
        Ok(())
    }

    fn clear(&mut self) {
        self.callees.clear();
        self.own_callees = 0;
        self.small.clear();
        self.is_small_callee.clear();
        self.ordinals.clear();
        self.plain.clear();
        self.copied = 0;
        self.contents.clear();
        self.contents.resize(2 * HASH, 0);
        self.names.clear();
        self.names.resize(HASH, 0);
        self.memories.clear();
        self.tables.clear();
        self.vector_loads = 0;
    }

    /// `plain`: hash of the body without what was cut out.
    fn finish(&mut self, plain: blake3::Hash) -> Fingerprint {
        // In one piece: a hasher that gets parts is slow for so few bytes.
        self.contents[..HASH].copy_from_slice(&self.base);
        self.contents[HASH..2 * HASH].copy_from_slice(plain.as_bytes());
        self.names[..HASH].copy_from_slice(plain.as_bytes());
        let mut shape = [0; 16];
        shape.copy_from_slice(&blake3::hash(&self.names).as_bytes()[..16]);
        Fingerprint { key: *blake3::hash(&self.contents).as_bytes(), shape }
    }

    /// Position of a function in `callees`.
    pub fn ordinal(&self, function: u32) -> Option<u32> {
        self.ordinals.get(&function).copied()
    }

    fn content(&mut self, tag: u8, words: &[u64]) {
        self.contents.push(tag);
        words.iter().for_each(|w| self.contents.extend_from_slice(&w.to_le_bytes()));
    }

    fn name(&mut self, tag: u8, index: u32) {
        self.names.push(tag);
        self.names.extend_from_slice(&index.to_le_bytes());
    }

    // ---- what an instruction can name ----

    fn function_index(&mut self, env: &ModuleEnv<'_>, me: u32, function: u32) {
        let next = self.callees.len() as u32;
        let ordinal = *self.ordinals.entry(function).or_insert(next);
        if ordinal == next {
            self.callees.push(function);
        }
        self.name(b'f', ordinal);
        // References may go to a slot, calls of defined functions do not: the slot is told only to those.
        let imported = env.is_imported(function).then(|| env.import_slot(function) as u64);
        self.content(b'f', &[ordinal.into(), imported.unwrap_or(u64::MAX), u64::from(function == me)]);
        self.type_index(env, env.type_of(function));
    }

    fn function_slot(&mut self, env: &ModuleEnv<'_>, function: u32) {
        let slot = env.escaped_slot(function).map_or(u64::MAX, |slot| slot as u64);
        self.content(b'r', &[slot]);
    }

    fn type_index(&mut self, env: &ModuleEnv<'_>, ty: u32) {
        let (Some(func_type), Some(id)) = (env.meta.types.get(ty as usize), env.meta.type_ids.get(ty as usize)) else {
            // Only instructions that are refused name types that are no functions.
            return self.content(b'?', &[ty.into()]);
        };
        self.content(b't', &[u64::from(id.id.0)]);
        self.contents.extend_from_slice(&func_type.hash.0);
        self.names.push(b't');
        self.names.extend_from_slice(&func_type.hash.0);
    }

    fn global_index(&mut self, env: &ModuleEnv<'_>, global: u32) {
        self.name(b'g', global);
        if let Some(constant) = env.constant_global(global) {
            return self.constant(constant);
        }
        let meta = env.meta;
        let (Some(g), Some(offset)) = (meta.globals.get(global as usize), meta.layout.globals.get(global as usize))
        else {
            return;
        };
        let class = match g.ty.content {
            ValType::I32 => 0,
            ValType::I64 => 1,
            ValType::F32 => 2,
            ValType::F64 => 3,
            ValType::V128 => 4,
            ValType::Ref(_) => 5,
        };
        let imported = global < meta.imported_globals;
        self.content(b'g', &[(*offset).into(), class, g.ty.mutable.into(), imported.into()]);
    }

    fn constant(&mut self, constant: ConstOp) {
        match constant {
            ConstOp::I32Const(n) => self.content(b'i', &[u64::from(n as u32)]),
            ConstOp::I64Const(n) => self.content(b'I', &[n as u64]),
            ConstOp::F32Const(bits) => self.content(b'd', &[bits.into()]),
            ConstOp::F64Const(bits) => self.content(b'D', &[bits]),
            ConstOp::V128Const(bytes) => {
                self.content(b'v', &[]);
                self.contents.extend_from_slice(&bytes);
            }
            _ => self.content(b'0', &[]),
        }
    }

    fn memory_index(&mut self, env: &ModuleEnv<'_>, memory: u32) {
        if self.memories.contains(&memory) {
            return;
        }
        self.memories.push(memory);
        let meta = env.meta;
        let (Some(m), Some(offset)) = (meta.memories.get(memory as usize), meta.layout.memories.get(memory as usize))
        else {
            return;
        };
        // The bounds of a checked memory depend on its minimum; a guarded one's do for far accesses only.
        let checked = m.style == MemoryStyle::Checked;
        let min = if checked { m.ty.min } else { 0 };
        let kind = [checked.into(), m.ty.is64.into(), m.ty.shared.into(), m.ty.page_size_log2.into()];
        self.content(b'm', &[(*offset).into(), min]);
        self.content(b'k', &kind);
    }

    fn memory_access(&mut self, env: &ModuleEnv<'_>, memarg: &MemArg) {
        let MemArgTarget::Memory(memory) = memarg.target else { return };
        self.memory_index(env, memory);
        if memarg.offset.saturating_add(WIDEST_ACCESS) > MEMORY_GUARD
            && let Some(m) = env.meta.memories.get(memory as usize)
        {
            self.content(b'b', &[m.ty.min]);
        }
    }

    fn table_index(&mut self, env: &ModuleEnv<'_>, table: u32) {
        if self.tables.contains(&table) {
            return;
        }
        self.tables.push(table);
        let meta = env.meta;
        let (Some(t), Some(offset)) = (meta.tables.get(table as usize), meta.layout.tables.get(table as usize)) else {
            return;
        };
        let fixed = table >= meta.imported_tables && t.ty.max == Some(t.ty.min);
        let len = if fixed { t.ty.min } else { u64::MAX };
        self.content(b'T', &[(*offset).into(), t.ty.is64.into(), fixed.into(), len]);
    }

    fn block_type(&mut self, env: &ModuleEnv<'_>, ty: BlockType) {
        if let BlockType::FuncType(index) = ty {
            self.type_index(env, index);
        }
    }
}

/// What an immediate of that name adds to the hash. Those that name nothing are in the plain bytes.
macro_rules! immediate {
    ($f:ident, $env:ident, $me:ident, function_index, $v:expr) => {
        $f.function_index($env, $me, *$v)
    };
    ($f:ident, $env:ident, $me:ident, global_index, $v:expr) => {
        $f.global_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, type_index, $v:expr) => {
        $f.type_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, blockty, $v:expr) => {
        $f.block_type($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, memarg, $v:expr) => {
        $f.memory_access($env, $v)
    };
    ($f:ident, $env:ident, $me:ident, mem, $v:expr) => {
        $f.memory_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, src_mem, $v:expr) => {
        $f.memory_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, dst_mem, $v:expr) => {
        $f.memory_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, table, $v:expr) => {
        $f.table_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, table_index, $v:expr) => {
        $f.table_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, src_table, $v:expr) => {
        $f.table_index($env, *$v)
    };
    ($f:ident, $env:ident, $me:ident, dst_table, $v:expr) => {
        $f.table_index($env, *$v)
    };
    // Numbers, depths, locals, segments (their numbers are arguments of builtins), and types of references, which are all
    // alike to the code.
    ($f:ident, $env:ident, $me:ident, value, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, lane, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, lanes, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, ordering, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, local_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, relative_depth, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, targets, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, data_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, elem_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, hty, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, ty, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, tys, $v:expr) => {};
    // Of proposals that are refused: no such function was ever compiled, so no key of a compiled one can be equal.
    ($f:ident, $env:ident, $me:ident, array_data_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, array_elem_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, array_size, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, array_type_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, array_type_index_dst, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, array_type_index_src, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, struct_type_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, field_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, from_ref_type, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, to_ref_type, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, tag_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, try_table, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, cont_type_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, argument_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, result_index, $v:expr) => {};
    ($f:ident, $env:ident, $me:ident, resume_table, $v:expr) => {};
}

macro_rules! all_operators {
    ($(@$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        impl Fingerprints {
            /// Adds what `op` names, of the body of function `me`. Whether its immediates are to be cut out of the plain
            /// bytes: they are all replaced then.
            #[allow(unused_variables, reason = "immediates that name nothing")]
            fn operator(&mut self, env: &ModuleEnv<'_>, me: u32, op: &Operator<'_>) -> bool {
                match op {
                    $(Operator::$op { $($($arg),*)? } => { $($(immediate!(self, env, me, $arg, $arg);)*)? })*
                    _ => {}
                }
                match op {
                    Operator::V128Load { .. } => {
                        // Of many, some are moved if the memory is known to be large enough.
                        self.vector_loads += 1;
                        if self.vector_loads == FEW + 1 {
                            self.content(b'p', &[env.memory_floor()]);
                        }
                        false
                    }
                    Operator::RefFunc { function_index } => {
                        self.function_slot(env, *function_index);
                        true
                    }
                    Operator::Call { function_index } => {
                        let small = env.inlinable.get(*function_index).is_some();
                        if small && self.is_small_callee.insert(*function_index) {
                            self.small.push(*function_index);
                        }
                        true
                    }
                    Operator::CallIndirect { table_index, .. } | Operator::ReturnCallIndirect { table_index, .. } => {
                        self.content(b'n', &[(*table_index).into()]);
                        self.name(b'T', *table_index);
                        true
                    }
                    Operator::ReturnCall { .. }
                    | Operator::CallRef { .. }
                    | Operator::ReturnCallRef { .. }
                    | Operator::GlobalGet { .. }
                    | Operator::GlobalSet { .. }
                    | Operator::Block { blockty: BlockType::FuncType(_) }
                    | Operator::Loop { blockty: BlockType::FuncType(_) }
                    | Operator::If { blockty: BlockType::FuncType(_) } => true,
                    _ => false,
                }
            }
        }
    };
}
wasmparser::for_each_operator!(all_operators);
