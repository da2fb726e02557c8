//! Damage for valid inputs: what is nearly right gets deeper into a parser than noise does.

use crate::random::Random;

/// Signed and unsigned LEB128 encodings that sit on an edge: zero, sign bits, 32- and 64-bit limits, overlong forms.
const LEB_EDGES: [&[u8]; 12] = [
    &[0x00],
    &[0x01],
    &[0x3f],
    &[0x40],
    &[0x7f],
    &[0x80, 0x00],
    &[0xff, 0xff, 0x03],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0x80, 0x80, 0x80, 0x80, 0x08],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x10],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

/// Most bytes of a mutated input.
const MAX_BYTES: usize = 1 << 20;

/// Applies a few mutations to `input`, mostly one; `other` is material for splices.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    mutate_once(random, input, other);
    while random.one_in(2) {
        mutate_once(random, input, other);
    }
    input.truncate(MAX_BYTES);
}

fn mutate_once(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    if input.is_empty() {
        input.extend(random.bytes(8));
    }
    let at = random.below(input.len());
    match random.below(9) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.bits() as u8,
        2 => input[at] = input[at].wrapping_add([1, 0xff][random.below(2)]),
        3 => input.truncate(at),
        4 => {
            let end = (at + 1 + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        5 => {
            let end = (at + 1 + random.below(64)).min(input.len());
            let copy = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, copy);
        }
        6 => {
            let from = random.below(other.len());
            let end = (from + 1 + random.below(256)).min(other.len());
            let over = (at + random.below(256)).min(input.len());
            input.splice(at..over, other[from..end].iter().copied());
        }
        7 => {
            let noise = random.below(8);
            let noise = random.bytes(noise);
            input.splice(at..at, noise);
        }
        _ => {
            // Replace the LEB128 number that may begin here.
            let end = input[at..].iter().position(|b| b & 0x80 == 0).map_or(at + 1, |n| at + n + 1);
            input.splice(at..end, random.pick(&LEB_EDGES).iter().copied());
        }
    }
}
