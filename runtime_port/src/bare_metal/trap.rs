//! CPU exceptions: the table of handlers.
//!
//! The kernel's exception entry saves the interrupted context, calls [`dispatch`], and either goes on with the context
//! the handler left or reports the exception as fatal.

use super::{context::Registers, task::open_yellow_zone};
use crate::trap::{Exception, ExceptionAction, ExceptionContext, ExceptionHandler, TrapError, TrapPort};
use core::sync::atomic::{AtomicPtr, Ordering};

/// Places for handlers.
const HANDLERS: usize = 8;

static TABLE: [AtomicPtr<()>; HANDLERS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; HANDLERS];

/// The port's exceptions.
#[derive(Debug)]
pub struct BareTraps;

impl TrapPort for BareTraps {
    fn install_handler(&self, handler: ExceptionHandler) -> Result<(), TrapError> {
        let handler = handler as *mut ();
        for place in &TABLE {
            let taken = place.compare_exchange(core::ptr::null_mut(), handler, Ordering::AcqRel, Ordering::Acquire);
            match taken {
                Ok(_) => return Ok(()),
                Err(present) if present == handler => return Ok(()),
                Err(_) => {}
            }
        }
        Err(TrapError::Full(HANDLERS))
    }
}

/// Asks the installed handlers, the oldest first; a fault that nobody claims may be native code that needs the yellow
/// zone of its stack. What they change is written to the registers. Lock-free; called in exception context.
pub fn dispatch(exception: Exception, fault_address: Option<usize>, registers: &mut Registers) -> ExceptionAction {
    let mut context = ExceptionContext {
        exception,
        fault_address,
        rip: registers.rip,
        rsp: registers.rsp,
        rbp: registers.rbp,
        rdi: registers.rdi,
        rsi: registers.rsi,
        rdx: registers.rdx,
        rax: registers.rax,
        rflags: registers.rflags,
    };
    if !ask(&mut context) {
        let goes_on = exception == Exception::Interrupt || fault_address.is_some_and(open_yellow_zone);
        return if goes_on { ExceptionAction::Resume } else { ExceptionAction::NotMine };
    }
    registers.rip = context.rip;
    registers.rsp = context.rsp;
    registers.rbp = context.rbp;
    registers.rdi = context.rdi;
    registers.rsi = context.rsi;
    registers.rdx = context.rdx;
    registers.rax = context.rax;
    registers.rflags = context.rflags;
    ExceptionAction::Resume
}

/// Whether a handler took the exception.
fn ask(context: &mut ExceptionContext) -> bool {
    for place in &TABLE {
        let handler = place.load(Ordering::Acquire);
        if handler.is_null() {
            break;
        }
        // SAFETY: only `install_handler` writes the table, and only function pointers of this type.
        let handler = unsafe { core::mem::transmute::<*mut (), ExceptionHandler>(handler) };
        if handler(context) == ExceptionAction::Resume {
            return true;
        }
    }
    false
}
