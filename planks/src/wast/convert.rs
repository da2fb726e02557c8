//! From a script's text to its binary form: modules are assembled here, what is left needs no parser.

use conformance::script::value::{Argument, FloatPattern, NullPattern, Pattern, Single};
use conformance::script::{Action, Directive, Execute, Invoke, Module, Script};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wast::core::{AbstractHeapType, HeapType, NanPattern, V128Const, V128Pattern, WastArgCore, WastRetCore};
use wast::lexer::Lexer;
use wast::parser::{ParseBuffer, parse};
use wast::token::{Id, Span};
use wast::{QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet, Wat};

/// Why a text is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a readable script: {reason}")]
pub struct Unreadable {
    /// Line of the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// The script that a text says. `excluded` names the lines of assertions that may fail, with the reasons.
///
/// # Errors
/// The text cannot be read.
pub fn convert(name: &str, text: &str, excluded: &BTreeMap<usize, String>) -> Result<Script, Unreadable> {
    let unreadable = |e: &wast::Error| Unreadable { line: line(text, e.span()) as usize, reason: e.message() };
    let mut lexer = Lexer::new(text);
    lexer.allow_confusing_unicode(true);
    let buffer = ParseBuffer::new_with_lexer(lexer).map_err(|e| unreadable(&e))?;
    let parsed = parse::<Wast<'_>>(&buffer).map_err(|e| unreadable(&e))?;
    let mut converter = Converter { text, threads: Vec::new() };
    let directives = converter.directives(parsed.directives);
    let excluded = excluded.keys().map(|line| u32::try_from(*line).unwrap_or(u32::MAX)).collect();
    Ok(Script { name: name.into(), excluded, directives, threads: converter.threads })
}

fn line(text: &str, span: Span) -> u32 {
    u32::try_from(span.linecol_in(text).0 + 1).unwrap_or(u32::MAX)
}

fn name_of(id: Option<Id<'_>>) -> Option<String> {
    id.map(|id| id.name().into())
}

/// What a panic said.
pub fn panic_reason(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", said.unwrap_or("(no message)"))
}

struct Converter<'text> {
    text: &'text str,
    threads: Vec<Vec<Directive>>,
}

impl<'text> Converter<'text> {
    fn directives(&mut self, directives: Vec<WastDirective<'text>>) -> Vec<Directive> {
        directives.into_iter().map(|d| Directive { line: line(self.text, d.span()), action: self.action(d) }).collect()
    }

    fn action(&mut self, directive: WastDirective<'text>) -> Action {
        use WastDirective as D;
        match directive {
            D::Module(module) => Action::Module { id: name_of(module.name()), module: assemble(module) },
            D::ModuleDefinition(module) => Action::Definition { id: name_of(module.name()), module: assemble(module) },
            D::ModuleInstance { instance, module, .. } => {
                Action::Instance { id: name_of(instance), module: name_of(module) }
            }
            D::Register { name, module, .. } => Action::Register { name: name.into(), instance: name_of(module) },
            D::Invoke(call) => Action::Invoke(invoke(&call)),
            D::AssertReturn { exec, results, .. } => {
                Action::AssertReturn { execute: execute(exec), results: results.iter().map(pattern).collect() }
            }
            D::AssertTrap { exec, message, .. } => {
                Action::AssertTrap { execute: execute(exec), message: message.into() }
            }
            D::AssertExhaustion { call, .. } => Action::AssertExhaustion(invoke(&call)),
            D::AssertInvalid { module, message, .. }
            | D::AssertMalformed { module, message, .. }
            | D::AssertMalformedCustom { module, message, .. }
            | D::AssertInvalidCustom { module, message, .. } => {
                Action::AssertInvalid { module: assemble(module), message: message.into() }
            }
            D::AssertUnlinkable { module, message, .. } => {
                Action::AssertUnlinkable { module: assemble(QuoteWat::Wat(module)), message: message.into() }
            }
            D::AssertException { exec, .. } => Action::AssertException(execute(exec)),
            D::AssertSuspension { .. } => Action::AssertRefused("stack-switching".into()),
            D::Thread(thread) => {
                // Its place comes before those of the threads that it starts.
                let body = self.threads.len();
                self.threads.push(Vec::new());
                self.threads[body] = self.directives(thread.directives);
                let (name, body) = (thread.name.name().into(), u32::try_from(body).unwrap_or(u32::MAX));
                Action::Thread { name, shared: name_of(thread.shared_module), body }
            }
            D::Wait { thread, .. } => Action::Wait(thread.name().into()),
        }
    }
}

fn assemble(mut module: QuoteWat<'_>) -> Module {
    if matches!(module, QuoteWat::QuoteComponent(..) | QuoteWat::Wat(Wat::Component(_))) {
        return Module::Refused("component-model".into());
    }
    match catch_unwind(AssertUnwindSafe(|| module.encode())) {
        Ok(Ok(bytes)) => Module::Binary(bytes),
        Ok(Err(e)) => Module::Malformed(e.message()),
        Err(panic) => Module::Unusable(panic_reason(&*panic)),
    }
}

fn invoke(invoke: &WastInvoke<'_>) -> Invoke {
    Invoke {
        instance: name_of(invoke.module),
        name: invoke.name.into(),
        args: invoke.args.iter().map(argument).collect(),
    }
}

fn execute(exec: WastExecute<'_>) -> Execute {
    match exec {
        WastExecute::Invoke(call) => Execute::Invoke(invoke(&call)),
        WastExecute::Get { module, global, .. } => Execute::Get { instance: name_of(module), name: global.into() },
        WastExecute::Wat(module) => Execute::Instantiate(assemble(QuoteWat::Wat(module))),
    }
}

