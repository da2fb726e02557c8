//! Loops as compilers make them, and as they do not: for what the compiler concludes from loop variables.
//!
//! Starts, steps and limits lie where conclusions go wrong: around zero, around both ends of the signed and the unsigned numbers, and at
//! the end of the memory. A fuel counter ends loops that do not end. Modules run here and in wasmtime.

use super::differential::{compare, generate};
use crate::random::Random;
use arbitrary::Unstructured;
use std::fmt::Write;

/// Loop iterations until a function gives up.
const FUEL: u32 = 3_000;

/// Bytes of the memory.
const MEMORY: u32 = 2 << 16;

/// Makes a module with some loops and compares what it does with what it does in wasmtime. Returns whether it ran.
///
/// # Panics
/// The two disagree.
pub fn loops(random: &mut Random) -> bool {
    let text = module(random);
    let wasm = wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let entropy = random.bytes(64);
    match generate::from_module(wasm, &mut Unstructured::new(&entropy)) {
        Ok(Some(case)) => {
            compare(&case);
            true
        }
        _ => false,
    }
}

fn module(random: &mut Random) -> String {
    let mut text = String::new();
    let pages = MEMORY >> 16;
    let _ = write!(text, "(module (memory (export \"memory\") {pages})\n(data (i32.const 4) \"");
    for _ in 0..64 {
        let _ = write!(text, "\\{:02x}", random.bits() as u8);
    }
    text.push_str("\")\n(global $fuel (mut i32) (i32.const 0))\n");
    for k in 0..=random.below(2) {
        let _ = writeln!(text, "(func (export \"f{k}\") (param $a i32) (param $b i32) (result i32)");
        text.push_str("(local $i0 i32) (local $i1 i32) (local $i2 i32) (local $j i32) (local $s i32) (local $p i32) (local $x i32) (local $y i32) (local $wx i64) (local $wy i64) (local $v v128)\n");
        let _ = writeln!(text, "(global.set $fuel (i32.const {FUEL}))");
        for _ in 0..=random.below(2) {
            one_loop(random, &mut text, 0);
        }
        let extract = "(i32x4.extract_lane 1 (local.get $v))";
        let _ = writeln!(text, "(i32.add (local.get $s) (i32.xor (local.get $p) {extract})))");
    }
    text.push(')');
    text
}

/// Numbers at which something changes.
fn number(random: &mut Random) -> i64 {
    const EDGES: [i64; 9] =
        [0, 0x400, MEMORY as i64, -0x400, -(MEMORY as i64), i32::MAX as i64, i32::MIN as i64, -1, 0xffff];
    let near = *random.pick(&[-16, -9, -8, -4, -2, -1, 0, 0, 0, 1, 2, 4, 8, 12, 16]);
    i64::from((*random.pick(&EDGES) + near) as i32)
}

fn step(random: &mut Random) -> i64 {
    *random.pick(&[1, 1, 1, 2, 3, 4, 4, 8, 16, 24, -1, -1, -4, -16, 0x400, 0x4000_0000, i64::from(i32::MIN), 0])
}

