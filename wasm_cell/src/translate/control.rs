//! Control flow: blocks, loops, branches, returns, and code that cannot be reached.
//!
//! A frame's exit block is made by the first branch to it, so a `block` that nothing branches to costs nothing. Code that
//! cannot be reached is validated and not translated.

use super::known::Mark;
use super::{FuncTranslator, Translated, clif_type, clif_type_of, unsupported};
use crate::generator::Effort;
use crate::trap::TrapCode;
use crate::types::FuncType;
use alloc::vec::Vec;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, BlockCall, InstBuilder, JumpTableData, Type, Value};
use wasmparser::{BlockType, BrTable, Operator};

/// What a frame was opened by.
enum FrameKind {
    /// The body itself, `block` or `else`.
    Plain,
    /// `loop`: branches go to the header.
    Loop { header: Block },
    /// `if`, until `else` is seen: where the false edge leads, not sealed yet, and the values of the parameters for it.
    If { otherwise: Block, params: Vec<Value> },
}

/// An open block.
pub(super) struct Frame {
    kind: FrameKind,
    ty: BlockSignature,
    /// Where execution goes on behind the frame, once somebody branches there.
    exit: Option<Block>,
    /// Height of the operand stack below the parameters.
    height: usize,
    /// What was known when it was opened.
    known: Mark,
}

/// Type of a block.
#[derive(Clone, Copy)]
enum BlockSignature {
    Empty,
    Result(Type),
    /// A type of the module, by type index.
    Type(u32),
    /// The results of the function, or of the one whose body is put in place of a call; no parameters.
    Function,
}

impl<'a> FuncTranslator<'a> {
    /// Opens the frame of a body.
    pub(super) fn push_function_frame(&mut self) {
        self.scratch.control.push(Frame {
            kind: FrameKind::Plain,
            ty: BlockSignature::Function,
            exit: None,
            height: self.scratch.stack.len(),
            known: self.scratch.known.mark(),
        });
    }

