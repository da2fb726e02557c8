//! Entropy to a case: a random module (wasm-smith) that terminates, with providers, calls and observations.

use super::case::{Call, Case, Observed, ObservedKind, SUBJECT};
use super::provider::Builder;
use super::transcript::{Kind, Value};
use arbitrary::{Result, Unstructured};
use wasm_cell::features::FEATURES;
use wasm_smith::{Config, Module};
use wasmparser::{ExternalKind, FuncType, FunctionBody, Operator, Payload, TypeRef, ValType, Validator};

/// Function entries, loop iterations and bulk-operation elements until the module traps.
const FUEL: u32 = 10_000;
/// Bytes of a memory, so that a comparison stays cheap.
const MEMORY_BYTES: u64 = 10 << 16;
/// Elements of a table.
const TABLE_ELEMENTS: u64 = 1_000;

/// Generates a case. `None`: no provider can satisfy the module's imports, or it needs a feature that is refused.
///
/// # Errors
/// The entropy is exhausted.
pub fn case(u: &mut Unstructured<'_>) -> Result<Option<Case>> {
    let config = config(u)?;
    let mut module = Module::new(config, u)?;
    if module.ensure_termination(FUEL).is_err() {
        return Ok(None);
    }
    from_module(module.to_bytes(), u)
}

/// The case of a given module; `u` supplies arguments.
///
/// # Errors
/// The entropy is exhausted.
pub fn from_module(module: Vec<u8>, u: &mut Unstructured<'_>) -> Result<Option<Case>> {
    let Some(shape) = Shape::of(&module) else { return Ok(None) };
    let mut builders: Vec<Builder> = Vec::new();
    for (cell, name, ty) in &shape.imports {
        let at = builders.iter().position(|b| b.name() == cell).unwrap_or_else(|| {
            builders.push(Builder::new(cell));
            builders.len() - 1
        });
        let func =
            if let TypeRef::Func(i) = ty { shape.func_types.get(*i as usize).and_then(Option::as_ref) } else { None };
        if builders[at].export(name, *ty, func).is_none() {
            return Ok(None);
        }
    }
    let Some(providers) = builders.into_iter().map(Builder::finish).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let mut calls = Vec::new();
    let mut observed = Vec::new();
    for (export, item) in &shape.exports {
        match item {
            Item::Func(ty) => calls.extend(call(u, export, ty)?),
            Item::Observed(kind) => {
                observed.push(Observed { cell: SUBJECT.into(), export: export.clone(), kind: *kind });
            }
        }
    }
    for p in &providers {
        for (export, ty) in &p.exports {
            let kind = match ty {
                TypeRef::Memory(_) => Some(ObservedKind::Memory),
                TypeRef::Table(_) => Some(ObservedKind::Table),
                TypeRef::Global(g) => kind(g.content_type).map(ObservedKind::Global),
                _ => None,
            };
            observed.extend(kind.map(|kind| Observed { cell: p.name.clone(), export: export.clone(), kind }));
        }
    }
    Ok(Some(Case { module, providers, calls, observed }))
}

fn config(u: &mut Unstructured<'_>) -> Result<Config> {
    let many = u.ratio(1, 4)?;
    Ok(Config {
        // What this system refuses.
        gc_enabled: false,
        exceptions_enabled: false,
        max_tags: 0,
        compact_imports_enabled: false,
        // Results may differ between correct engines.
        relaxed_simd_enabled: false,
        canonicalize_nans: true,
        // Everything else, in turns.
        threads_enabled: u.ratio(1, 4)?,
        wide_arithmetic_enabled: u.arbitrary()?,
        custom_page_sizes_enabled: u.arbitrary()?,
        simd_enabled: u.arbitrary()?,
        tail_call_enabled: u.arbitrary()?,
        memory64_enabled: u.arbitrary()?,
        disallow_traps: u.arbitrary()?,
        export_everything: u.arbitrary()?,
        max_memories: if u.arbitrary()? { 4 } else { 1 },
        max_tables: if u.arbitrary()? { 4 } else { 1 },
        // Growing must not depend on what an engine has left.
        memory_max_size_required: true,
        table_max_size_required: true,
        max_memory32_bytes: MEMORY_BYTES,
        max_memory64_bytes: u128::from(MEMORY_BYTES),
        max_table_elements: TABLE_ELEMENTS,
        min_funcs: 1,
        max_funcs: if many { 40 } else { 8 },
        max_imports: 10,
        max_types: 20,
        max_globals: 20,
        max_instructions: if many { 100 } else { 400 },
        ..Config::default()
    })
}

/// What the outside of a module looks like.
struct Shape {
    imports: Vec<(String, String, TypeRef)>,
    exports: Vec<(String, Item)>,
    /// By type index; `None` for types that are no functions.
    func_types: Vec<Option<FuncType>>,
}

