//! What a script acts on: a namespace with the cell `spectest`, modules, instances.

use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use namespace_bridge::val::Val;
use namespace_bridge::{
    CallError, CellModule, CrateNamespace, ImportProblem, LoadError, LoadOptions, SectionItem, StrongCrateRef, Trap,
};
use spin::Once;
use wasm_cell::CompileError;
use wasm_cell::trap::TrapCode;

/// Why a module was not instantiated.
#[derive(Debug)]
pub enum Refusal {
    /// It is malformed, invalid, or beyond a limit.
    Invalid(String),
    /// It needs a feature of this name.
    Feature(String),
    /// Its imports cannot be linked.
    Unlinkable {
        /// Modules of imports that are not there at all.
        missing: Vec<String>,
        /// The words.
        text: String,
    },
    /// It trapped during instantiation.
    Trapped(Failed),
    /// Something else.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Invalid(text) | Refusal::Unlinkable { text, .. } | Refusal::Other(text) => f.write_str(text),
            Refusal::Feature(feature) => write!(f, "it needs the feature {feature}"),
            Refusal::Trapped(failed) => write!(f, "instantiation: {failed}"),
        }
    }
}

/// Why a call did not return.
#[derive(Debug)]
pub enum Failed {
    /// A trap.
    Trap {
        /// Why.
        code: TrapCode,
        /// The words, with the place.
        text: String,
    },
    /// The script asks for something that is not there or does not fit.
    Misuse(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Trap { text, .. } => write!(f, "but it trapped: {text}"),
            Failed::Misuse(text) => write!(f, "but: {text}"),
        }
    }
}

impl From<&Trap> for Failed {
    fn from(trap: &Trap) -> Failed {
        Failed::Trap { code: trap.code(), text: trap.to_string() }
    }
}

/// A compiled module.
pub type Module = Arc<CellModule>;

/// An instance of a module.
#[derive(Clone)]
pub struct Instance(StrongCrateRef);

/// A namespace for one script.
pub struct World {
    namespace: Arc<CrateNamespace>,
    instances: AtomicUsize,
}

/// The module `spectest`, compiled once.
fn spectest() -> Result<Module, String> {
    static MODULE: Once<Result<Module, String>> = Once::new();
    let wasm = include_bytes!(concat!(env!("OUT_DIR"), "/spectest.wasm"));
    MODULE.call_once(|| compile(wasm).map_err(|r| r.to_string())).clone()
}

fn compile(wasm: &[u8]) -> Result<Module, Refusal> {
    let refusal = |e: CompileError| match e {
        CompileError::UnsupportedFeature { feature, .. } => Refusal::Feature(feature.to_string()),
        CompileError::Invalid { .. } | CompileError::Limit { .. } => Refusal::Invalid(e.to_string()),
        other => Refusal::Other(other.to_string()),
    };
    namespace_bridge::compile_module("script", wasm, &LoadOptions::default()).map_err(|e| match e {
        LoadError::Compile { source, .. } => refusal(source),
        other => Refusal::Other(other.to_string()),
    })
}

impl World {
    /// A namespace with `spectest` in it.
    pub fn new() -> Result<World, String> {
        let namespace = CrateNamespace::new("script", None);
        namespace.load_module("spectest", &spectest()?, LoadOptions::default()).map_err(|e| e.to_string())?;
        Ok(World { namespace, instances: AtomicUsize::new(0) })
    }

    /// Compiles a module.
    pub fn compile(&self, wasm: &[u8]) -> Result<Module, Refusal> {
        compile(wasm)
    }

    /// Instantiates a module as a cell with a name of its own, which no import uses.
    pub fn instantiate(&self, module: &Module) -> Result<Instance, Refusal> {
        let name = format!("instance {}", self.instances.fetch_add(1, Ordering::Relaxed));
        match self.namespace.load_module(&name, module, LoadOptions::default()) {
            Ok(cell) => Ok(Instance(cell)),
            Err(LoadError::Trap { trap, .. }) => Err(Refusal::Trapped(Failed::from(&trap))),
            Err(LoadError::Link(e)) => {
                let missing = e.problems.iter().filter_map(|p| match p {
                    ImportProblem::Missing { module, .. } => Some(module.clone()),
                    _ => None,
                });
                Err(Refusal::Unlinkable { missing: missing.collect(), text: e.to_string() })
            }
            Err(other) => Err(Refusal::Other(other.to_string())),
        }
    }

    /// Lets modules import from an instance by a name.
    pub fn register(&self, name: &str, instance: &Instance) -> Result<(), String> {
        self.namespace.add_alias(name, &instance.0).map_err(|e| e.to_string())
    }
}

impl Instance {
    /// Calls an export.
    pub fn call(&self, name: &str, args: &[Val]) -> Result<Vec<Val>, Failed> {
        let func = self.0.func(name).map_err(|e| Failed::Misuse(e.to_string()))?;
        let mut results: Vec<Val> = func.ty().results.iter().map(Val::default_for).collect();
        match func.call(args, &mut results) {
            Ok(()) => Ok(results),
            Err(CallError::Trap(trap)) => Err(Failed::from(&trap)),
            Err(other) => Err(Failed::Misuse(other.to_string())),
        }
    }

    /// The value of an exported global.
    pub fn global(&self, name: &str) -> Result<Val, Failed> {
        let section = self.0.export(name).ok_or_else(|| Failed::Misuse(format!("no export `{name}`")))?;
        match &section.item {
            SectionItem::Global(global) => Ok(global.value()),
            _ => Err(Failed::Misuse(format!("`{name}` is no global"))),
        }
    }
}
