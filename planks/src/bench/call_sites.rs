//! Loops that call a function by its pointer, one for each thing to measure, and functions that do nothing.
//!
//! A processor remembers of an indirect call where it went last: a call that only ever had one target costs it as much as a direct one, one that had several
//! costs three cycles more (measured on a Zen 5), so things that are measured in turns must not share a call. And what a loop costs depends on how it
//! lies in lines of 64 bytes, so each thing is measured with its loop at several places.
#![allow(unsafe_code)]

use std::arch::global_asm;

/// A function of one argument, as native code sees it.
pub(super) type Next = extern "C-unwind" fn(i64) -> i64;

/// Places in a line of 64 bytes at which loops and functions lie.
pub(super) const PLACES: usize = 4;

/// Loops at each place.
const LOOPS: usize = 6;

/// Bytes from a loop to the next one, without the distance of their places.
const STRIDE: usize = 128;

/// Bytes from a place to the next one.
const STEP: usize = 16;

unsafe extern "C" {
    static planks_call_loops: u8;
    static planks_empty_functions: u8;
    static planks_jumps: u8;
}

global_asm!(
    r#"
    .pushsection .text.planks_call_sites,"ax",@progbits
    .p2align 7
planks_call_loops:
    .set planks_at, 0
    .rept {loops}
    .p2align 7
    .skip {step} * (planks_at % {places}), 0xcc
    push rbx
    push r14
    sub rsp, 8
    mov r14, rdi
    mov rbx, rsi
    xor eax, eax
2:
    mov rdi, rax
    call r14
    dec rbx
    jne 2b
    add rsp, 8
    pop r14
    pop rbx
    ret
    .set planks_at, planks_at + 1
    .endr
    .p2align 7
planks_empty_functions:
    .set planks_at, 0
    .rept {places}
    .p2align 7
    .skip {step} * planks_at, 0xcc
    lea rax, [rdi + 1]
    ret
    .set planks_at, planks_at + 1
    .endr
    .p2align 7
planks_jumps:
    .set planks_at, 0
    .rept {places}
    .p2align 7
    .skip {step} * planks_at, 0xcc
    jmp planks_empty_functions + planks_at * ({stride} + {step})
    .set planks_at, planks_at + 1
    .endr
    .popsection
    "#,
    loops = const PLACES * LOOPS,
    places = const PLACES,
    step = const STEP,
    stride = const STRIDE,
);

/// A loop that nothing else uses.
#[derive(Clone, Copy)]
pub(super) struct CallSite(extern "C" fn(Next, u64) -> i64);

impl CallSite {
    /// Loop number `number` of those at a place.
    pub(super) fn new(number: usize, place: usize) -> CallSite {
        assert!(number < LOOPS && place < PLACES);
        let at = &raw const planks_call_loops as usize + STRIDE * (PLACES * number + place) + STEP * place;
        // SAFETY: the loop of this number begins there; it takes a function and how often to call it, at least once.
        CallSite(unsafe { std::mem::transmute::<usize, extern "C" fn(Next, u64) -> i64>(at) })
    }

    /// Calls `f` again and again, each time with what it gave the last time.
    pub(super) fn call(self, f: Next, times: u64) -> i64 {
        (self.0)(f, times.max(1))
    }
}

/// A function at a place that adds one.
pub(super) fn empty(place: usize) -> Next {
    // SAFETY: the functions are of this type.
    unsafe { at(&raw const planks_empty_functions as usize, place) }
}

/// A jump to it: the least that can stand between a caller and a function that may change.
pub(super) fn jump(place: usize) -> Next {
    // SAFETY: as above.
    unsafe { at(&raw const planks_jumps as usize, place) }
}

/// # Safety
/// `first` must be the address of the first of a row of functions, one at each place.
unsafe fn at(first: usize, place: usize) -> Next {
    assert!(place < PLACES);
    // SAFETY: the caller's promise.
    unsafe { std::mem::transmute::<usize, Next>(first + (STRIDE + STEP) * place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_calls_every_function_as_often_as_it_says() {
        for place in 0..PLACES {
            for number in 0..LOOPS {
                let site = CallSite::new(number, place);
                assert_eq!((site.call(empty(place), 7), site.call(jump(place), 3)), (7, 3));
            }
        }
    }
}
