//! The oracle: a case run in wasmtime.

use super::case::{Call, Case, ObservedKind, SUBJECT};
use super::provider::{HOST, tick};
use super::transcript::{Step, Stop, Transcript, Value};
use std::sync::OnceLock;
use wasm_cell::trap::TrapCode;
use wasmtime::{Caller, Config, Engine, Extern, Func, Instance, Linker, Module, Ref, Store, Trap, V128, Val};

/// Bytes of stack for wasm; generated modules that recurse until their fuel is spent fit in it.
const STACK: usize = 1 << 20;

/// Runs a case.
pub fn run(case: &Case) -> Transcript {
    let mut run = Run { store: Store::new(engine(), 0), linker: Linker::new(engine()), out: Transcript::default() };
    let host = Func::wrap(&mut run.store, |mut caller: Caller<'_, u64>, argument: i32| -> i64 {
        *caller.data_mut() = tick(*caller.data(), argument);
        *caller.data() as i64
    });
    run.linker.allow_shadowing(true);
    run.linker.define(&run.store, HOST, "tick", host).expect("the linker is empty");
    run.case(case);
    run.out
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config::new();
        config
            .wasm_tail_call(true)
            .wasm_multi_memory(true)
            .wasm_memory64(true)
            .wasm_function_references(true)
            .wasm_extended_const(true)
            .wasm_wide_arithmetic(true)
            .wasm_custom_page_sizes(true)
            .wasm_relaxed_simd(true)
            .wasm_threads(true)
            .shared_memory(true)
            .wasm_gc(false)
            .wasm_exceptions(false)
            .max_wasm_stack(STACK);
        Engine::new(&config).expect("these features go together")
    })
}

struct Run {
    store: Store<u64>,
    linker: Linker<u64>,
    out: Transcript,
}

impl Run {
    fn case(&mut self, case: &Case) {
        for p in &case.providers {
            if self.load(&p.name, &p.wasm).is_none() {
                return;
            }
        }
        // When the module under test fails, its providers are still observed: a start function may have changed them.
        if self.load(SUBJECT, &case.module).is_some() {
            for call in &case.calls {
                let step = Step::Call(self.call(call));
                self.out.push(format!("call of {:?}", call.export), step);
                let host = Step::Host(*self.store.data());
                self.out.push(format!("host after call of {:?}", call.export), host);
            }
        }
        for o in &case.observed {
            let Some(item) = self.linker.get(&mut self.store, &o.cell, &o.export).ok() else { continue };
            let step = self.observe(item, o.kind);
            self.out.push(format!("{:?} of {:?}", o.export, o.cell), step);
        }
    }

    fn load(&mut self, name: &str, wasm: &[u8]) -> Option<()> {
        let result = match Module::new(engine(), wasm) {
            Ok(module) => self.linker.instantiate(&mut self.store, &module).map_err(stop),
            Err(e) => Err(Stop::Refused(format!("{e:#}"))),
        };
        self.out.push(
            format!("load of {name:?}"),
            Step::Load(result.as_ref().map(|_: &Instance| ()).map_err(Clone::clone)),
        );
        let instance = result.ok()?;
        self.linker.instance(&mut self.store, name, instance).expect("shadowing is allowed");
        Some(())
    }

    fn call(&mut self, call: &Call) -> Result<Vec<Value>, Stop> {
        let item = self.linker.get(&mut self.store, SUBJECT, &call.export).ok();
        let func = item.and_then(Extern::into_func).expect("the module was validated and has this export");
        let args: Vec<Val> = call.args.iter().map(to_wasmtime).collect();
        let mut results = vec![Val::I32(0); call.results.len()];
        func.call(&mut self.store, &args, &mut results).map_err(stop)?;
        Ok(results.iter().map(from_wasmtime).collect())
    }

    fn observe(&mut self, item: Extern, kind: ObservedKind) -> Step {
        match (item, kind) {
            (Extern::Memory(m), ObservedKind::Memory) => Step::Memory(m.data(&self.store).to_vec()),
            (Extern::SharedMemory(m), ObservedKind::Memory) => {
                // SAFETY: no task runs code that could write it now.
                Step::Memory(m.data().iter().map(|byte| unsafe { *byte.get() }).collect())
            }
            (Extern::Table(t), ObservedKind::Table) => {
                let len = t.size(&self.store);
                let null = |i| match t.get(&mut self.store, i) {
                    Some(Ref::Func(f)) => f.is_none(),
                    Some(Ref::Extern(e)) => e.is_none(),
                    other => unreachable!("an element within bounds, of a type that was enabled: {other:?}"),
                };
                Step::Table((0..len).map(null).collect())
            }
            (Extern::Global(g), ObservedKind::Global(_)) => Step::Global(from_wasmtime(&g.get(&mut self.store))),
            (item, kind) => unreachable!("the validator says {kind:?}, wasmtime {item:?}"),
        }
    }
}

fn to_wasmtime(value: &Value) -> Val {
    match *value {
        Value::I32(v) => Val::I32(v),
        Value::I64(v) => Val::I64(v),
        Value::F32(v) => Val::F32(v),
        Value::F64(v) => Val::F64(v),
        Value::V128(v) => Val::V128(V128::from(v)),
        // Only null references are made up.
        Value::Func { .. } => Val::FuncRef(None),
        Value::Extern { .. } => Val::ExternRef(None),
    }
}

fn from_wasmtime(value: &Val) -> Value {
    match value {
        Val::I32(v) => Value::I32(*v),
        Val::I64(v) => Value::I64(*v),
        Val::F32(v) => Value::F32(*v),
        Val::F64(v) => Value::F64(*v),
        Val::V128(v) => Value::V128(v.as_u128()),
        Val::FuncRef(f) => Value::Func { null: f.is_none() },
        Val::ExternRef(e) => Value::Extern { null: e.is_none() },
        other => unreachable!("a value of a type that was not enabled: {other:?}"),
    }
}

fn stop(error: wasmtime::Error) -> Stop {
    match error.downcast_ref::<Trap>() {
        Some(trap) => Stop::Trap(code(*trap)),
        None => Stop::Refused(format!("{error:#}")),
    }
}

fn code(trap: Trap) -> TrapCode {
    match trap {
        Trap::StackOverflow => TrapCode::StackOverflow,
        Trap::MemoryOutOfBounds => TrapCode::MemoryOutOfBounds,
        Trap::HeapMisaligned => TrapCode::MisalignedAtomic,
        Trap::TableOutOfBounds => TrapCode::TableOutOfBounds,
        Trap::IndirectCallToNull => TrapCode::IndirectCallToNull,
        Trap::BadSignature => TrapCode::BadSignature,
        Trap::IntegerOverflow => TrapCode::IntegerOverflow,
        Trap::IntegerDivisionByZero => TrapCode::IntegerDivisionByZero,
        Trap::BadConversionToInteger => TrapCode::BadConversionToInteger,
        Trap::UnreachableCodeReached => TrapCode::Unreachable,
        Trap::NullReference => TrapCode::NullReference,
        Trap::AtomicWaitNonSharedMemory => TrapCode::ExpectedSharedMemory,
        other => unreachable!("no module here can cause this trap: {other}"),
    }
}
