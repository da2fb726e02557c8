//! Theseus's names for swapping (its crate `crate_swap`), on top of [`CrateNamespace::swap`].
//!
//! | Theseus | here |
//! | --- | --- |
//! | `swap_crates(this_namespace, swap_requests, override_namespace_dir, state_transfer_functions, kernel_mmi_ref, verbose_log, cache_old_crates)` | [`swap_crates`]; there is no memory-management object to pass, and the log level is the logger's |
//! | `SwapRequest::new(old_crate_name, old_namespace, new_crate_object_file, new_namespace, reexport_new_symbols_as_old)` | [`SwapRequest::new`]; one namespace, whose providers stand for the directory of object files |
//! | `SwapRequestList` | [`SwapRequestList`] |
//! | `StateTransferFunction = fn(&Arc<CrateNamespace>, &CrateNamespace)` | [`StateTransferFunction`]: the new versions by name, the old ones still in service |
//! | `clear_unloaded_crate_cache()` | [`clear_unloaded_crate_cache`] |
//!
//! What is otherwise: nothing of a swap remains when it fails; old versions that are not cached are freed; function pointers, vtables and
//! references in data follow; types are compared, and not hashes of names.
#![deny(unsafe_code)]

use super::report::SwapReport;
use super::{StatePlan, SwapError, TransferContext};
use crate::cell::StrongCrateRef;
use crate::namespace::{CellSource, CrateNamespace, CrateProvider};
use crate::trap::HostError;
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};

pub use super::cache::clear_unloaded_crate_cache;

/// Transfers the state of one cell: the namespace, in which the old versions serve, and both versions.
pub type StateTransferFunction =
    Arc<dyn Fn(&Arc<CrateNamespace>, &TransferContext<'_>) -> Result<(), HostError> + Send + Sync>;

/// The cells to swap in one step.
pub type SwapRequestList = Vec<SwapRequest>;

/// One cell to swap.
#[derive(Debug, Clone)]
pub struct SwapRequest {
    old_crate_name: Option<String>,
    new_crate_object_file: IntoCrateObjectFile,
    reexport_new_symbols_as_old: bool,
}

/// Where the new cell comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum IntoCrateObjectFile {
    /// These bytes or this module, under this name.
    File(String, CellSource),
    /// What the directory has under this name.
    Name(String),
    /// Nothing: the old cell is removed.
    Nothing,
}

/// Why a request makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSwapRequest {
    /// Neither an old cell nor a new one.
    #[error("a request with neither an old cell nor a new one")]
    Empty,
    /// There is no such cell in the namespace.
    #[error("namespace `{namespace}` has no cell `{cell}` to swap")]
    OldCrateNotFound {
        /// The namespace.
        namespace: String,
        /// The name.
        cell: String,
    },
}

impl SwapRequest {
    /// Checks the names. `None` as old name adds a cell.
    pub fn new(
        old_crate_name: Option<&str>,
        namespace: &CrateNamespace,
        new_crate_object_file: IntoCrateObjectFile,
        reexport_new_symbols_as_old: bool,
    ) -> Result<SwapRequest, InvalidSwapRequest> {
        if let Some(cell) = old_crate_name.filter(|name| namespace.own_crate(name).is_none()) {
            let namespace = namespace.name().into();
            return Err(InvalidSwapRequest::OldCrateNotFound { namespace, cell: cell.into() });
        }
        if old_crate_name.is_none() && matches!(new_crate_object_file, IntoCrateObjectFile::Nothing) {
            return Err(InvalidSwapRequest::Empty);
        }
        let old_crate_name = old_crate_name.map(Into::into);
        Ok(SwapRequest { old_crate_name, new_crate_object_file, reexport_new_symbols_as_old })
    }
}

/// Swaps cells in one step.
///
/// `override_namespace_dir` is asked for the files of requests that give only names; without one, the namespace's own providers are.
/// `state_transfer_functions` run in order for every cell that is replaced. Old versions stay in the cache if `cache_old_crates`.
///
/// # Errors
/// [`SwapError`]; the old versions are in service then.
pub fn swap_crates(
    this_namespace: &Arc<CrateNamespace>,
    swap_requests: SwapRequestList,
    override_namespace_dir: Option<&dyn CrateProvider>,
    state_transfer_functions: Vec<StateTransferFunction>,
    cache_old_crates: bool,
) -> Result<SwapReport, SwapError> {
    let mut all: Option<super::SwapRequest> = None;
    let transfers: Arc<[StateTransferFunction]> = state_transfer_functions.into();
    for request in swap_requests {
        let one = translate(this_namespace, request, override_namespace_dir, &transfers);
        all = Some(match all {
            None => one,
            Some(before) => before.and(one),
        });
    }
    match all {
        Some(request) => this_namespace.swap(request.keep_old(cache_old_crates)),
        None => Err(super::Refusal { problems: Vec::new() }.into()),
    }
}

fn translate(
    namespace: &Arc<CrateNamespace>,
    request: SwapRequest,
    dir: Option<&dyn CrateProvider>,
    transfers: &Arc<[StateTransferFunction]>,
) -> super::SwapRequest {
    let find = |name: &str| match dir {
        Some(dir) => dir.find(name),
        None => namespace.provided(name).map(|(_, source)| source),
    };
    let (name, source) = match request.new_crate_object_file {
        IntoCrateObjectFile::File(name, source) => (Some(name), Some(source)),
        IntoCrateObjectFile::Name(name) => {
            let source = find(&name);
            (Some(name), source)
        }
        IntoCrateObjectFile::Nothing => (None, None),
    };
    let mut made = match (&request.old_crate_name, &name) {
        (Some(old), Some(new)) => super::SwapRequest::new(old).named(new),
        (Some(old), None) => super::SwapRequest::remove(old),
        (None, new) => super::SwapRequest::add(new.as_deref().unwrap_or_default()),
    };
    if let Some(source) = source {
        made = made.with_source(source);
    }
    if !transfers.is_empty() && request.old_crate_name.is_some() && name.is_some() {
        let (transfers, namespace) = (transfers.clone(), Arc::downgrade(namespace));
        made = made.state(StatePlan::custom(move |context| {
            let namespace = namespace.upgrade().ok_or_else(|| gone(context.old.cell()))?;
            transfers.iter().try_for_each(|transfer| transfer(&namespace, context))
        }));
    }
    made.reexport_new_symbols_as_old(request.reexport_new_symbols_as_old)
}

fn gone(cell: &StrongCrateRef) -> HostError {
    Box::from(format!("the namespace of `{}` is gone", cell.crate_name))
}