enum Item {
    Func(FuncType),
    Observed(ObservedKind),
}

impl Shape {
    /// `None`: the module is not valid with the features of this system, or it would wait for ever.
    fn of(module: &[u8]) -> Option<Shape> {
        let types = Validator::new_with_features(FEATURES).validate_all(module).ok()?;
        let types = types.as_ref();
        let mut shape = Shape { imports: Vec::new(), exports: Vec::new(), func_types: Vec::new() };
        for i in 0..types.core_type_count_in_module() {
            let ty = types.get(types.core_type_at_in_module(i))?;
            shape.func_types.push(match &ty.composite_type.inner {
                wasmparser::CompositeInnerType::Func(f) => Some(f.clone()),
                _ => None,
            });
        }
        for payload in wasmparser::Parser::new(0).parse_all(module) {
            match payload.ok()? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.ok()?;
                        shape.imports.push((import.module.into(), import.name.into(), import.ty));
                    }
                }
                Payload::CodeSectionEntry(body) if waits(&body) => return None,
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.ok()?;
                        let item = match export.kind {
                            ExternalKind::Func | ExternalKind::FuncExact => {
                                let ty = types.get(types.core_function_at(export.index))?;
                                Item::Func(ty.composite_type.unwrap_func().clone())
                            }
                            ExternalKind::Memory => Item::Observed(ObservedKind::Memory),
                            ExternalKind::Table => Item::Observed(ObservedKind::Table),
                            ExternalKind::Global => {
                                let global = types.global_at(export.index).content_type;
                                Item::Observed(ObservedKind::Global(kind(global)?))
                            }
                            ExternalKind::Tag => return None,
                        };
                        shape.exports.push((export.name.into(), item));
                    }
                }
                _ => {}
            }
        }
        Some(shape)
    }
}

/// Whether the function has an instruction that waits for others: there are none.
fn waits(body: &FunctionBody<'_>) -> bool {
    let wait = |op| matches!(op, Ok(Operator::MemoryAtomicWait32 { .. } | Operator::MemoryAtomicWait64 { .. }));
    body.get_operators_reader().is_ok_and(|ops| ops.into_iter().any(wait))
}

/// A call with random arguments; `None` for a parameter that nothing here can supply.
fn call(u: &mut Unstructured<'_>, export: &str, ty: &FuncType) -> Result<Option<Call>> {
    let Some(results) = ty.results().iter().map(|t| kind(*t)).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let mut args = Vec::new();
    for ty in ty.params() {
        match argument(u, *ty)? {
            Some(value) => args.push(value),
            None => return Ok(None),
        }
    }
    Ok(Some(Call { export: export.into(), args, results }))
}

fn argument(u: &mut Unstructured<'_>, ty: ValType) -> Result<Option<Value>> {
    const EDGES: [i64; 10] = [0, 1, -1, 2, 31, 64, i32::MIN as i64, i32::MAX as i64, i64::MIN, i64::MAX];
    let bits = if u.arbitrary()? { *u.choose(&EDGES)? } else { u.arbitrary()? };
    // No argument is a NaN: those that pass through untouched are not canonical.
    let float = |bits: i64| if f64::from_bits(bits as u64).is_nan() { 0.5 } else { f64::from_bits(bits as u64) };
    Ok(Some(match ty {
        ValType::I32 => Value::I32(bits as i32),
        ValType::I64 => Value::I64(bits),
        ValType::F32 => Value::F32((float(bits) as f32).to_bits()),
        ValType::F64 => Value::F64(float(bits).to_bits()),
        ValType::V128 => Value::V128((bits as u64 as u128) * 0x1_0000_0000_0000_0001),
        ValType::Ref(r) if r.is_nullable() => match kind(ty) {
            Some(Kind::Func) => Value::Func { null: true },
            Some(Kind::Extern) => Value::Extern { null: true },
            _ => return Ok(None),
        },
        ValType::Ref(_) => return Ok(None),
    }))
}

fn kind(ty: ValType) -> Option<Kind> {
    use wasmparser::{AbstractHeapType as Abstract, HeapType};
    Some(match ty {
        ValType::I32 => Kind::I32,
        ValType::I64 => Kind::I64,
        ValType::F32 => Kind::F32,
        ValType::F64 => Kind::F64,
        ValType::V128 => Kind::V128,
        ValType::Ref(r) => match r.heap_type() {
            HeapType::Abstract { ty: Abstract::Func | Abstract::NoFunc, .. } | HeapType::Concrete(_) => Kind::Func,
            HeapType::Abstract { ty: Abstract::Extern | Abstract::NoExtern, .. } => Kind::Extern,
            _ => return None,
        },
    })
}
