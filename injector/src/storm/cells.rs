//! The cells of a storm, and their versions.

use crate::world::{SetupError, setup};
use alloc::{sync::Arc, vec::Vec};
use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{CellModule, CrateNamespace, LoadOptions, compile_module};

/// Versions of each cell.
pub(super) const VERSIONS: usize = 8;

macro_rules! versions {
    ($name:literal) => {
        versions!($name 0 1 2 3 4 5 6 7)
    };
    ($name:literal $($version:literal)*) => {
        [$(include_bytes!(concat!(env!("OUT_DIR"), "/storm_", $name, "_", $version, ".wasm"))),*]
    };
}

static PLAIN: [&[u8]; VERSIONS] = versions!("plain");
static COUNTER: [&[u8]; VERSIONS] = versions!("counter");
static FIRST: [&[u8]; VERSIONS] = versions!("first");
static SECOND: [&[u8]; VERSIONS] = versions!("second");
static USER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/storm_user.wasm"));

/// The cells, loaded, with all their versions compiled.
pub(super) struct Cells {
    pub(super) namespace: Arc<CrateNamespace>,
    modules: Vec<(&'static str, Vec<Arc<CellModule>>)>,
}

impl Cells {
    pub(super) fn load() -> Result<Cells, SetupError> {
        let namespace = CrateNamespace::new("storm", None);
        let mut modules = Vec::new();
        for (name, all) in [("plain", &PLAIN), ("counter", &COUNTER), ("first", &FIRST), ("second", &SECOND)] {
            let compile = |bytes: &&[u8]| compile_module(name, bytes, &LoadOptions::default());
            let compiled: Vec<_> = all.iter().map(compile).collect::<Result<_, _>>().map_err(|e| setup(name)(&e))?;
            modules.push((name, compiled));
        }
        let add = |name: &'static str| {
            let compiled = modules.iter().find(|(other, _)| *other == name).and_then(|(_, all)| all.first());
            compiled.map(|first| SwapRequest::add(name).with_module(first))
        };
        // Those that change together need each other.
        let together = add("first").zip(add("second")).map(|(first, second)| first.and(second));
        for request in [add("plain"), add("counter"), together].into_iter().flatten() {
            namespace.swap(request).map_err(|e| setup("the cells of the storm")(&e))?;
        }
        namespace.load_wasm("user", USER, LoadOptions::default()).map_err(|e| setup("user")(&e))?;
        Ok(Cells { namespace, modules })
    }

    /// A request for this version of these cells.
    pub(super) fn request(&self, names: &[&'static str], version: usize) -> SwapRequest {
        let mut all: Option<SwapRequest> = None;
        for (name, modules) in self.modules.iter().filter(|(name, _)| names.contains(name)) {
            let Some(module) = modules.get(version) else { continue };
            let one = SwapRequest::new(name).with_module(module);
            all = Some(match all {
                None => one,
                Some(before) => before.and(one),
            });
        }
        all.unwrap_or_else(|| SwapRequest::new(""))
    }

    /// What the counting cell has counted.
    pub(super) fn count(&self) -> Result<u64, SetupError> {
        let cell = self.namespace.get_crate("counter").ok_or_else(|| SetupError("the counter is gone".into()))?;
        let count = cell.typed_func::<(), i64>("count").map_err(|e| setup("count")(&e))?;
        Ok(count.call(()).map_err(|e| setup("count")(&e))? as u64)
    }
}