/// A loop over `$i{depth}`.
fn one_loop(random: &mut Random, text: &mut String, depth: usize) {
    let start = number(random);
    let by = step(random);
    // Often a limit that the variable meets.
    let limit =
        if random.one_in(3) { number(random) } else { i64::from((start + by * random.below(40) as i64) as i32) };
    let variable = format!("(local.get $i{depth})");
    let init = if random.one_in(6) { "(local.get $a)".into() } else { format!("(i32.const {start})") };
    let _ = writeln!(text, "(local.set $i{depth} {init})");
    let derived = random.one_in(2);
    if derived {
        let _ = writeln!(text, "(local.set $j (i32.const {}))", number(random));
    }
    let _ = writeln!(text, "(block $out{depth} (loop $again{depth}");
    let _ = writeln!(text, "(br_if $out{depth} (i32.eqz (global.get $fuel)))");
    text.push_str("(global.set $fuel (i32.sub (global.get $fuel) (i32.const 1)))\n");
    let body = |random: &mut Random, text: &mut String| {
        for _ in 0..=random.below(3) {
            statement(random, text, depth);
        }
    };
    body(random, text);
    if depth < 2 && random.one_in(3) {
        one_loop(random, text, depth + 1);
    }
    if derived {
        let _ = writeln!(text, "(local.set $j (i32.add (local.get $j) (i32.const {})))", step(random));
    }
    let next = format!("(i32.add {variable} (i32.const {by}))");
    let compare = |random: &mut Random, left: &str, limit: i64| {
        let code =
            *random.pick(&["ne", "ne", "ne", "lt_u", "lt_u", "le_u", "lt_s", "le_s", "gt_u", "gt_s", "ge_u", "eq"]);
        let right = if random.one_in(5) { "(local.get $b)".into() } else { format!("(i32.const {limit})") };
        format!("(i32.{code} {left} {right})")
    };
    if random.one_in(2) {
        // The next value is compared.
        let _ = writeln!(text, "(local.set $i{depth} {next})");
        if random.one_in(4) {
            body(random, text);
        }
        let condition = if random.one_in(4) { variable } else { compare(random, &variable, limit) };
        let _ = writeln!(text, "(br_if $again{depth} {condition})");
    } else {
        let left =
            if random.one_in(4) { format!("(i32.add {variable} (i32.const {}))", step(random)) } else { variable };
        let _ = writeln!(text, "{} (local.set $i{depth} {next})", compare(random, &left, limit));
        let _ = writeln!(text, "(br_if $again{depth})");
    }
    text.push_str("))\n");
}

/// An index: something of loop variables, masks, shifts and loads.
fn index(random: &mut Random, depth: usize) -> String {
    let of = match random.below(8) {
        0 => "(local.get $j)".into(),
        1 => "(local.get $p)".into(),
        2 => "(local.get $s)".into(),
        _ => format!("(local.get $i{})", random.below(depth + 1)),
    };
    let c = number(random);
    let small = *random.pick(&[1, 2, 4, 7, 8, 16, 0x400, 0x1_0000]);
    match random.below(9) {
        0 => of,
        1 | 2 => format!("(i32.add {of} (i32.const {c}))"),
        3 => format!("(i32.sub {of} (i32.const {small}))"),
        4 => format!("(i32.add (i32.shl {of} (i32.const {})) (i32.const {small}))", random.below(5)),
        5 => format!(
            "(i32.add (i32.shl (i32.and {of} (i32.const {})) (i32.const {})) (i32.const {c}))",
            random.pick(&[15, 255, 0xffff, -1, 0x3fff_ffff]),
            random.below(5)
        ),
        6 => format!("(i32.add (i32.mul {of} (i32.const {})) (i32.const {small}))", random.pick(&[3, 5, 9, 12, -3])),
        7 => format!("(i32.add (i32.add {of} (local.get $i{})) (i32.const {small}))", random.below(depth + 1)),
        _ => format!("(i32.shl (i32.shr_u {of} (i32.const {})) (i32.const {}))", random.below(32), random.below(5)),
    }
}

fn statement(random: &mut Random, text: &mut String, depth: usize) {
    let at = index(random, depth);
    let offset = *random.pick(&[0_u32, 0, 4, 8, 0x400, 0xfff0, 0x7fff_fff0, 0xffff_fff0]);
    let sum = |value: String| format!("(local.set $s (i32.add (local.get $s) {value}))");
    let line = match random.below(12) {
        0 => format!("(i32.store offset={offset} {at} (local.get $s))"),
        1 => format!("(i32.store8 {at} (local.get $i{depth}))"),
        2 => sum(format!("(i32.load8_u offset={offset} {at})")),
        3 => format!("(local.set $p (i32.load {at}))"),
        4 => format!("(local.set $p (i32.and (i32.load {at}) (i32.const 0xfffc)))"),
        5 => format!("(local.set $v (i64x2.add (local.get $v) (v128.load {at})))"),
        6 => {
            let more = index(random, depth);
            format!(
                "(local.set $v (i32x4.add (i32x4.sub (v128.load {at}) (v128.load offset=16 {more})) (local.get $v)))\n\
                 (v128.store {more} (local.get $v))"
            )
        }
        7 => sum(format!("(i32.mul (i32.load16_u {at}) (i32.const {}))", random.pick(&[3, 5, 9, 7]))),
        8 => sum(format!("(i32.load offset={offset} {at})")),
        9 => sum(choice(random, &at)),
        10 => exit(random, depth),
        _ => sum(narrowed(random, &at)),
    };
    text.push_str(&line);
    text.push('\n');
}

