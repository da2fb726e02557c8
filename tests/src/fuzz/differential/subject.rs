//! The subject: a case run in this system.

use super::case::{Call, Case, Observed, ObservedKind, SUBJECT};
use super::provider::{HOST, tick};
use super::transcript::{Step, Stop, Transcript, Value};
use namespace_bridge::{CallError, CrateNamespace, LoadError, LoadOptions, SectionItem, StrongCrateRef, Val};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Runs a case.
pub fn run(case: &Case) -> Transcript {
    let mut run =
        Run { namespace: CrateNamespace::new("fuzz", None), host: Arc::default(), out: Transcript::default() };
    let state = run.host.clone();
    let host = move |argument: i32| -> i64 {
        let next = tick(state.load(Relaxed), argument);
        state.store(next, Relaxed);
        next as i64
    };
    run.namespace.define(HOST, "tick", host).expect("the namespace is empty");
    run.case(case);
    run.out
}

struct Run {
    namespace: Arc<CrateNamespace>,
    host: Arc<AtomicU64>,
    out: Transcript,
}

impl Run {
    fn case(&mut self, case: &Case) {
        for p in &case.providers {
            if self.load(&p.name, &p.wasm).is_none() {
                return;
            }
        }
        if let Some(cell) = self.load(SUBJECT, &case.module) {
            for call in &case.calls {
                self.out.push(format!("call of {:?}", call.export), Step::Call(perform(&cell, call)));
                let host = Step::Host(self.host.load(Relaxed));
                self.out.push(format!("host after call of {:?}", call.export), host);
            }
        }
        for o in &case.observed {
            let Some(section) = self.namespace.find_export(&o.cell, &o.export) else { continue };
            self.out.push(format!("{:?} of {:?}", o.export, o.cell), observe(&section.item, o));
        }
    }

    fn load(&mut self, name: &str, wasm: &[u8]) -> Option<StrongCrateRef> {
        let result = self.namespace.load_wasm(name, wasm, LoadOptions::default()).map_err(|e| match e {
            LoadError::Trap { trap, .. } => Stop::Trap(trap.code()),
            LoadError::TypeCollision(collision) => Stop::Inconclusive(collision.to_string()),
            other => Stop::Refused(other.to_string()),
        });
        self.out.push(format!("load of {name:?}"), Step::Load(result.as_ref().map(|_| ()).map_err(Clone::clone)));
        result.ok()
    }
}

fn perform(cell: &StrongCrateRef, call: &Call) -> Result<Vec<Value>, Stop> {
    let func = cell.func(&call.export).map_err(|e| Stop::Refused(e.to_string()))?;
    let args: Vec<Val> = call.args.iter().map(to_planks).collect();
    let mut results = vec![Val::I32(0); call.results.len()];
    func.call(&args, &mut results).map_err(|e| match e {
        CallError::Trap(trap) => Stop::Trap(trap.code()),
        other => Stop::Refused(other.to_string()),
    })?;
    Ok(results.iter().map(from_planks).collect())
}

fn observe(item: &SectionItem, o: &Observed) -> Step {
    match (item, o.kind) {
        (SectionItem::Memory(m), ObservedKind::Memory) => {
            let mut bytes = vec![0; m.bytes() as usize];
            m.read(0, &mut bytes).expect("within its own size");
            Step::Memory(bytes)
        }
        (SectionItem::Table(t), ObservedKind::Table) => {
            Step::Table((0..t.len()).map(|i| t.get(i).expect("within its own length") == 0).collect())
        }
        (SectionItem::Global(g), ObservedKind::Global(_)) => Step::Global(from_planks(&g.value())),
        (item, kind) => panic!("{:?} of {:?} should be {kind:?}, but is {:?}", o.export, o.cell, item.ty()),
    }
}

fn to_planks(value: &Value) -> Val {
    match *value {
        Value::I32(v) => Val::I32(v),
        Value::I64(v) => Val::I64(v),
        Value::F32(v) => Val::F32(v),
        Value::F64(v) => Val::F64(v),
        Value::V128(v) => Val::V128(v),
        // Only null references are made up.
        Value::Func { .. } => Val::FuncRef(None),
        Value::Extern { .. } => Val::ExternRef(None),
    }
}

fn from_planks(value: &Val) -> Value {
    match *value {
        Val::I32(v) => Value::I32(v),
        Val::I64(v) => Value::I64(v),
        Val::F32(v) => Value::F32(v),
        Val::F64(v) => Value::F64(v),
        Val::V128(v) => Value::V128(v),
        Val::FuncRef(f) => Value::Func { null: f.is_none() },
        Val::ExternRef(e) => Value::Extern { null: e.is_none() },
    }
}
