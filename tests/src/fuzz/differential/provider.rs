//! Modules that satisfy the imports of a generated one.
//!
//! Written as text, because a person who looks into a failure has to read them. Every function calls the host once per
//! argument and once per result, so both engines see the same sequence of calls or the host's state tells.

use std::fmt::Write;
use wasmparser::{FuncType, HeapType, RefType, TypeRef, ValType};

/// Cell that has the host function, `tick: (i32) -> i64`.
pub const HOST: &str = "host of the comparison";

/// A module that exports what others import under its name.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// WebAssembly text.
    pub text: String,
    /// The same, binary.
    pub wasm: Vec<u8>,
    /// `(export, what)` in order, each once.
    pub exports: Vec<(String, TypeRef)>,
}

/// Next state of the host function; it returns the state.
pub fn tick(state: u64, argument: i32) -> u64 {
    state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(argument as u32 as u64).wrapping_add(0x1405_7b7e_f767_814f)
}

/// A provider under construction.
pub struct Builder {
    name: String,
    exports: Vec<(String, TypeRef)>,
    text: String,
}

impl Builder {
    /// A provider of this name that exports nothing yet.
    pub fn new(name: &str) -> Builder {
        let mut text = String::from("(module\n");
        let _ = writeln!(text, "  (func $tick (import {} \"tick\") (param i32) (result i64))", quoted(HOST));
        Builder { name: name.to_string(), exports: Vec::new(), text }
    }

    /// Name of the provider.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds an export. `func` is the type of a function import. `None`: nothing can satisfy the import.
    pub fn export(&mut self, name: &str, ty: TypeRef, func: Option<&FuncType>) -> Option<()> {
        if let Some((_, other)) = self.exports.iter().find(|(n, _)| n == name) {
            return (*other == ty).then_some(());
        }
        let export = quoted(name);
        let k = self.exports.len();
        match ty {
            TypeRef::Func(_) => self.func(&export, k, func?)?,
            // A fault in a shared memory that two instances have fails an assertion of wasmtime 48.
            TypeRef::Memory(m) if m.shared => return None,
            TypeRef::Memory(m) => {
                let index = if m.memory64 { "i64 " } else { "" };
                let max = m.maximum.map(|n| format!(" {n}")).unwrap_or_default();
                let page = m.page_size_log2.map(|n| format!(" (pagesize {})", 1u64 << n)).unwrap_or_default();
                let _ = writeln!(self.text, "  (memory (export {export}) {index}{}{max}{page})", m.initial);
            }
            TypeRef::Table(t) => {
                let index = if t.table64 { "i64 " } else { "" };
                let max = t.maximum.map(|n| format!(" {n}")).unwrap_or_default();
                let element = reference(t.element_type)?;
                let _ = writeln!(self.text, "  (table (export {export}) {index}{}{max} {element})", t.initial);
            }
            TypeRef::Global(g) => {
                let ty = value_type(g.content_type)?;
                let ty = if g.mutable { format!("(mut {ty})") } else { ty.to_string() };
                let n = 1000 + k;
                let init = match g.content_type {
                    ValType::I32 => format!("i32.const {n}"),
                    ValType::I64 => format!("i64.const {}", n << 33),
                    ValType::F32 => format!("f32.const {n}.5"),
                    ValType::F64 => format!("f64.const -{n}.25"),
                    ValType::V128 => format!("v128.const i64x2 {n} -{n}"),
                    ValType::Ref(r) => null(r)?.to_string(),
                };
                let _ = writeln!(self.text, "  (global (export {export}) {ty} ({init}))");
            }
            TypeRef::Tag(_) | TypeRef::FuncExact(_) => return None,
        }
        self.exports.push((name.to_string(), ty));
        Some(())
    }

    fn func(&mut self, export: &str, k: usize, ty: &FuncType) -> Option<()> {
        let _ = write!(self.text, "  (func (export {export})");
        for ty in ty.params() {
            let _ = write!(self.text, " (param {})", value_type(*ty)?);
        }
        for ty in ty.results() {
            let _ = write!(self.text, " (result {})", value_type(*ty)?);
        }
        self.text.push('\n');
        for (i, ty) in ty.params().iter().enumerate() {
            let observed = match ty {
                ValType::I32 => format!("local.get {i}"),
                ValType::I64 => format!("i32.wrap_i64 (local.get {i})"),
                ValType::F32 => format!("i32.reinterpret_f32 (local.get {i})"),
                ValType::F64 => format!("i32.wrap_i64 (i64.rotl (i64.reinterpret_f64 (local.get {i})) (i64.const 12))"),
                ValType::V128 => {
                    format!("i32.add (i32x4.extract_lane 0 (local.get {i})) (i32x4.extract_lane 3 (local.get {i}))")
                }
                ValType::Ref(_) => format!("ref.is_null (local.get {i})"),
            };
            let _ = writeln!(self.text, "    (drop (call $tick ({observed})))");
        }
        for ty in ty.results() {
            let call = format!("(call $tick (i32.const {k}))");
            let result = match ty {
                ValType::I32 => format!("(i32.wrap_i64 {call})"),
                ValType::I64 => call,
                ValType::F32 => format!("(f32.convert_i64_s {call})"),
                ValType::F64 => format!("(f64.convert_i64_s {call})"),
                ValType::V128 => format!("(i64x2.splat {call})"),
                ValType::Ref(r) => format!("({})", null(*r)?),
            };
            let _ = writeln!(self.text, "    {result}");
        }
        self.text.push_str("  )\n");
        Some(())
    }

    /// The finished provider. `None`: the text is no valid module, for example because of a limit of the text format.
    pub fn finish(mut self) -> Option<Provider> {
        self.text.push(')');
        let wasm = wat::parse_str(&self.text).ok()?;
        Some(Provider { name: self.name, text: self.text, wasm, exports: self.exports })
    }
}

fn value_type(ty: ValType) -> Option<&'static str> {
    Some(match ty {
        ValType::I32 => "i32",
        ValType::I64 => "i64",
        ValType::F32 => "f32",
        ValType::F64 => "f64",
        ValType::V128 => "v128",
        ValType::Ref(r) => reference(r)?,
    })
}

fn reference(ty: RefType) -> Option<&'static str> {
    match ty {
        RefType::FUNCREF => Some("funcref"),
        RefType::EXTERNREF => Some("externref"),
        _ => None,
    }
}

fn null(ty: RefType) -> Option<&'static str> {
    match ty.heap_type() {
        HeapType::FUNC if ty.is_nullable() => Some("ref.null func"),
        HeapType::EXTERN if ty.is_nullable() => Some("ref.null extern"),
        _ => None,
    }
}

/// A string literal of the text format. Every byte is escaped, so that any name will do.
fn quoted(name: &str) -> String {
    let mut out = String::from("\"");
    for b in name.bytes() {
        match b {
            b' ' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(b as char),
            b => {
                let _ = write!(out, "\\{b:02x}");
            }
        }
    }
    out.push('"');
    out
}
