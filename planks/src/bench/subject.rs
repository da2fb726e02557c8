//! This system, as the benchmarks use it.

use super::kernels::Runner;
use namespace_bridge::{
    CellModule, CrateNamespace, DefineError, FuncError, LoadError, LoadOptions, StrongCrateRef, Trap, UnloadError,
    catch_trap, reclaim,
};
use std::hint::black_box;
use std::sync::Arc;
use wasm_cell::types::{FuncType, ValType};
use wasm_cell::{CompileError, CompileOptions, Compiler};

/// Why this system refused to take part.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Func(#[from] FuncError),
    #[error(transparent)]
    Define(#[from] DefineError),
    #[error(transparent)]
    Unload(#[from] UnloadError),
    #[error("{0}")]
    Trap(Trap),
}

type Result<T> = std::result::Result<T, SubjectError>;

/// A namespace to measure in.
pub struct Subject(Arc<CrateNamespace>);

/// Does its operation `n` times.
type Batch = Box<dyn FnMut(u64)>;

impl Subject {
    pub fn new() -> Subject {
        Subject(CrateNamespace::new("bench", None))
    }

    fn load(&self, name: &str, wasm: &[u8]) -> Result<StrongCrateRef> {
        Ok(self.0.load_wasm(name, wasm, LoadOptions::default())?)
    }

    /// Bytes to callable, then unloaded, so that the next time compiles again.
    pub fn cold(&self, wasm: &[u8]) -> Result<()> {
        let cell = self.load("cold", wasm)?;
        black_box(cell.typed_func::<(i32, i32), i32>("add")?);
        drop(cell);
        Ok(self.0.unload("cold")?)
    }

    pub fn compile(&self, wasm: &[u8]) -> Result<Arc<CellModule>> {
        let cell = self.load("compiled", wasm)?;
        Ok(cell.module().expect("a wasm cell has a module").clone())
    }

    /// A compiler of the same settings that works on one thread.
    pub fn compiler_alone() -> Result<Compiler> {
        Ok(Compiler::new(*namespace_bridge::compiler()?.settings())?)
    }

    pub fn compile_only(wasm: &[u8]) -> Result<()> {
        Self::compile_with(namespace_bridge::compiler()?, wasm)
    }

    pub fn compile_with(compiler: &Compiler, wasm: &[u8]) -> Result<()> {
        black_box(compiler.compile(wasm, &CompileOptions::default())?);
        Ok(())
    }

    pub fn warm(&self, module: &Arc<CellModule>) -> Result<()> {
        black_box(self.0.load_module("warm", module, LoadOptions::default())?);
        Ok(self.0.unload("warm")?)
    }

    pub fn warm_and_written(&self, module: &Arc<CellModule>) -> Result<()> {
        let cell = self.0.load_module("warm", module, LoadOptions::default())?;
        let bump = cell.typed_func::<(i32,), i32>("bump")?;
        black_box(bump.call((1,)).map_err(SubjectError::Trap)?);
        drop(cell);
        Ok(self.0.unload("warm")?)
    }

    pub fn caller(&self, wasm: &[u8]) -> Result<Batch> {
        let add = self.load("caller", wasm)?.typed_func::<(i32, i32), i32>("add")?;
        let namespace = self.0.clone();
        Ok(Box::new(move |n| {
            for i in 0..n {
                if let Ok(sum) = add.call((i as i32, 1)) {
                    black_box(sum);
                }
            }
            let _ = &namespace;
        }))
    }

    /// A kernel's `run`; 0 if it traps.
    pub fn kernel(&self, wasm: &[u8]) -> Result<Runner> {
        let run = self.load("kernel", wasm)?.typed_func::<(i32,), i32>("run")?;
        let namespace = self.0.clone();
        Ok(Box::new(move |n| {
            let _ = &namespace;
            run.call((n.cast_signed(),)).map_or(0, i32::cast_unsigned)
        }))
    }

    /// A call of `add` that any task may make.
    pub fn adder(&self, wasm: &[u8]) -> Result<impl Fn(i32) -> Result<i32> + Sync + use<>> {
        let add = self.load("caller", wasm)?.typed_func::<(i32, i32), i32>("add")?;
        let namespace = self.0.clone();
        Ok(move |a| {
            let _ = &namespace;
            add.call((a, 1)).map_err(SubjectError::Trap)
        })
    }

    /// Calls a native function that the importer is bound to directly.
    pub fn native_caller(&self, wasm: &[u8], next: extern "C-unwind" fn(i64) -> i64) -> Result<Batch> {
        let ty = FuncType::new([ValType::I64], [ValType::I64]);
        // SAFETY: a function of this program with this signature.
        #[allow(unsafe_code)]
        unsafe { self.0.define_native("peer", "next", ty, next as usize) }?;
        self.repeater(wasm)
    }

    /// The bytes of a compiled module's object file.
    pub fn object(wasm: &[u8]) -> Result<Vec<u8>> {
        Ok(namespace_bridge::compiler()?.compile(wasm, &CompileOptions::default())?.to_elf()?)
    }

    /// From the bytes of an object file to callable, and unloaded.
    pub fn load_object(&self, elf: &[u8]) -> Result<()> {
        let cell = self.0.load_elf("object", elf, LoadOptions::default())?;
        black_box(cell.typed_func::<(i32,), i32>("run")?);
        drop(cell);
        Ok(self.0.unload("object")?)
    }

    /// Bytes of machine code of a module.
    pub fn text_size(wasm: &[u8]) -> Result<u64> {
        Ok(namespace_bridge::compiler()?.compile(wasm, &CompileOptions::default())?.text.len() as u64)
    }

    /// Unloads what [`Subject::instances`] has loaded.
    pub fn unload(&self, count: usize) -> Result<()> {
        (0..count).try_for_each(|i| self.0.unload(&format!("cell{i}")))?;
        reclaim();
        Ok(())
    }

    /// So many instances of a module, each a cell of its own.
    pub fn instances(&self, module: &Arc<CellModule>, count: usize) -> Result<Vec<StrongCrateRef>> {
        let load = |i| Ok(self.0.load_module(&format!("cell{i}"), module, LoadOptions::default())?);
        (0..count).map(load).collect()
    }

    pub fn host_caller(&self, wasm: &[u8]) -> Result<Batch> {
        self.0.define("peer", "next", |x: i64| x + 1)?;
        self.repeater(wasm)
    }

    pub fn peer_caller(&self, wasm: &[u8], peer: &[u8]) -> Result<Batch> {
        self.load("peer", peer)?;
        self.repeater(wasm)
    }

    fn repeater(&self, wasm: &[u8]) -> Result<Batch> {
        let repeat = self.load("caller", wasm)?.typed_func::<(i64,), i64>("repeat")?;
        let namespace = self.0.clone();
        Ok(Box::new(move |n| {
            let _ = (black_box(repeat.call((n as i64,))), &namespace);
        }))
    }

    pub fn trapper(&self, wasm: &[u8]) -> Result<Batch> {
        self.0.define("peer", "next", |x: i64| x + 1)?;
        let explicit = self.load("caller", wasm)?.typed_func::<(), ()>("explicit")?;
        let namespace = self.0.clone();
        Ok(Box::new(move |n| {
            for _ in 0..n {
                let _ = (black_box(explicit.call(())), &namespace);
            }
        }))
    }

    pub fn faulter(&self, wasm: &[u8]) -> Result<Batch> {
        self.0.define("peer", "next", |x: i64| x + 1)?;
        let fault = self.load("caller", wasm)?.typed_func::<(i32,), i32>("fault")?;
        let namespace = self.0.clone();
        Ok(Box::new(move |n| {
            for _ in 0..n {
                let _ = (black_box(fault.call((-1,))), &namespace);
            }
        }))
    }

    /// Traps explicitly with `depth` wasm frames above the one that traps.
    pub fn at_depth(&self, wasm: &[u8], depth: u32) -> Result<Batch> {
        let down = self.load("caller", wasm)?.typed_func::<(i32,), i32>("down")?;
        let namespace = self.0.clone();
        Ok(Box::new(move |n| {
            for _ in 0..n {
                let _ = (black_box(down.call((black_box(depth as i32),))), &namespace);
            }
        }))
    }

    /// Calls through a plain function pointer.
    pub fn plain_caller(&self, wasm: &[u8]) -> Result<Batch> {
        let (add, cell) = self.plain(wasm)?;
        Ok(Box::new(move |n| {
            let _ = &cell;
            for i in 0..n {
                black_box(add(i as i32, 1));
            }
        }))
    }

    /// The same, each call in a catch.
    pub fn catching_caller(&self, wasm: &[u8]) -> Result<Batch> {
        let (add, cell) = self.plain(wasm)?;
        Ok(Box::new(move |n| {
            let _ = &cell;
            for i in 0..n {
                if let Ok(sum) = catch_trap(|| add(i as i32, 1)) {
                    black_box(sum);
                }
            }
        }))
    }

    #[allow(unsafe_code)]
    fn plain(&self, wasm: &[u8]) -> Result<(AddFn, (StrongCrateRef, Arc<CrateNamespace>))> {
        let cell = self.load("caller", wasm)?;
        // SAFETY: the function has this signature, and the caller keeps the cell as long as the pointer.
        let add = unsafe { cell.func("add")?.entry::<AddFn>() }.expect("all its arguments are in registers");
        // The first call of a task prepares its stack.
        let _ = cell.typed_func::<(i32, i32), i32>("add")?.call((1, 2));
        Ok((add, (cell, self.0.clone())))
    }
}

/// `add` of the benchmarks' modules.
pub(super) type AddFn = extern "C-unwind" fn(i32, i32) -> i32;
