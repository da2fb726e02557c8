//! Wasmtime, in the settings that suit each row best.

use super::kernels::Runner;
use std::hint::black_box;
use std::path::Path;
use wasmtime::{
    Config, Engine, Func, Instance, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig,
    Store,
};

/// Why wasmtime refused to take part.
pub type RivalError = wasmtime::Error;

type Result<T> = std::result::Result<T, RivalError>;

/// An engine.
pub struct Rival(Engine);

/// Does its operation `n` times.
type Batch = Box<dyn FnMut(u64)>;

impl Rival {
    /// As it comes: optimised code, guard pages, copy-on-write memory images, compilation on all processors.
    pub fn new() -> Result<Rival> {
        Self::with(|_| {})
    }

    /// Compiles on one thread, which is faster for small modules.
    pub fn one_thread() -> Result<Rival> {
        Self::with(|c| {
            c.parallel_compilation(false);
        })
    }

    /// Keeps memories, tables and instances in pools.
    pub fn pooling() -> Result<Rival> {
        Self::with(|c| {
            let mut pool = PoolingAllocationConfig::default();
            // What instances wrote is cleared by hand up to this size instead of by a system call.
            pool.linear_memory_keep_resident(1 << 16).table_keep_resident(1 << 16).total_memories(100);
            c.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        })
    }

    pub fn without_backtraces() -> Result<Rival> {
        Self::with(|c| {
            c.wasm_backtrace_max_frames(None);
        })
    }

    /// Explicit checks instead of faults, and no backtraces.
    pub fn without_signals() -> Result<Rival> {
        Self::with(|c| {
            c.signals_based_traps(false).wasm_backtrace_max_frames(None);
        })
    }

    fn with(change: impl FnOnce(&mut Config)) -> Result<Rival> {
        let mut config = Config::new();
        config.wasm_tail_call(true).wasm_multi_memory(true).wasm_memory64(true);
        change(&mut config);
        Ok(Rival(Engine::new(&config)?))
    }

    pub fn cold(&self, wasm: &[u8]) -> Result<()> {
        let module = Module::new(&self.0, wasm)?;
        let mut store = Store::new(&self.0, ());
        let instance = Instance::new(&mut store, &module, &[])?;
        black_box(instance.get_typed_func::<(i32, i32), i32>(&mut store, "add")?);
        Ok(())
    }

    /// The bytes of a compiled module.
    pub fn object(&self, wasm: &[u8]) -> Result<Vec<u8>> {
        Module::new(&self.0, wasm)?.serialize()
    }

    /// From a file with those bytes to callable.
    pub fn load_object(&self, file: &Path) -> Result<()> {
        // SAFETY: the file is what this program's wasmtime has written.
        #[allow(unsafe_code)]
        let module = unsafe { Module::deserialize_file(&self.0, file) }?;
        let mut store = Store::new(&self.0, ());
        let instance = Instance::new(&mut store, &module, &[])?;
        black_box(instance.get_typed_func::<i32, i32>(&mut store, "run")?);
        Ok(())
    }

    /// Bytes of machine code of a module.
    pub fn text_size(&self, wasm: &[u8]) -> Result<u64> {
        Ok(Module::new(&self.0, wasm)?.text().len() as u64)
    }

    /// So many instances of a module, each in a store of its own.
    pub fn instances(&self, prepared: &InstancePre<()>, count: usize) -> Result<Vec<(Store<()>, Instance)>> {
        let instance = |_| {
            let mut store = Store::new(&self.0, ());
            let instance = prepared.instantiate(&mut store)?;
            Ok((store, instance))
        };
        (0..count).map(instance).collect()
    }

    pub fn compile_only(&self, wasm: &[u8]) -> Result<()> {
        black_box(Module::new(&self.0, wasm)?);
        Ok(())
    }

    /// Compiled, with everything done that can be done before an instance is made.
    pub fn prepare(&self, wasm: &[u8]) -> Result<InstancePre<()>> {
        Linker::new(&self.0).instantiate_pre(&Module::new(&self.0, wasm)?)
    }

    pub fn warm(&self, prepared: &InstancePre<()>) -> Result<()> {
        let mut store = Store::new(&self.0, ());
        black_box(prepared.instantiate(&mut store)?);
        Ok(())
    }

