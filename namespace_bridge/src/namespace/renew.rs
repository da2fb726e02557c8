//! A fresh instance under the same name and entries: a swap of a cell to its own module.
#![deny(unsafe_code)]

use super::CrateNamespace;
use crate::cell::StrongCrateRef;
use crate::recovery::PolicyError;
use crate::section::{SectionItem, StrongSectionRef};
use crate::swap::{FromInside, SwapError, SwapRequest};
use alloc::{format, string::String, sync::Weak, vec::Vec};
use core::time::Duration;

impl CrateNamespace {
    /// Loads the module of a cell again in the cell's place, as [`swap`](CrateNamespace::swap) does: a task that is inside of a cell with state is
    /// waited for until the deadline, callers wait at the gate meanwhile, and a failure leaves the old instance where it was.
    pub(crate) fn renew(&self, old: &StrongCrateRef, deadline: Duration) -> Result<StrongCrateRef, PolicyError> {
        let name = old.crate_name.clone();
        let not_found = || PolicyError::NotFound { namespace: self.name.clone(), cell: name.clone() };
        let module = old.module().ok_or_else(not_found)?;
        refuse_shared_state(old)?;
        let request = SwapRequest::new(&name).with_module(module).deadline(deadline);
        let request = request.from_inside(FromInside::Refuse).keep_old(false);
        match self.swap_if_serving(request, old) {
            Ok(_) => self.own_crate(&name).filter(|cell| cell.is_wasm()).ok_or_else(not_found),
            Err(SwapError::Load(source)) => Err(PolicyError::Load { cell: name, source }),
            Err(source) => Err(PolicyError::Swap { cell: name, source }),
        }
    }

    /// A reference that does not keep the namespace.
    pub(crate) fn shared(&self) -> Weak<CrateNamespace> {
        self.me.clone()
    }
}

/// Refuses when another cell uses a memory, table or global of this one: it would go on with the old one.
fn refuse_shared_state(cell: &StrongCrateRef) -> Result<(), PolicyError> {
    let shares = |s: &StrongSectionRef| !matches!(s.item, SectionItem::Func(_));
    let users: Vec<String> = cell
        .dependents()
        .into_iter()
        .filter(|(_, section)| shares(section))
        .map(|(user, section)| format!("`{}` uses `{}`", user.crate_name, section.name))
        .collect();
    match users.is_empty() {
        true => Ok(()),
        false => Err(PolicyError::StateShared { cell: cell.crate_name.clone(), users: users.join(", ") }),
    }
}
