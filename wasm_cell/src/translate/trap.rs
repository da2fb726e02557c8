//! Explicit traps: cold blocks that call the cell's trap stub (D8).
//!
//! A block that only traps would be folded into a conditional trap, which is `ud2` and a CPU exception; a block with a
//! call is not.

use super::{FuncTranslator, namespace};
use crate::trap::TrapCode;
use cranelift_codegen::ir::{self, ExtFuncData, ExternalName, InstBuilder, Signature, UserExternalName, Value};
use cranelift_codegen::isa::CallConv;

impl FuncTranslator<'_> {
    /// Cranelift's form of a trap code, for memory flags.
    pub fn trap_code(code: TrapCode) -> ir::TrapCode {
        ir::TrapCode::unwrap_user(code as u8)
    }

    /// Traps if `condition` (any integer) is not zero. What follows is the case where it is zero.
    pub fn trap_if(&mut self, condition: Value, code: TrapCode) {
        let trap = self.builder.create_block();
        let next = self.builder.create_block();
        self.builder.set_cold_block(trap);
        self.builder.ins().brif(condition, trap, &[], next, &[]);
        self.builder.seal_block(trap);
        self.builder.seal_block(next);
        self.builder.switch_to_block(trap);
        self.call_trap_stub(code);
        self.builder.switch_to_block(next);
    }

    /// Traps always; what follows is unreachable.
    pub fn trap(&mut self, code: TrapCode) {
        self.call_trap_stub(code);
        self.reachable = false;
    }

    /// Ends the current block with a call to a trap stub. The stub does not return: the `trap` behind it is never
    /// executed, it only ends the block.
    pub(super) fn call_trap_stub(&mut self, code: TrapCode) {
        let stub = match self.scratch.stubs.get(&code) {
            Some(stub) => *stub,
            None => {
                let name = UserExternalName::new(namespace::TRAP_STUB, code as u32);
                let name = self.builder.func.declare_imported_user_function(name);
                // Nothing comes back, so nothing is lost: the register allocator need not note what a call changes.
                let signature = self.builder.import_signature(Signature::new(CallConv::PreserveAll));
                let stub = self.builder.import_function(ExtFuncData {
                    name: ExternalName::user(name),
                    signature,
                    colocated: true,
                    patchable: false,
                });
                self.scratch.stubs.insert(code, stub);
                stub
            }
        };
        self.builder.ins().call(stub, &[]);
        self.builder.ins().trap(Self::trap_code(code));
    }
}
