//! Theseus's names for swapping (its crate `crate_swap`), on top of [`CrateNamespace::swap`].
//!
//! | Theseus | here |
//! | --- | --- |
//! | `swap_crates(this_namespace, swap_requests, override_namespace_dir, state_transfer_functions, kernel_mmi_ref, verbose_log, cache_old_crates)` | [`swap_crates`]; there is no memory-management object to pass, and the log level is the logger's |
//! | `SwapRequest::new(old_crate_name, old_namespace, new_crate_object_file, new_namespace, reexport_new_symbols_as_old)` | [`SwapRequest::new`]; the old name may be a prefix that only one cell of the namespace and its parents has; the new namespace is the one that the old cell was found in |
//! | `IntoCrateObjectFile::{File, AbsolutePath, Prefix}` | [`IntoCrateObjectFile`]; a namespace's providers stand for its directory of object files; a file somewhere else is read by whoever has the path |
//! | `SwapRequestList` | [`SwapRequestList`] |
//! | `StateTransferFunction = fn(&Arc<CrateNamespace>, &CrateNamespace)` | [`StateTransferFunction`]: the new versions by name, the old ones still in service |
//! | `clear_unloaded_crate_cache()` | [`clear_unloaded_crate_cache`] |
//!
//! A step is of one namespace, since names own the entries that callers have: a cell does not move to another namespace, and cells of several are swapped in
//! as many steps. Both are refused by name.
//!
//! What is otherwise: nothing of a swap remains when it fails; old versions that are not cached are freed; function pointers, vtables and
//! references in data follow; types are compared, and not hashes of names.
#![deny(unsafe_code)]

use super::report::SwapReport;
use super::{StatePlan, SwapError, SwapProblem, TransferContext};
use crate::cell::StrongCrateRef;
use crate::namespace::{CellSource, CrateNamespace, CrateProvider};
use crate::trap::HostError;
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::fmt;

pub use super::cache::clear_unloaded_crate_cache;

/// Transfers the state of one cell: the namespace, in which the old versions serve, and both versions.
pub type StateTransferFunction =
    Arc<dyn Fn(&Arc<CrateNamespace>, &TransferContext<'_>) -> Result<(), HostError> + Send + Sync>;

/// The cells to swap in one step.
pub type SwapRequestList = Vec<SwapRequest>;

/// One cell to swap.
#[derive(Clone)]
pub struct SwapRequest {
    old_crate_name: Option<Arc<str>>,
    namespace: Arc<CrateNamespace>,
    /// Name of the new cell, and what it is made of, unless that is to be looked for.
    new_crate: Option<(String, Option<CellSource>)>,
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
    /// The only file of the namespace's directory that begins so, and gives the new cell its name.
    Prefix(String),
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
        /// The name, or its beginning.
        cell: String,
    },
    /// Several cells begin so.
    #[error("`{prefix}` could be any of the cells {}", .cells.join(", "))]
    OldCrateAmbiguous {
        /// The beginning of the name.
        prefix: String,
        /// The cells.
        cells: Vec<String>,
    },
    /// No file of the namespace's directory begins so, or several do.
    #[error("{} of namespace `{namespace}` begin{} with `{prefix}`{}", if .files.is_empty() { "no file" } else { "several files" },
        if .files.is_empty() { "s" } else { "" }, listed(.files))]
    NewCratePrefixNotFound {
        /// The namespace.
        namespace: String,
        /// The beginning.
        prefix: String,
        /// The files, if there are several.
        files: Vec<String>,
    },
    /// The old cell is in another namespace than the one for the new cell. Remove it there, and add the new one here.
    #[error(
        "cell `{cell}` is in namespace `{old}`, and its next version cannot be in `{new}`: names own the entries that callers have"
    )]
    OtherNamespace {
        /// The old cell.
        cell: String,
        /// Its namespace.
        old: String,
        /// The namespace for the new one.
        new: String,
    },
}

fn listed(files: &[String]) -> String {
    if files.is_empty() { String::new() } else { format!(": {}", files.join(", ")) }
}

impl fmt::Debug for SwapRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("SwapRequest");
        f.field("old_crate_name", &self.old_crate_name).field("namespace", &self.namespace.name());
        f.field("new_crate", &self.new_crate);
        f.field("reexport_new_symbols_as_old", &self.reexport_new_symbols_as_old).finish()
    }
}

