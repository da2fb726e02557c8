//! Rounding for processors without SSE4.1 (core spec, 4.3.3).
//!
//! Adding and subtracting 2^(mantissa bits) rounds to the nearest integer, ties to even, in the default rounding mode;
//! the other modes correct that by one. Sign, zeroes and infinities survive; a NaN comes back quiet.

macro_rules! rounding {
    ($float:ident, $magic:expr, $nearest:ident, $floor:ident, $ceil:ident, $trunc:ident) => {
        pub(super) extern "C-unwind" fn $nearest(x: $float) -> $float {
            const MAGIC: $float = $magic;
            if x.is_nan() {
                return x + x;
            }
            if x.abs() >= MAGIC {
                return x;
            }
            // The barriers keep the sum from being folded away.
            let rounded = core::hint::black_box(core::hint::black_box(x.abs()) + MAGIC) - MAGIC;
            rounded.copysign(x)
        }

        pub(super) extern "C-unwind" fn $floor(x: $float) -> $float {
            let n = $nearest(x);
            if n > x { (n - 1.0).copysign(x) } else { n }
        }

        pub(super) extern "C-unwind" fn $ceil(x: $float) -> $float {
            let n = $nearest(x);
            if n < x { (n + 1.0).copysign(x) } else { n }
        }

        pub(super) extern "C-unwind" fn $trunc(x: $float) -> $float {
            if x.is_sign_negative() { $ceil(x) } else { $floor(x) }
        }
    };
}

rounding!(f32, 8_388_608.0, nearest_f32, floor_f32, ceil_f32, trunc_f32);
rounding!(f64, 4_503_599_627_370_496.0, nearest_f64, floor_f64, ceil_f64, trunc_f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_with_the_standard_library() {
        let values = [
            0.0,
            -0.0,
            0.4,
            0.5,
            0.6,
            1.5,
            2.5,
            -0.4,
            -0.5,
            -0.6,
            -1.5,
            -2.5,
            0.999_999_94,
            8_388_607.5,
            8_388_609.0,
            4_503_599_627_370_495.5,
            1e300,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            -f64::MIN_POSITIVE,
        ];
        for x in values {
            assert_eq!(nearest_f64(x).to_bits(), x.round_ties_even().to_bits(), "nearest {x}");
            assert_eq!(floor_f64(x).to_bits(), x.floor().to_bits(), "floor {x}");
            assert_eq!(ceil_f64(x).to_bits(), x.ceil().to_bits(), "ceil {x}");
            assert_eq!(trunc_f64(x).to_bits(), x.trunc().to_bits(), "trunc {x}");
            let y = x as f32;
            assert_eq!(nearest_f32(y).to_bits(), y.round_ties_even().to_bits(), "nearest {y}");
            assert_eq!(floor_f32(y).to_bits(), y.floor().to_bits(), "floor {y}");
            assert_eq!(ceil_f32(y).to_bits(), y.ceil().to_bits(), "ceil {y}");
            assert_eq!(trunc_f32(y).to_bits(), y.trunc().to_bits(), "trunc {y}");
        }
        assert!(nearest_f64(f64::NAN).is_nan() && floor_f32(f32::NAN).is_nan());
    }
}
