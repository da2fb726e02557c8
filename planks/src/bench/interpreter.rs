//! Wasmi: how an interpreter does, which needs neither a compiler nor executable pages.

use super::kernels::Runner;
use std::hint::black_box;
use wasmi::{CompilationMode, Config, Engine, Error, Func, Instance, Module, Store};

type Result<T> = std::result::Result<T, Error>;

/// Does its operation `n` times.
type Batch = Box<dyn FnMut(u64)>;

/// An engine.
pub struct Interpreter(Engine);

/// Calls in each other that a kernel may make.
const DEPTH: usize = 100_000;

impl Interpreter {
    /// As it comes: functions are translated when they are called first.
    pub fn new() -> Interpreter {
        Self::with(CompilationMode::LazyTranslation)
    }

    /// Translates every function at once, as compilers do.
    pub fn eager() -> Interpreter {
        Self::with(CompilationMode::Eager)
    }

    fn with(mode: CompilationMode) -> Interpreter {
        let mut config = Config::default();
        config.set_max_recursion_depth(DEPTH).compilation_mode(mode);
        Interpreter(Engine::new(&config))
    }

    fn instance(&self, wasm: &[u8]) -> Result<(Store<()>, Instance)> {
        let module = self.module(wasm)?;
        let mut store = Store::new(&self.0, ());
        let instance = Instance::new(&mut store, &module, &[])?;
        Ok((store, instance))
    }

    /// A module that was read and, if that was asked for, translated.
    pub fn module(&self, wasm: &[u8]) -> Result<Module> {
        Module::new(&self.0, wasm)
    }

    pub fn compile_only(&self, wasm: &[u8]) -> Result<()> {
        black_box(self.module(wasm)?);
        Ok(())
    }

    pub fn cold(&self, wasm: &[u8]) -> Result<()> {
        let (store, instance) = self.instance(wasm)?;
        black_box(instance.get_typed_func::<(i32, i32), i32>(&store, "add")?);
        Ok(())
    }

    /// So many instances of a module, each in a store of its own.
    pub fn instances(&self, module: &Module, count: usize) -> Result<Vec<(Store<()>, Instance)>> {
        let instance = |_| {
            let mut store = Store::new(&self.0, ());
            let instance = Instance::new(&mut store, module, &[])?;
            Ok((store, instance))
        };
        (0..count).map(instance).collect()
    }

    pub fn caller(&self, wasm: &[u8]) -> Result<Batch> {
        let (mut store, instance) = self.instance(wasm)?;
        let add = instance.get_typed_func::<(i32, i32), i32>(&store, "add")?;
        Ok(Box::new(move |n| {
            for i in 0..n {
                if let Ok(sum) = add.call(&mut store, (i as i32, 1)) {
                    black_box(sum);
                }
            }
        }))
    }

    /// A kernel's `run`; 0 if it traps.
    pub fn kernel(&self, wasm: &[u8]) -> Result<Runner> {
        let (mut store, instance) = self.instance(wasm)?;
        let run = instance.get_typed_func::<i32, i32>(&store, "run")?;
        Ok(Box::new(move |n| run.call(&mut store, n.cast_signed()).map_or(0, i32::cast_unsigned)))
    }

    pub fn host_caller(&self, wasm: &[u8]) -> Result<Batch> {
        let mut store = Store::new(&self.0, ());
        let next = Func::wrap(&mut store, |x: i64| x + 1);
        self.repeater(store, wasm, next)
    }

    pub fn peer_caller(&self, wasm: &[u8], peer: &[u8]) -> Result<Batch> {
        let mut store = Store::new(&self.0, ());
        let peer = Instance::new(&mut store, &self.module(peer)?, &[])?;
        let next = *peer.get_typed_func::<i64, i64>(&store, "next")?.func();
        self.repeater(store, wasm, next)
    }

    fn repeater(&self, mut store: Store<()>, wasm: &[u8], next: Func) -> Result<Batch> {
        let instance = Instance::new(&mut store, &self.module(wasm)?, &[next.into()])?;
        let repeat = instance.get_typed_func::<i64, i64>(&store, "repeat")?;
        Ok(Box::new(move |n| {
            let _ = black_box(repeat.call(&mut store, n as i64));
        }))
    }
}
