//! The WebAssembly level: what is accepted, and by which name the rest is refused (D14).

use crate::error::CompileError;
use alloc::string::ToString;
use wasmparser::{Validator, WasmFeatures};

/// Everything the validator lets pass. The only place that says so.
///
/// `GC` is among them for what it adds outside its own types: recursion groups of function types, references to earlier
/// globals in constant expressions, and the bottom types. Its types and instructions are refused by name where they are
/// met.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::THREADS)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::GC)
    .union(WasmFeatures::WIDE_ARITHMETIC)
    .union(WasmFeatures::CUSTOM_PAGE_SIZES);

/// Name of the proposal whose types and instructions are refused although the validator knows them.
pub(crate) const GC: &str = "gc";

/// Proposals that are refused, by name.
const REFUSED: [(WasmFeatures, &str); 9] = [
    (WasmFeatures::EXCEPTIONS, "exception-handling"),
    (WasmFeatures::LEGACY_EXCEPTIONS, "legacy-exceptions"),
    (WasmFeatures::STACK_SWITCHING, "stack-switching"),
    (WasmFeatures::SHARED_EVERYTHING_THREADS, "shared-everything-threads"),
    (WasmFeatures::MEMORY_CONTROL, "memory-control"),
    (WasmFeatures::CUSTOM_DESCRIPTORS, "custom-descriptors"),
    (WasmFeatures::COMPACT_IMPORTS, "compact-import-section"),
    (WasmFeatures::ACQUIRE_RELEASE_ATOMICS, "acquire-release-atomics"),
    (WasmFeatures::MULTIBYTE_ARRAY_ACCESS, "multibyte-array-access"),
];

/// Says why a module was refused: because of one proposal that it needs, or because it is not valid.
///
/// The module is validated again, once with every proposal and, if that helps, once per proposal: invalid modules are
/// rare, and their authors need the right reason.
#[cold]
pub(crate) fn diagnose(wasm: &[u8], error: &wasmparser::Error) -> CompileError {
    // In the words of a validator that knows no other module: they name types by the numbers it has given them.
    let again = Validator::new_with_features(FEATURES).validate_all(wasm).err();
    let words = again.as_ref().filter(|again| again.offset() == error.offset()).unwrap_or(error);
    let (offset, reason) = (error.offset(), words.message().to_string());
    match missing_feature(wasm, error) {
        Some(feature) => CompileError::UnsupportedFeature { feature, offset, reason },
        None => CompileError::Invalid { offset, reason },
    }
}

fn missing_feature(wasm: &[u8], error: &wasmparser::Error) -> Option<&'static str> {
    let validate = |extra: WasmFeatures| Validator::new_with_features(FEATURES.union(extra)).validate_all(wasm);
    if starts_with_component_header(wasm) {
        return Some("component-model");
    }
    let all = REFUSED.iter().fold(WasmFeatures::empty(), |all, (f, _)| all.union(*f));
    let hint = error.missing_wasm_feature().and_then(|f| REFUSED.iter().find(|(r, _)| r.intersects(f)));
    match validate(all) {
        Ok(_) => {}
        // Wrong in another place as well: the validator's own word for the first place has to do.
        Err(later) if later.offset() > error.offset() => return hint.map(|(_, name)| *name),
        Err(_) => return None,
    }
    let single = REFUSED.iter().find(|(f, _)| validate(*f).is_ok());
    single.or(hint).or(REFUSED.first()).map(|(_, name)| *name)
}

/// Version 13, layer 1 (component-model, Binary.md).
fn starts_with_component_header(wasm: &[u8]) -> bool {
    wasm.starts_with(b"\0asm\x0d\0\x01\0")
}