    /// Translates a control instruction, reachable or not; false if it is none.
    pub(super) fn control(&mut self, op: &Operator<'_>) -> Translated<bool> {
        match op {
            Operator::End => self.end(),
            Operator::Else if self.unreachable_depth == 0 => self.begin_else(),
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } if !self.reachable => {
                self.unreachable_depth += 1;
            }
            _ if !self.reachable => {}
            Operator::Nop => {}
            Operator::Block { blockty } => {
                let ty = block_signature(*blockty);
                self.push_frame(FrameKind::Plain, ty);
            }
            Operator::Loop { blockty } => self.begin_loop(block_signature(*blockty)),
            Operator::If { blockty } => self.begin_if(block_signature(*blockty)),
            Operator::Br { relative_depth } => self.branch(*relative_depth),
            Operator::BrIf { relative_depth } => {
                let condition = self.pop_condition();
                self.branch_if(*relative_depth, condition, true);
            }
            Operator::BrTable { targets } => self.branch_table(targets)?,
            Operator::BrOnNull { relative_depth } => {
                let reference = self.pop();
                let is_null = self.builder.ins().icmp_imm_u(IntCC::Equal, reference, 0);
                self.branch_if(*relative_depth, is_null, true);
                self.push(reference);
            }
            Operator::BrOnNonNull { relative_depth } => {
                let reference = self.scratch.stack.last().copied();
                let Some(reference) = reference else { return unsupported(op) };
                let is_null = self.builder.ins().icmp_imm_u(IntCC::Equal, reference, 0);
                self.branch_if(*relative_depth, is_null, false);
                self.pop();
            }
            Operator::Return => self.return_top(),
            Operator::Unreachable => self.trap(TrapCode::Unreachable),
            _ => return Ok(false),
        }
        Ok(true)
    }

    // ---- types of blocks ----

    fn func_signature(&self, ty: u32) -> &'a FuncType {
        self.env.func_type(ty)
    }

    fn param_count(&self, ty: BlockSignature) -> usize {
        match ty {
            BlockSignature::Type(t) => self.func_signature(t).params.len(),
            _ => 0,
        }
    }

    fn result_count(&self, ty: BlockSignature) -> usize {
        match ty {
            BlockSignature::Empty => 0,
            BlockSignature::Result(_) => 1,
            BlockSignature::Type(t) => self.func_signature(t).results.len(),
            BlockSignature::Function => self.ty.results.len(),
        }
    }

    /// A block with one parameter per value.
    fn block_with(&mut self, types: impl Iterator<Item = Type>) -> Block {
        let block = self.builder.create_block();
        for ty in types {
            self.builder.append_block_param(block, ty);
        }
        block
    }

    fn block_for_params(&mut self, ty: BlockSignature) -> Block {
        match ty {
            BlockSignature::Type(t) => {
                let params = &self.func_signature(t).params;
                self.block_with(params.iter().map(|t| clif_type(*t)))
            }
            _ => self.builder.create_block(),
        }
    }

    fn block_for_results(&mut self, ty: BlockSignature) -> Block {
        match ty {
            BlockSignature::Empty => self.builder.create_block(),
            BlockSignature::Result(t) => self.block_with(core::iter::once(t)),
            BlockSignature::Type(t) => {
                let results = &self.func_signature(t).results;
                self.block_with(results.iter().map(|t| clif_type(*t)))
            }
            BlockSignature::Function => {
                let results = &self.ty.results;
                self.block_with(results.iter().map(|t| clif_type(*t)))
            }
        }
    }

    // ---- opening and closing ----

    fn push_frame(&mut self, kind: FrameKind, ty: BlockSignature) {
        let height = self.scratch.stack.len() - self.param_count(ty);
        let known = self.scratch.known.mark();
        self.scratch.control.push(Frame { kind, ty, exit: None, height, known });
    }

    fn begin_loop(&mut self, ty: BlockSignature) {
        (self.effort, self.loops_open) = (Effort::Loops, self.loops_open + 1);
        let header = self.block_for_params(ty);
        let params = self.param_count(ty);
        self.jump(header, params);
        self.push_frame(FrameKind::Loop { header }, ty);
        let height = self.scratch.stack.len() - params;
        self.enter(header, height);
    }

    fn begin_if(&mut self, ty: BlockSignature) {
        let condition = self.pop_condition();
        let then = self.builder.create_block();
        let otherwise = self.builder.create_block();
        self.builder.ins().brif(condition, then, &[], otherwise, &[]);
        self.builder.seal_block(then);
        let params = self.scratch.stack[self.scratch.stack.len() - self.param_count(ty)..].to_vec();
        self.push_frame(FrameKind::If { otherwise, params }, ty);
        self.builder.switch_to_block(then);
    }

    /// The innermost frame.
    fn frame(&mut self) -> &mut Frame {
        self.scratch.control.last_mut().expect("validated: a frame is open")
    }

    fn begin_else(&mut self) {
        if self.reachable {
            let results = self.result_count(self.scratch.control[self.scratch.control.len() - 1].ty);
            let exit = self.exit_of(self.scratch.control.len() - 1);
            self.jump(exit, results);
        }
        let frame = self.frame();
        let (height, known) = (frame.height, frame.known);
        if let FrameKind::If { otherwise, params } = core::mem::replace(&mut frame.kind, FrameKind::Plain) {
            self.scratch.stack.truncate(height);
            self.scratch.stack.extend_from_slice(&params);
            self.scratch.known.back_to(known);
            self.builder.seal_block(otherwise);
            self.builder.switch_to_block(otherwise);
            self.reachable = true;
        }
    }

    fn end(&mut self) {
        if self.unreachable_depth > 0 {
            self.unreachable_depth -= 1;
            return;
        }
        let index = self.scratch.control.len() - 1;
        let ty = self.scratch.control[index].ty;
        let results = self.result_count(ty);
        match core::mem::replace(&mut self.frame().kind, FrameKind::Plain) {
            FrameKind::If { otherwise, params } => {
                // Without `else`, the results are the parameters, and the false edge may lead behind the frame at once.
                let goes_on = self.frame().exit.is_none() && (!self.reachable || params.is_empty());
                let exit = if goes_on { otherwise } else { self.exit_of(index) };
                if self.reachable {
                    self.jump(exit, results);
                }
                let (height, known) = (self.frame().height, self.frame().known);
                self.scratch.known.back_to(known);
                self.scratch.stack.truncate(height);
                self.scratch.stack.extend_from_slice(&params);
                self.builder.seal_block(otherwise);
                self.builder.switch_to_block(otherwise);
                self.reachable = true;
            }
            FrameKind::Loop { header } => {
                self.loops_open -= 1;
                self.builder.seal_block(header);
            }
            FrameKind::Plain => {}
        }
        let frame = self.scratch.control.pop().expect("validated: a frame is open");
        match frame.exit {
            Some(exit) => {
                if self.reachable {
                    self.jump(exit, results);
                }
                self.builder.seal_block(exit);
                self.scratch.known.back_to(frame.known);
                self.enter(exit, frame.height);
            }
            // The results are where they belong: on top of the frame's height.
            None if self.reachable => {}
            None => self.scratch.stack.truncate(frame.height),
        }
        if self.scratch.control.is_empty() && self.reachable {
            self.return_top();
        }
    }

    /// Goes on in `block`, whose parameters become the operands above `height`.
    fn enter(&mut self, block: Block, height: usize) {
        self.builder.switch_to_block(block);
        self.scratch.stack.truncate(height);
        self.scratch.stack.extend_from_slice(self.builder.block_params(block));
        self.reachable = true;
    }

    // ---- branches ----

    /// The exit of a frame, by position in the control stack.
    fn exit_of(&mut self, index: usize) -> Block {
        match self.scratch.control[index].exit {
            Some(exit) => exit,
            None => {
                let exit = self.block_for_results(self.scratch.control[index].ty);
                self.scratch.control[index].exit = Some(exit);
                exit
            }
        }
    }

    /// Target of a branch and the number of values it takes.
    fn target(&mut self, relative_depth: u32) -> (Block, usize) {
        let index = self.scratch.control.len() - 1 - relative_depth as usize;
        let frame = &self.scratch.control[index];
        let ty = frame.ty;
        match frame.kind {
            FrameKind::Loop { header } => (header, self.param_count(ty)),
            _ => (self.exit_of(index), self.result_count(ty)),
        }
    }

    /// Runs `emit` with the top `count` operands, canonical, as arguments of a branch.
    fn with_branch_args<T>(&mut self, count: usize, emit: impl FnOnce(&mut Self, &[BlockArg]) -> T) -> T {
        let mut args = core::mem::take(&mut self.scratch.block_args);
        args.clear();
        for i in self.scratch.stack.len() - count..self.scratch.stack.len() {
            let value = self.scratch.stack[i];
            args.push(BlockArg::Value(self.canonical(value)));
        }
        self.branch_args += count;
        let result = emit(self, &args);
        self.scratch.block_args = args;
        result
    }

    fn jump(&mut self, block: Block, count: usize) {
        self.with_branch_args(count, |t, args| t.builder.ins().jump(block, args));
    }

    fn branch(&mut self, relative_depth: u32) {
        if relative_depth as usize + 1 == self.scratch.control.len() - self.base() {
            self.return_top();
            return;
        }
        let (block, count) = self.target(relative_depth);
        self.jump(block, count);
        self.reachable = false;
    }

    /// Branches when `condition` is non-zero (`when`) or zero (not `when`).
    fn branch_if(&mut self, relative_depth: u32, condition: Value, when: bool) {
        let (block, count) = self.target(relative_depth);
        let next = self.builder.create_block();
        self.with_branch_args(count, |t, args| {
            if when {
                t.builder.ins().brif(condition, block, args, next, &[])
            } else {
                t.builder.ins().brif(condition, next, &[], block, args)
            }
        });
        self.builder.seal_block(next);
        self.builder.switch_to_block(next);
    }

    fn branch_table(&mut self, table: &BrTable<'_>) -> Translated {
        let index = self.pop();
        let (default, count) = self.target(table.default());
        let mut entries = Vec::with_capacity(table.len() as usize);
        if count == 0 {
            for depth in table.targets() {
                let (block, _) = self.target(depth?);
                entries.push(self.block_call(block));
            }
            let default = self.block_call(default);
            let jt = self.builder.create_jump_table(JumpTableData::new(default, &entries));
            self.builder.ins().br_table(index, jt);
            self.reachable = false;
            return Ok(());
        }
        // With values: one landing block per distinct target, so that a large table does not repeat its arguments.
        let mut landings: hashbrown::HashMap<u32, Block> = hashbrown::HashMap::new();
        let mut order = Vec::new();
        let mut landing = |t: &mut Self, depth: u32| {
            *landings.entry(depth).or_insert_with(|| {
                let block = t.builder.create_block();
                order.push((depth, block));
                block
            })
        };
        for depth in table.targets() {
            let block = landing(self, depth?);
            entries.push(self.block_call(block));
        }
        let default = landing(self, table.default());
        let default = self.block_call(default);
        let jt = self.builder.create_jump_table(JumpTableData::new(default, &entries));
        self.builder.ins().br_table(index, jt);
        for (depth, block) in order {
            self.builder.seal_block(block);
            self.builder.switch_to_block(block);
            let (target, count) = self.target(depth);
            self.jump(target, count);
        }
        self.reachable = false;
        Ok(())
    }

    fn block_call(&mut self, block: Block) -> BlockCall {
        BlockCall::new(block, core::iter::empty(), &mut self.builder.func.dfg.value_lists)
    }

    /// Returns the top operands.
    fn return_top(&mut self) {
        let count = self.ty.results.len();
        if self.inside.is_some() {
            let exit = self.exit_of(self.base());
            self.jump(exit, count);
            self.reachable = false;
            return;
        }
        let mut values = core::mem::take(&mut self.scratch.values);
        values.clear();
        for i in self.scratch.stack.len() - count..self.scratch.stack.len() {
            let value = self.scratch.stack[i];
            values.push(self.canonical(value));
        }
        self.branch_args += count;
        self.builder.ins().return_(&values);
        self.scratch.values = values;
        self.reachable = false;
    }
}

fn block_signature(ty: BlockType) -> BlockSignature {
    match ty {
        BlockType::Empty => BlockSignature::Empty,
        BlockType::Type(t) => BlockSignature::Result(clif_type_of(t)),
        BlockType::FuncType(t) => BlockSignature::Type(t),
    }
}
