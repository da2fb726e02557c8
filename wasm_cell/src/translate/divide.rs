//! Division by constants: multiplication by the inverse, a shift, and no check.
//!
//! Granlund and Montgomery, "Division by Invariant Integers using Multiplication" (PLDI 1994): for N-bit `n`, the quotient by `d` is
//! `m * n` shifted right by N + s, if `m * d` exceeds 2^(N+s) by at least 1 and at most 2^s (theorem 4.2; signed, theorem 5.1).

use super::FuncTranslator;
use crate::trap::TrapCode;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// `m` and `s`. `m` has a bit more than the divided numbers if `wide`; it is given without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inverse {
    multiplier: u64,
    wide: bool,
    shift: u32,
}

impl Inverse {
    /// That of a divisor that is no power of two, for numbers of `bits` bits whose magnitudes have `magnitude` bits, with the smallest shift from
    /// `least` on.
    fn of(divisor: u64, bits: u32, magnitude: u32, least: u32) -> Inverse {
        let d = u128::from(divisor);
        // At the latest when 2^s is as large as the divisor.
        let enough = 64 - divisor.leading_zeros();
        let exact = |shift: u32| {
            let power = 1u128 << (magnitude + shift);
            let multiplier = power / d + 1;
            (multiplier, multiplier * d - power <= 1 << shift)
        };
        let shift = (least..enough).find(|shift| exact(*shift).1).unwrap_or(enough);
        let multiplier = exact(shift).0;
        Inverse { multiplier: (multiplier & (u128::MAX >> (128 - bits))) as u64, wide: multiplier >> bits != 0, shift }
    }
}

impl FuncTranslator<'_> {
    pub(super) fn div_u(&mut self) {
        let (a, b) = self.pop2();
        let quotient = match self.unsigned_divisor(b) {
            Some(d) => self.quotient_u(a, d),
            None => {
                self.check_divisor(b);
                self.builder.ins().udiv(a, b)
            }
        };
        self.push(quotient);
    }

    pub(super) fn rem_u(&mut self) {
        let (a, b) = self.pop2();
        let remainder = match self.unsigned_divisor(b) {
            Some(d) if d.is_power_of_two() => self.builder.ins().band_imm_u(a, (d - 1) as i64),
            Some(d) => {
                let quotient = self.quotient_u(a, d);
                self.remainder(a, quotient, b)
            }
            None => {
                self.check_divisor(b);
                self.builder.ins().urem(a, b)
            }
        };
        self.push(remainder);
    }

    pub(super) fn div_s(&mut self) {
        let (a, b) = self.pop2();
        if let Some(d) = self.signed_divisor(b) {
            let quotient = self.quotient_s(a, d);
            return self.push(quotient);
        }
        self.check_divisor(b);
        let ty = self.type_of(a);
        let min = if ty == types::I32 { i64::from(i32::MIN) } else { i64::MIN };
        // Only division by -1 can overflow, and it is rare.
        let (check, divide) = (self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(check);
        let is_minus_one = self.builder.ins().icmp_imm_s(IntCC::Equal, b, -1);
        self.builder.ins().brif(is_minus_one, check, &[], divide, &[]);
        self.builder.seal_block(check);
        self.builder.switch_to_block(check);
        let is_min = self.builder.ins().icmp_imm_s(IntCC::Equal, a, min);
        self.trap_if(is_min, TrapCode::IntegerOverflow);
        self.builder.ins().jump(divide, &[]);
        self.builder.seal_block(divide);
        self.builder.switch_to_block(divide);
        let r = self.builder.ins().sdiv(a, b);
        self.push(r);
    }

    pub(super) fn rem_s(&mut self) {
        let (a, b) = self.pop2();
        let remainder = match self.signed_divisor(b) {
            Some(d) => {
                let quotient = self.quotient_s(a, d);
                self.remainder(a, quotient, b)
            }
            None => {
                self.check_divisor(b);
                self.builder.ins().srem(a, b)
            }
        };
        self.push(remainder);
    }

    fn check_divisor(&mut self, divisor: Value) {
        let zero = self.builder.ins().icmp_imm_u(IntCC::Equal, divisor, 0);
        self.trap_if(zero, TrapCode::IntegerDivisionByZero);
    }

    /// A constant by which unsigned numbers can be divided.
    fn unsigned_divisor(&self, value: Value) -> Option<u64> {
        let bits = self.integer(value)?;
        let bits = if self.type_of(value) == types::I32 { u64::from(bits as u32) } else { bits as u64 };
        (bits != 0).then_some(bits)
    }

    /// A constant by which signed numbers can be divided without overflow.
    fn signed_divisor(&self, value: Value) -> Option<i64> {
        self.integer(value).filter(|d| *d != 0 && *d != -1)
    }

    fn remainder(&mut self, a: Value, quotient: Value, divisor: Value) -> Value {
        let whole = self.builder.ins().imul(quotient, divisor);
        self.builder.ins().isub(a, whole)
    }

    fn quotient_u(&mut self, a: Value, divisor: u64) -> Value {
        let ty = self.type_of(a);
        let bits = ty.bits();
        if divisor.is_power_of_two() {
            return self.builder.ins().ushr_imm_u(a, i64::from(divisor.ilog2()));
        }
        // Not more than 1.
        if divisor > 1 << (bits - 1) {
            let one = self.builder.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, a, divisor as i64);
            return self.builder.ins().uextend(ty, one);
        }
        let Inverse { multiplier, wide, shift } = Inverse::of(divisor, bits, bits, 0);
        let multiplier = self.builder.ins().iconst(types::I64, multiplier as i64);
        if ty == types::I32 && !wide {
            let a = self.builder.ins().uextend(types::I64, a);
            let product = self.builder.ins().imul(a, multiplier);
            let quotient = self.builder.ins().ushr_imm_u(product, i64::from(32 + shift));
            return self.builder.ins().ireduce(types::I32, quotient);
        }
        let high = if ty == types::I32 {
            let a = self.builder.ins().uextend(types::I64, a);
            let product = self.builder.ins().imul(a, multiplier);
            let high = self.builder.ins().ushr_imm_u(product, 32);
            self.builder.ins().ireduce(types::I32, high)
        } else {
            self.builder.ins().umulhi(a, multiplier)
        };
        if !wide {
            return self.builder.ins().ushr_imm_u(high, i64::from(shift));
        }
        // The bit that the multiplier lacks: (a + high) / 2, which may have a bit too many before it is halved.
        let rest = self.builder.ins().isub(a, high);
        let half = self.builder.ins().ushr_imm_u(rest, 1);
        let sum = self.builder.ins().iadd(half, high);
        self.builder.ins().ushr_imm_u(sum, i64::from(shift) - 1)
    }

    fn quotient_s(&mut self, a: Value, divisor: i64) -> Value {
        let ty = self.type_of(a);
        let bits = ty.bits();
        let magnitude = divisor.unsigned_abs();
        if magnitude == 1 {
            return a;
        }
        let quotient = if magnitude.is_power_of_two() {
            // Negative numbers are rounded up.
            let k = magnitude.ilog2();
            let sign = self.builder.ins().sshr_imm_u(a, i64::from(k) - 1);
            let up = self.builder.ins().ushr_imm_u(sign, i64::from(bits - k));
            let sum = self.builder.ins().iadd(a, up);
            self.builder.ins().sshr_imm_u(sum, i64::from(k))
        } else {
            let Inverse { multiplier, wide: _, shift } = Inverse::of(magnitude, bits, bits - 1, 1);
            let factor = self.builder.ins().iconst(types::I64, multiplier as i64);
            let rounded_down = if ty == types::I32 {
                let a = self.builder.ins().sextend(types::I64, a);
                let product = self.builder.ins().imul(a, factor);
                let quotient = self.builder.ins().sshr_imm_u(product, i64::from(31 + shift));
                self.builder.ins().ireduce(types::I32, quotient)
            } else {
                // A multiplier beyond the signed numbers counts as 2^64 less.
                let high = self.builder.ins().smulhi(a, factor);
                let high = if (multiplier as i64) < 0 { self.builder.ins().iadd(high, a) } else { high };
                self.builder.ins().sshr_imm_u(high, i64::from(shift) - 1)
            };
            let negative = self.builder.ins().sshr_imm_u(a, i64::from(bits) - 1);
            self.builder.ins().isub(rounded_down, negative)
        };
        if divisor < 0 { self.builder.ins().ineg(quotient) } else { quotient }
    }
}