    pub fn warm_and_written(&self, prepared: &InstancePre<()>) -> Result<()> {
        let mut store = Store::new(&self.0, ());
        let instance = prepared.instantiate(&mut store)?;
        let bump = instance.get_typed_func::<(i32,), i32>(&mut store, "bump")?;
        black_box(bump.call(&mut store, (1,))?);
        Ok(())
    }

    pub fn caller(&self, wasm: &[u8]) -> Result<Batch> {
        let mut store = Store::new(&self.0, ());
        let instance = Instance::new(&mut store, &Module::new(&self.0, wasm)?, &[])?;
        let add = instance.get_typed_func::<(i32, i32), i32>(&mut store, "add")?;
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
        let mut store = Store::new(&self.0, ());
        let instance = Instance::new(&mut store, &Module::new(&self.0, wasm)?, &[])?;
        let run = instance.get_typed_func::<i32, i32>(&mut store, "run")?;
        Ok(Box::new(move |n| run.call(&mut store, n.cast_signed()).map_or(0, i32::cast_unsigned)))
    }

    /// An instance of the module whose import is a closure.
    fn with_host(&self, wasm: &[u8]) -> Result<(Store<()>, Instance)> {
        let mut store = Store::new(&self.0, ());
        let next = Func::wrap(&mut store, |x: i64| x + 1);
        let instance = Instance::new(&mut store, &Module::new(&self.0, wasm)?, &[next.into()])?;
        Ok((store, instance))
    }

    pub fn host_caller(&self, wasm: &[u8]) -> Result<Batch> {
        let (store, instance) = self.with_host(wasm)?;
        Self::repeater(store, instance)
    }

    pub fn peer_caller(&self, wasm: &[u8], peer: &[u8]) -> Result<Batch> {
        let mut store = Store::new(&self.0, ());
        let peer = Instance::new(&mut store, &Module::new(&self.0, peer)?, &[])?;
        let next = peer.get_typed_func::<i64, i64>(&mut store, "next")?;
        let instance = Instance::new(&mut store, &Module::new(&self.0, wasm)?, &[(*next.func()).into()])?;
        Self::repeater(store, instance)
    }

    fn repeater(mut store: Store<()>, instance: Instance) -> Result<Batch> {
        let repeat = instance.get_typed_func::<i64, i64>(&mut store, "repeat")?;
        Ok(Box::new(move |n| {
            let _ = black_box(repeat.call(&mut store, n as i64));
        }))
    }

    pub fn trapper(&self, wasm: &[u8]) -> Result<Batch> {
        let (mut store, instance) = self.with_host(wasm)?;
        let explicit = instance.get_typed_func::<(), ()>(&mut store, "explicit")?;
        Ok(Box::new(move |n| {
            for _ in 0..n {
                let _ = black_box(explicit.call(&mut store, ()));
            }
        }))
    }

    pub fn faulter(&self, wasm: &[u8]) -> Result<Batch> {
        let (mut store, instance) = self.with_host(wasm)?;
        let fault = instance.get_typed_func::<i32, i32>(&mut store, "fault")?;
        Ok(Box::new(move |n| {
            for _ in 0..n {
                let _ = black_box(fault.call(&mut store, -1));
            }
        }))
    }

    pub fn at_depth(&self, wasm: &[u8], depth: u32) -> Result<Batch> {
        let mut store = Store::new(&self.0, ());
        let instance = Instance::new(&mut store, &Module::new(&self.0, wasm)?, &[])?;
        let down = instance.get_typed_func::<i32, i32>(&mut store, "down")?;
        Ok(Box::new(move |n| {
            for _ in 0..n {
                let _ = black_box(down.call(&mut store, black_box(depth as i32)));
            }
        }))
    }

    pub fn faulter_alone(&self, wasm: &[u8]) -> Result<Batch> {
        let mut store = Store::new(&self.0, ());
        let instance = Instance::new(&mut store, &Module::new(&self.0, wasm)?, &[])?;
        let fault = instance.get_typed_func::<i32, i32>(&mut store, "fault")?;
        Ok(Box::new(move |n| {
            for _ in 0..n {
                let _ = black_box(fault.call(&mut store, -1));
            }
        }))
    }
}