fn argument(arg: &WastArg<'_>) -> Argument {
    let core = match arg {
        WastArg::Core(core) => core,
        _ => return Argument::Refused("component-model".into()),
    };
    match core {
        WastArgCore::I32(v) => Argument::I32(*v),
        WastArgCore::I64(v) => Argument::I64(*v),
        WastArgCore::F32(v) => Argument::F32(v.bits),
        WastArgCore::F64(v) => Argument::F64(v.bits),
        WastArgCore::V128(v) => Argument::V128(vector(v)),
        WastArgCore::RefNull(heap) => match null(heap) {
            NullPattern::Any | NullPattern::Func => Argument::NullFunc,
            NullPattern::Extern => Argument::NullExtern,
            NullPattern::Refused(feature) => Argument::Refused(feature),
        },
        WastArgCore::RefExtern(n) => Argument::Host(*n),
        _ => Argument::Refused("gc".into()),
    }
}

fn vector(v: &V128Const) -> u128 {
    u128::from_le_bytes(v.to_le_bytes())
}

/// What kind of reference a heap type makes.
fn null(heap: &HeapType<'_>) -> NullPattern {
    match heap {
        HeapType::Concrete(_) => NullPattern::Func,
        HeapType::Abstract { ty, .. } => match ty {
            AbstractHeapType::Func | AbstractHeapType::NoFunc => NullPattern::Func,
            AbstractHeapType::Extern | AbstractHeapType::NoExtern => NullPattern::Extern,
            AbstractHeapType::Exn | AbstractHeapType::NoExn => NullPattern::Refused("exceptions".into()),
            _ => NullPattern::Refused("gc".into()),
        },
        _ => NullPattern::Refused("gc".into()),
    }
}

fn pattern(pattern: &WastRet<'_>) -> Pattern {
    match pattern {
        WastRet::Core(WastRetCore::Either(cases)) => {
            let mut singles = Vec::new();
            cases.iter().for_each(|case| flatten(case, &mut singles));
            Pattern::OneOf(singles)
        }
        WastRet::Core(core) => Pattern::One(single(core)),
        _ => Pattern::One(Single::Refused("component-model".into())),
    }
}

/// Alternatives of alternatives are alternatives.
fn flatten(case: &WastRetCore<'_>, singles: &mut Vec<Single>) {
    match case {
        WastRetCore::Either(cases) => cases.iter().for_each(|case| flatten(case, singles)),
        other => singles.push(single(other)),
    }
}

fn single(pattern: &WastRetCore<'_>) -> Single {
    match pattern {
        WastRetCore::I32(v) => Single::I32(*v),
        WastRetCore::I64(v) => Single::I64(*v),
        WastRetCore::F32(v) => Single::F32(float(v, |v| v.bits)),
        WastRetCore::F64(v) => Single::F64(float(v, |v| v.bits)),
        WastRetCore::V128(v) => match v {
            V128Pattern::I8x16(v) => Single::I8x16(*v),
            V128Pattern::I16x8(v) => Single::I16x8(*v),
            V128Pattern::I32x4(v) => Single::I32x4(*v),
            V128Pattern::I64x2(v) => Single::I64x2(*v),
            V128Pattern::F32x4(v) => Single::F32x4(v.each_ref().map(|v| float(v, |v| v.bits))),
            V128Pattern::F64x2(v) => Single::F64x2(v.each_ref().map(|v| float(v, |v| v.bits))),
        },
        WastRetCore::RefNull(None) => Single::Null(NullPattern::Any),
        WastRetCore::RefNull(Some(heap)) => Single::Null(null(heap)),
        WastRetCore::RefExtern(n) => Single::Host(*n),
        WastRetCore::RefFunc(_) => Single::Func,
        _ => Single::Refused("gc".into()),
    }
}

fn float<T, B>(pattern: &NanPattern<T>, bits: impl Fn(&T) -> B) -> FloatPattern<B> {
    match pattern {
        NanPattern::CanonicalNan => FloatPattern::Canonical,
        NanPattern::ArithmeticNan => FloatPattern::Arithmetic,
        NanPattern::Value(v) => FloatPattern::Bits(bits(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        convert("t.wast", text, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn threads_start_only_later_ones() {
        let s = script("(module) (thread $a (thread $b (wait $x)) (wait $b)) (thread $c (wait $y))");
        let bodies = |directives: &[Directive]| -> Vec<u32> {
            let body = |d: &Directive| if let Action::Thread { body, .. } = d.action { Some(body) } else { None };
            directives.iter().filter_map(body).collect()
        };
        assert_eq!((bodies(&s.directives), bodies(&s.threads[0]), s.threads.len()), (vec![0, 2], vec![1], 3));
    }

    #[test]
    fn alternatives_are_flat_and_floats_keep_their_bits() {
        let s = script(
            "(assert_return (invoke \"f\") (either (i32.const 1) (either (i32.const 2) (ref.extern 3))) (f32.const nan:0x200001))",
        );
        let Action::AssertReturn { results, .. } = &s.directives[0].action else { panic!("{s:?}") };
        let either = vec![Single::I32(1), Single::I32(2), Single::Host(Some(3))];
        let nan = Single::F32(FloatPattern::Bits(0x7fa0_0001));
        assert_eq!(results, &[Pattern::OneOf(either), Pattern::One(nan)]);
    }

    #[test]
    fn a_module_that_cannot_be_assembled_is_kept_with_the_reason() {
        let s = script("(assert_malformed (module quote \"(func\") \"x\")");
        assert!(matches!(&s.directives[0].action, Action::AssertInvalid { module: Module::Malformed(_), .. }), "{s:?}");
    }
}
