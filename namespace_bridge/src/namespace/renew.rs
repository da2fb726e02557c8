//! A fresh instance under the same name and entries.
#![deny(unsafe_code)]

use super::CrateNamespace;
use super::load::add_dependencies;
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::error::LoadError;
use crate::instantiate::{self, Request};
use crate::linker;
use crate::recovery::PolicyError;
use crate::retire;
use crate::section::{SectionItem, StrongSectionRef};
use alloc::{
    format,
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};
use runtime_port::heap::{guarded, without_failing};

impl CrateNamespace {
    /// Loads the module of a cell again in the cell's place. Nobody may be inside who should see the old state in the end: calls that
    /// are inside end in the old instance. A failure leaves the old instance in place.
    pub(crate) fn renew(&self, old: &StrongCrateRef) -> Result<StrongCrateRef, PolicyError> {
        let name = old.crate_name.clone();
        let failed = |source: LoadError| PolicyError::Load { cell: name.clone(), source };
        let (Some(body), Some(module)) = (old.body(), old.module()) else {
            return Err(PolicyError::NotFound { namespace: self.name.clone(), cell: name });
        };
        refuse_shared_state(old)?;
        let options = &body.options;
        let imports =
            linker::resolve(&linker::Scope::of(self), &name, module, options, &mut Vec::new()).map_err(failed)?;
        // The addresses that everybody has are those of the old entries.
        let kept = body.entries.in_use();
        let version = old.version() + 1;
        let request =
            Request { cell: &name, version, module, imports: &imports, kept, options, domain: None, adopt: None };
        let (instance, entries) = instantiate::allocate(request).map_err(failed)?;
        entries.prepare(|k| instance.version_target(k));
        let fresh = LoadedCrate::wasm(self.me.clone(), instance.clone(), entries, options.clone());
        let started = guarded(|| {
            fresh.entries().into_iter().for_each(|entries| without_failing(|| entries.open()));
            add_dependencies(&fresh, module.metadata(), &imports);
            instantiate::start(&instance, options)
        });
        if let Err(error) = started.unwrap_or_else(|exhausted| Err(exhausted.into())) {
            // The entries go back to the old instance; the caller decides whether it serves.
            without_failing(|| give_way(&fresh, Some(old)));
            return Err(failed(error));
        }
        without_failing(|| {
            if !self.take_place(old, &fresh) {
                // Another version has come meanwhile, and gets its entries back.
                give_way(&fresh, self.own_crate(&name).as_ref());
                return Err(PolicyError::NotFound { namespace: self.name.clone(), cell: name });
            }
            retire::on_clear_stack(|| {
                old.hand_over();
                retire::look_again();
            });
            Ok(fresh)
        })
    }

    /// Names, symbols, addresses and dependency edges of the old cell become the fresh one's. `false`, with nothing done, when the old
    /// one does not serve any more.
    fn take_place(&self, old: &StrongCrateRef, fresh: &StrongCrateRef) -> bool {
        let mut tables = self.tables.write();
        if !tables.crates.get(&old.crate_name).is_some_and(|c| Arc::ptr_eq(c, old)) {
            return false;
        }
        tables.remove_symbols(old);
        tables.crates.insert(fresh.crate_name.clone(), fresh.clone());
        for cell in tables.aliases.values_mut().filter(|c| Arc::ptr_eq(c, old)) {
            *cell = fresh.clone();
        }
        for section in fresh.global_sections() {
            tables.symbols.insert(section.name.clone(), Arc::downgrade(&section));
        }
        if let Some(range) = fresh.image_range() {
            tables.images.insert(range.start, (range.end, Arc::downgrade(fresh)));
        }
        drop(tables);
        for (from, to) in old.global_sections().iter().zip(fresh.global_sections()) {
            from.hand_dependents_to(&to);
        }
        true
    }
}

/// Puts the version that serves behind the entries again, and lets a fresh one go that cannot take its place.
fn give_way(fresh: &StrongCrateRef, serving: Option<&StrongCrateRef>) {
    if let Some(entries) = serving.and_then(|c| c.entries()) {
        entries.open();
    }
    // Code of it that has run found the entries of the versions before, as far as there are any.
    let has_new = fresh.entries().is_some_and(|entries| !entries.has_spare_own());
    fresh.give_up(has_new && fresh.module().is_some_and(|m| m.funcrefs_can_escape()));
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

impl CrateNamespace {
    /// A reference that does not keep the namespace.
    pub(crate) fn shared(&self) -> Weak<CrateNamespace> {
        self.me.clone()
    }
}