/// Leaves the loop from its middle, having done something.
fn exit(random: &mut Random, depth: usize) -> String {
    let condition = match random.below(4) {
        0 => format!(
            "(f32.{} (f32.reinterpret_i32 (local.get $s)) (f32.const 3))",
            random.pick(&["lt", "ge", "ne", "eq"])
        ),
        1 => "(local.get $s)".into(),
        2 => "(i32.eqz (local.get $p))".into(),
        _ => format!("(i32.gt_s (local.get $s) (i32.const {}))", number(random)),
    };
    format!(
        "(block $stay (br_if $stay {condition}) (local.set $s (i32.sub (local.get $s) (i32.const 5))) (br $out{depth}))"
    )
}

/// A choice between what is compared, or that a comparison of a sum makes.
fn choice(random: &mut Random, at: &str) -> String {
    let code = *random.pick(&["lt_s", "lt_u", "le_s", "le_u", "gt_s", "gt_u", "ge_s", "ge_u", "eq", "ne"]);
    let not = random.one_in(4);
    let condition = |c: String| if not { format!("(i32.eqz {c})") } else { c };
    if random.one_in(3) {
        let code = *random.pick(&["eq", "ne", code]);
        let (c, limit) = (number(random), number(random));
        let sum = format!("(local.tee $x (i32.add (i32.load8_u {at}) (i32.const {c})))");
        let condition = condition(format!("(i32.{code} {sum} (i32.const {limit}))"));
        return format!("(select (local.get $p) (local.get $x) {condition})");
    }
    let [mut a, mut b] = ["x", "y"];
    if random.one_in(2) {
        (a, b) = (b, a);
    }
    let set = format!("(local.set $x (i32.load {at})) (local.set $y (i32.add (local.get $s) (i32.load {at})))");
    if random.one_in(3) {
        let condition = condition(format!("(i64.{code} (local.get $wx) (local.get $wy))"));
        return format!(
            "{set} (local.set $wx (i64.extend_i32_s (local.get $x)))\n\
             (local.set $wy (i64.mul (local.get $wx) (i64.extend_i32_u (local.get $y))))\n\
             (i32.wrap_i64 (select (local.get $w{a}) (local.get $w{b}) {condition}))"
        );
    }
    let condition = condition(format!("(i32.{code} (local.get $x) (local.get $y))"));
    format!("{set} (select (local.get ${a}) (local.get ${b}) {condition})")
}

/// Something of which only the lower bits count.
fn narrowed(random: &mut Random, at: &str) -> String {
    let mask = *random.pick(&[0xff, 0xfe, 0x1ff, 0xffff, 0x7fff, -1]);
    let (left, right) = (*random.pick(&[24, 16, 8, 0, 40]), *random.pick(&[24, 24, 16, 16, 0]));
    match random.below(4) {
        0 => format!("(i32.and (i32.load8_u {at}) (i32.const {mask}))"),
        1 => format!("(i32.and (i32.load16_u {at}) (i32.const {mask}))"),
        2 => format!("(i32.shr_s (i32.shl (i32.load {at}) (i32.const {left})) (i32.const {right}))"),
        _ => {
            let (left, right) = (*random.pick(&[56, 48, 32, 0, 64]), *random.pick(&[56, 48, 32, 32, 0]));
            format!("(i32.wrap_i64 (i64.shr_s (i64.shl (i64.load {at}) (i64.const {left})) (i64.const {right})))")
        }
    }
}
