//! What is to be swapped, and how.
#![deny(unsafe_code)]

use super::step::SwapStep;
use super::transfer::TransferContext;
use crate::code::CellModule;
use crate::namespace::CellSource;
use crate::options::LoadOptions;
use crate::trap::HostError;
use alloc::{sync::Arc, vec::Vec};
use core::fmt;
use core::time::Duration;

/// What becomes of the state of the old version.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum StatePlan {
    /// The new version starts with its own: active segments are applied, the start function runs.
    #[default]
    Fresh,
    /// The new version takes over memories, tables and the values of mutable globals. Nothing is copied, nothing applied, no start function
    /// runs. Refused, with the list of differences, unless all that the old data depend on is the same in both versions; a new version that exports
    /// `plank_adopt` sees to that itself (docs/SWAPPING.md).
    Adopt,
    /// The old version's `plank_save` gives bytes, the new one's `plank_restore` takes them (docs/SWAPPING.md). The new version has started
    /// before, as with [`Fresh`](StatePlan::Fresh).
    Export,
    /// This function does it. The new version has started before; the old one is as it was.
    Custom(StateTransfer),
}

/// A function that transfers state: called once per swap and cell, nobody else being inside of either version. An error, a trap or a
/// panic undoes the swap.
pub type StateTransfer = Arc<dyn Fn(&TransferContext<'_>) -> Result<(), HostError> + Send + Sync>;

impl StatePlan {
    /// A plan from a function.
    pub fn custom(f: impl Fn(&TransferContext<'_>) -> Result<(), HostError> + Send + Sync + 'static) -> StatePlan {
        StatePlan::Custom(Arc::new(f))
    }

    /// Its name: what the command line calls it.
    pub fn name(&self) -> &'static str {
        match self {
            StatePlan::Fresh => "fresh",
            StatePlan::Adopt => "adopt",
            StatePlan::Export => "export",
            StatePlan::Custom(_) => "custom",
        }
    }
}

impl fmt::Debug for StatePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens when the task that asks is inside of a cell whose state is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FromInside {
    /// Everything is prepared and validated now; the swap happens when the task leaves the cell.
    #[default]
    Defer,
    /// [`SwapError::Inside`](super::SwapError::Inside).
    Refuse,
}

/// One cell of a request.
#[derive(Debug, Clone)]
pub(crate) struct CellChange {
    /// Name of the cell to replace or remove; `None` adds one.
    pub(crate) old: Option<Arc<str>>,
    /// Name of the new cell; `None` removes.
    pub(crate) new: Option<Arc<str>>,
    pub(crate) source: Option<CellSource>,
    pub(crate) state: StatePlan,
    pub(crate) reexport: bool,
    pub(crate) options: Option<LoadOptions>,
}

/// A request: which cells get which versions, in one step.
///
/// ```ignore
/// ns.swap(SwapRequest::new("counter").with_wasm(&v2).state(StatePlan::Adopt))?;
/// ns.swap(SwapRequest::new("a").with_wasm(&a2).and(SwapRequest::new("b").with_wasm(&b2)))?;
/// ```
///
/// Methods that describe a cell are about the last one named.
#[derive(Debug, Clone)]
pub struct SwapRequest {
    pub(crate) cells: Vec<CellChange>,
    pub(crate) deadline: Duration,
    pub(crate) from_inside: FromInside,
    pub(crate) force: bool,
    pub(crate) keep_old: bool,
    pub(crate) explain: bool,
    pub(crate) fail_at: Option<SwapStep>,
}

/// How long a swap waits for the tasks inside, unless the request says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(1);

impl SwapRequest {
    fn one(old: Option<&str>, new: Option<&str>) -> SwapRequest {
        let (old, new) = (old.map(Arc::from), new.map(Arc::from));
        let cell = CellChange { old, new, source: None, state: StatePlan::Fresh, reexport: false, options: None };
        SwapRequest {
            cells: alloc::vec![cell],
            deadline: DEADLINE,
            from_inside: FromInside::Defer,
            force: false,
            keep_old: true,
            explain: false,
            fail_at: None,
        }
    }

    /// Replaces cell `name`, under the same name.
    pub fn new(name: &str) -> SwapRequest {
        SwapRequest::one(Some(name), Some(name))
    }

    /// Adds cell `name`.
    pub fn add(name: &str) -> SwapRequest {
        SwapRequest::one(None, Some(name))
    }

    /// Removes cell `name`.
    pub fn remove(name: &str) -> SwapRequest {
        SwapRequest::one(Some(name), None)
    }

    /// In the same step: the cells of another request. What is said of the whole request stays as it is here.
    pub fn and(mut self, other: SwapRequest) -> SwapRequest {
        self.cells.extend(other.cells);
        self
    }

    fn last(mut self, f: impl FnOnce(&mut CellChange)) -> SwapRequest {
        if let Some(cell) = self.cells.last_mut() {
            f(cell);
        }
        self
    }

    /// The new version: bytes of a wasm module. Bytes that were compiled before and are still loaded are not compiled again.
    pub fn with_wasm(self, bytes: &[u8]) -> SwapRequest {
        self.with_source(CellSource::Wasm(bytes.to_vec()))
    }

    /// The new version: bytes of a trusted cell object. Verify the seal of a file first (`wasm_cell::seal`).
    pub fn with_object(self, bytes: &[u8]) -> SwapRequest {
        self.with_source(CellSource::Object(bytes.to_vec()))
    }

    /// The new version: bytes of a relocatable object of rustc, gcc or clang. Its code is trusted. Its initialisers run before the commit; function
    /// pointers in its data are stable entries, so until then they lead to the old version.
    pub fn with_native(self, bytes: &[u8]) -> SwapRequest {
        self.with_source(CellSource::Native(bytes.to_vec()))
    }

    /// The new version: a compiled module.
    pub fn with_module(self, module: &Arc<CellModule>) -> SwapRequest {
        self.with_source(CellSource::Module(module.clone()))
    }

    /// The new version, from any source.
    pub fn with_source(self, source: CellSource) -> SwapRequest {
        self.last(|cell| cell.source = Some(source))
    }

    /// The new version has another name than the old one.
    pub fn named(self, name: &str) -> SwapRequest {
        self.last(|cell| cell.new = Some(name.into()))
    }

    /// What becomes of the state.
    pub fn state(self, plan: StatePlan) -> SwapRequest {
        self.last(|cell| cell.state = plan)
    }

    /// The symbols of the new version, which has another name, are there under the old name too, and so is the cell (Theseus:
    /// `reexport_new_symbols_as_old`).
    pub fn reexport_new_symbols_as_old(self, on: bool) -> SwapRequest {
        self.last(|cell| cell.reexport = on)
    }

    /// How to load the new version. Otherwise as the old one was loaded.
    pub fn options(self, options: LoadOptions) -> SwapRequest {
        self.last(|cell| cell.options = Some(options))
    }

    /// How long to wait for tasks that are inside of cells with state. One second if nothing is said.
    pub fn deadline(mut self, deadline: Duration) -> SwapRequest {
        self.deadline = deadline;
        self
    }

    /// What happens when the task that asks is inside itself.
    pub fn from_inside(mut self, what: FromInside) -> SwapRequest {
        self.from_inside = what;
        self
    }

    /// Goes on although functions that others use are missing in the new version or have another type: their calls trap `FunctionGone`, by name. Other
    /// problems still refuse the swap.
    pub fn force(mut self, on: bool) -> SwapRequest {
        self.force = on;
        self
    }

    /// Whether the old versions stay in the cache of unloaded cells, for [`CrateNamespace::rollback`](crate::CrateNamespace::rollback). They do
    /// if nothing is said. A name has one previous version there.
    pub fn keep_old(mut self, on: bool) -> SwapRequest {
        self.keep_old = on;
        self
    }

    /// Whether the report says what differs between the modules ([`ModuleDiff`](crate::module_diff::ModuleDiff)). It is worked out before anybody
    /// waits.
    pub fn explain(mut self, on: bool) -> SwapRequest {
        self.explain = on;
        self
    }

    /// Fails at this step, as if what it needs were not there: for tests of what is undone.
    pub fn fail_at(mut self, step: SwapStep) -> SwapRequest {
        self.fail_at = Some(step);
        self
    }

    /// Names of the cells that are to be replaced or removed.
    pub fn old_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.cells.iter().filter_map(|c| c.old.as_ref())
    }

    /// Names of the cells that are there afterwards.
    pub fn new_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.cells.iter().filter_map(|c| c.new.as_ref())
    }
}