impl SwapRequest {
    /// Finds what the names mean. `None` as old name, or an empty one, adds a cell.
    ///
    /// An old name is that of a cell of `old_namespace` or a parent, or the beginning of only one. The new cell comes into the namespace in which the old
    /// one is, or `old_namespace` if none is replaced; `new_namespace` can be given to say so.
    ///
    /// # Errors
    /// [`InvalidSwapRequest`].
    pub fn new(
        old_crate_name: Option<&str>,
        old_namespace: &Arc<CrateNamespace>,
        new_crate_object_file: IntoCrateObjectFile,
        new_namespace: Option<&Arc<CrateNamespace>>,
        reexport_new_symbols_as_old: bool,
    ) -> Result<SwapRequest, InvalidSwapRequest> {
        let old = match old_crate_name.filter(|name| !name.is_empty()) {
            Some(name) => Some(find_old(old_namespace, name)?),
            None => None,
        };
        let (old_crate_name, namespace) = match (old, new_namespace) {
            (None, _) if matches!(new_crate_object_file, IntoCrateObjectFile::Nothing) => {
                return Err(InvalidSwapRequest::Empty);
            }
            (None, new) => (None, new.unwrap_or(old_namespace).clone()),
            (Some((cell, old)), Some(new)) if !Arc::ptr_eq(&old, new) => {
                let (old, new) = (old.name().into(), new.name().into());
                return Err(InvalidSwapRequest::OtherNamespace { cell: (*cell).into(), old, new });
            }
            (Some((cell, old)), _) => (Some(cell), old),
        };
        let new_crate = match new_crate_object_file {
            IntoCrateObjectFile::File(name, source) => Some((name, Some(source))),
            IntoCrateObjectFile::Name(name) => Some((name, None)),
            IntoCrateObjectFile::Prefix(prefix) => Some((find_new(&namespace, prefix)?, None)),
            IntoCrateObjectFile::Nothing => None,
        };
        Ok(SwapRequest { old_crate_name, namespace, new_crate, reexport_new_symbols_as_old })
    }
}

/// The cell of this name, or the only one that begins so, and its namespace.
fn find_old(
    namespace: &Arc<CrateNamespace>,
    name: &str,
) -> Result<(Arc<str>, Arc<CrateNamespace>), InvalidSwapRequest> {
    let exact = namespace.get_crate_and_namespace(name).map(|(cell, of)| (cell.crate_name.clone(), of));
    if let Some(found) = exact {
        return Ok(found);
    }
    match &namespace.get_crates_starting_with(name)[..] {
        [] => Err(InvalidSwapRequest::OldCrateNotFound { namespace: namespace.name().into(), cell: name.into() }),
        [(cell, _)] => namespace.get_crate_and_namespace(cell).map(|(_, of)| (cell.clone(), of)).ok_or_else(|| {
            InvalidSwapRequest::OldCrateNotFound { namespace: namespace.name().into(), cell: name.into() }
        }),
        several => {
            let cells = several.iter().map(|(cell, _)| String::from(&**cell)).collect();
            Err(InvalidSwapRequest::OldCrateAmbiguous { prefix: name.into(), cells })
        }
    }
}

/// The cell that the only file of this beginning holds.
fn find_new(namespace: &CrateNamespace, prefix: String) -> Result<String, InvalidSwapRequest> {
    let mut files = namespace.provided_files(&prefix);
    match (files.pop(), files.is_empty()) {
        (Some((_, cell)), true) => Ok(cell),
        (last, _) => {
            let files = files.into_iter().chain(last).map(|(file, _)| file).collect();
            Err(InvalidSwapRequest::NewCratePrefixNotFound { namespace: namespace.name().into(), prefix, files })
        }
    }
}

/// Swaps cells in one step.
///
/// The cells are those of the requests' namespace, which is `this_namespace` or, if it has them, a parent. Its users are in whatever namespaces they are.
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
    let Some(namespace) = swap_requests.first().map(|request| request.namespace.clone()) else {
        return Err(super::Refusal { problems: Vec::new() }.into());
    };
    if let Some(other) = swap_requests.iter().find(|r| !Arc::ptr_eq(&r.namespace, &namespace)) {
        let (one, other) = (namespace.name().into(), other.namespace.name().into());
        return Err(super::Refusal { problems: alloc::vec![SwapProblem::Namespaces { one, other }] }.into());
    }
    let transfers: Arc<[StateTransferFunction]> = state_transfer_functions.into();
    for request in swap_requests {
        let one = translate(this_namespace, request, override_namespace_dir, &transfers);
        all = Some(match all {
            None => one,
            Some(before) => before.and(one),
        });
    }
    match all {
        Some(request) => namespace.swap(request.keep_old(cache_old_crates)),
        None => Err(super::Refusal { problems: Vec::new() }.into()),
    }
}

fn translate(
    this_namespace: &Arc<CrateNamespace>,
    request: SwapRequest,
    dir: Option<&dyn CrateProvider>,
    transfers: &Arc<[StateTransferFunction]>,
) -> super::SwapRequest {
    let find = |name: &str| match dir {
        Some(dir) => dir.find(name),
        None => request.namespace.provided(name).map(|(_, source)| source),
    };
    let (name, source) = match request.new_crate {
        Some((name, given)) => {
            let source = given.or_else(|| find(&name));
            (Some(name), source)
        }
        None => (None, None),
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
        let (transfers, namespace) = (transfers.clone(), Arc::downgrade(this_namespace));
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
