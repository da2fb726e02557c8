//! Addresses of a cell's functions, wherever they are kept, reach the next version, of whichever kind the two are, or say what is gone.

use crate::compile::rustc_typed;
use crate::{load, namespace};
use namespace_bridge::entries::GoneFunction;
use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef, catch_trap};
use std::sync::OnceLock;
use std::thread;
use wasm_cell::trap::TrapCode;

/// A wasm cell that keeps functions in its table.
const HOLDER: &str = r#"(module
    (import "cell" "f" (func $f (param i32) (result i32))) (import "cell" "only_one" (func $only (result i32)))
    (table (export "table") 2 funcref) (elem (i32.const 0) $f $only)
    (func (export "f") (param i32) (result i32) (call_indirect (param i32) (result i32) (local.get 0) (i32.const 0)))
    (func (export "only") (result i32) (call_indirect (result i32) (i32.const 1))))"#;

/// A version of the cell.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Native,
    Wasm,
}

impl Kind {
    /// Version 1 has `only_one`, version 2 has not.
    fn bytes(self, version: i32) -> Vec<u8> {
        static NATIVE: [OnceLock<Vec<u8>>; 2] = [const { OnceLock::new() }; 2];
        let flags: &[&str] = if version == 1 { &["-Copt-level=2", "--cfg=one"] } else { &["-Copt-level=2"] };
        match self {
            Kind::Native => NATIVE[version as usize - 1].get_or_init(|| rustc_typed("swapped", flags)).clone(),
            Kind::Wasm => {
                let only = if version == 1 { r#"(func (export "only_one") (result i32) (i32.const 11))"# } else { "" };
                let f = format!(
                    r#"(func (export "f") (param i32) (result i32) (i32.add (i32.const {}) (local.get 0)))"#,
                    1000 * version
                );
                wat::parse_str(format!("(module {f} {only})")).unwrap()
            }
        }
    }

    fn load(self, ns: &CrateNamespace) -> StrongCrateRef {
        match self {
            Kind::Native => load(ns, "cell", &self.bytes(1)),
            Kind::Wasm => ns.load_wasm("cell", &self.bytes(1), LoadOptions::default()).unwrap(),
        }
    }

    fn next(self) -> SwapRequest {
        let request = SwapRequest::new("cell").force(true);
        match self {
            Kind::Native => request.with_native(&self.bytes(2)),
            Kind::Wasm => request.with_wasm(&self.bytes(2)),
        }
    }
}

fn keeper() -> Vec<u8> {
    static KEEPER: OnceLock<Vec<u8>> = OnceLock::new();
    KEEPER.get_or_init(|| rustc_typed("keeper", &["-Copt-level=3"])).clone()
}

/// Whether code calls through a register and never through memory.
fn calls_by_register_only(code: &[u8]) -> bool {
    // FF /2 (Intel SDM, CALL): mod 3 is a register; FF 15 is a word of memory by its distance.
    code.windows(2).any(|w| w[0] == 0xff && (0xd0..=0xd7).contains(&w[1]))
        && !code.windows(2).any(|w| w == [0xff, 0x15])
}

fn every_kept_address_follows(from: Kind, to: Kind) {
    let ns = namespace();
    let cell = from.load(&ns);
    let keeper = load(&ns, "keeper", &keeper());
    let holder = ns.load_wasm("holder", &wat::parse_str(HOLDER).unwrap(), LoadOptions::default()).unwrap();
    let text = keeper.export("until_not").unwrap();
    // SAFETY: the code of a cell that lives.
    let code = unsafe { std::slice::from_raw_parts(text.virt_addr.value() as *const u8, text.size) };
    assert!(calls_by_register_only(code), "the loop keeps the address in a register: {code:x?}");
    keeper.typed_func::<(), ()>("save").unwrap().call(()).unwrap();
    // SAFETY: the functions' types.
    let raw: extern "C-unwind" fn(i32) -> i32 = unsafe { cell.entry("f") }.unwrap();
    // SAFETY: as above.
    let raw_only: extern "C-unwind" fn() -> i32 = unsafe { cell.entry("only_one") }.unwrap();
    drop(cell);
    let by = |cell: &StrongCrateRef, name: &str| cell.typed_func::<(i32,), i32>(name).unwrap().call((5,)).unwrap();
    let all = || {
        let of_keeper = ["from_data", "from_static", "direct"].map(|name| by(&keeper, name));
        [&of_keeper[..], &[by(&holder, "f"), raw(5)]].concat()
    };
    let only =
        [keeper.typed_func::<(), i32>("only_from_static").unwrap(), holder.typed_func::<(), i32>("only").unwrap()];
    assert_eq!(all(), [1005; 5], "{from:?}");
    assert!(only.iter().all(|f| f.call(()).unwrap() == 11) && raw_only() == 11, "{from:?}");
    let table = holder.instance().unwrap().table(0).unwrap().clone();
    let elements = (table.get(0), table.get(1));

    let until_not = keeper.typed_func::<(i32, i32), i32>("until_not").unwrap();
    let calls = keeper.typed_func::<(), i64>("calls").unwrap();
    let result = thread::scope(|s| {
        let in_a_loop = s.spawn(|| until_not.call((5, 1005)).unwrap());
        while calls.call(()).unwrap() < 100 {
            thread::yield_now();
        }
        ns.swap(to.next()).unwrap();
        in_a_loop.join().unwrap()
    });
    assert_eq!(result, 2005, "{from:?} to {to:?}: the loop came to the new version");
    assert_eq!(all(), [2005; 5], "{from:?} to {to:?}");
    assert_eq!((table.get(0), table.get(1)), elements, "references keep their identity");
    let gone = only.iter().map(|f| f.call(()).unwrap_err()).chain([catch_trap(|| raw_only()).unwrap_err()]);
    for trap in gone {
        assert_eq!(trap.code(), TrapCode::FunctionGone, "{from:?} to {to:?}");
        let what = trap.downcast_ref::<GoneFunction>().unwrap();
        assert_eq!((&*what.cell, &*what.function), ("cell", "only_one"), "{from:?} to {to:?}");
    }
    ns.rollback("cell").unwrap();
    assert_eq!(all(), [1005; 5], "{from:?}, back");
    assert!(only.iter().all(|f| f.call(()).unwrap() == 11) && raw_only() == 11, "{from:?}, back");
}

#[test]
fn from_wasm_to_wasm() {
    every_kept_address_follows(Kind::Wasm, Kind::Wasm);
}

#[test]
fn from_wasm_to_native() {
    every_kept_address_follows(Kind::Wasm, Kind::Native);
}

#[test]
fn from_native_to_wasm() {
    every_kept_address_follows(Kind::Native, Kind::Wasm);
}

#[test]
fn from_native_to_native() {
    every_kept_address_follows(Kind::Native, Kind::Native);
}