#[cfg(test)]
mod tests {
    use super::Inverse;

    /// Divisors of each size, near powers of two and far from them.
    fn divisors(bits: u32) -> impl Iterator<Item = u64> {
        let near = (1..bits).flat_map(|k| (0..6).map(move |i| (1u64 << k).wrapping_add(i).wrapping_sub(3)));
        let far = (1..200u64).chain((0..500).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 63)));
        near.chain(far).map(move |d| d & (u64::MAX >> (64 - bits))).filter(|d| *d != 0 && !d.is_power_of_two())
    }

    /// Numbers around multiples of the divisor and around the ends.
    fn numbers(d: u64, bits: u32) -> impl Iterator<Item = u64> {
        let most = u64::MAX >> (64 - bits);
        let around = [0, d, most / d * d, most / 2 / d * d, most / 3, most / 2, most];
        around.into_iter().flat_map(move |n| (0..5).map(move |i| n.wrapping_add(i).wrapping_sub(2) & most))
    }

    #[test]
    fn unsigned_quotients_are_exact() {
        for bits in [32, 64] {
            for d in divisors(bits).filter(|d| *d <= 1 << (bits - 1)) {
                let Inverse { multiplier, wide, shift } = Inverse::of(d, bits, bits, 0);
                for n in numbers(d, bits) {
                    let high = (u128::from(n) * u128::from(multiplier)) >> bits;
                    let quotient = (high + if wide { u128::from(n) } else { 0 }) >> shift;
                    assert_eq!(quotient, u128::from(n / d), "{n} / {d} in {bits} bits");
                }
            }
        }
    }

    #[test]
    fn signed_quotients_are_exact() {
        for bits in [32, 64] {
            for d in divisors(bits).filter(|d| *d < 1 << (bits - 1)) {
                let Inverse { multiplier, wide, shift } = Inverse::of(d, bits, bits - 1, 1);
                assert!(!wide && shift > 0, "{d}");
                for n in numbers(d, bits) {
                    let n = ((n << (64 - bits)) as i64) >> (64 - bits);
                    // The whole product would need a bit more than there are.
                    let high = ((i128::from(n) * i128::from(multiplier as i64)) >> 64)
                        + if (multiplier as i64) < 0 { i128::from(n) } else { 0 };
                    let low = i128::from(n) * i128::from(multiplier);
                    let down = if bits == 64 { high >> (shift - 1) } else { low >> (31 + shift) };
                    assert_eq!(down - i128::from(n >> 63), i128::from(n) / i128::from(d), "{n} / {d} in {bits} bits");
                }
            }
        }
    }
}
