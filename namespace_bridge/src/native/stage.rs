//! A cell on its way: read, planned, mapped, with its entries, but linked to nobody and visible to nobody.
#![deny(unsafe_code)]

use super::entry_pages::{EntryPages, EntryRequest};
use super::error::NativeError;
use super::export::{self, Description};
use super::image::WritableImage;
use super::names;
use super::object::{NativeObject, SymbolKind, SymbolPlace};
use super::plan::{Plan, is_identifier};
use super::read;
use super::relocate::Edge;
use super::resolve::Found;
use crate::entries::EntryBlock;
use crate::entry_plan::CellEntries;
use crate::error::LoadError;
use crate::namespace::CrateNamespace;
use crate::options::LoadOptions;
use crate::types_registry::TypeShares;
use alloc::{format, string::String, sync::Arc, vec::Vec};
use hashbrown::HashMap;
use runtime_port::heap::{guarded, without_failing};
use wasm_cell::types::TypeHash;

/// A cell on its way.
pub(super) struct Staged {
    pub namespace: Arc<CrateNamespace>,
    pub name: Arc<str>,
    pub version: u32,
    pub options: LoadOptions,
    /// It is to take the place of another version.
    pub succeeds: bool,
    /// How many cells wait for this one.
    pub depth: usize,
    pub object: NativeObject,
    pub plan: Plan,
    pub image: Option<WritableImage>,
    /// Its first address.
    pub start: usize,
    pub entries: Arc<CellEntries>,
    /// Entries of earlier cells of the name, to be given back if the load fails.
    pub kept: Vec<Arc<EntryBlock>>,
    /// Exported symbols by their name in the symbol map.
    pub definitions: HashMap<String, usize>,
    /// Typed exports. The entry of the first stands behind those of the plan.
    pub descriptions: Vec<Description>,
    /// What its imports are, by symbol.
    pub imports: HashMap<usize, Found>,
    /// Where it refers to other cells.
    pub edges: Vec<Edge>,
    /// The cells on their way that it refers to.
    pub needs: Vec<usize>,
}

impl Staged {
    /// Reads and maps an object.
    pub fn new(
        namespace: Arc<CrateNamespace>,
        name: Arc<str>,
        bytes: Vec<u8>,
        options: &LoadOptions,
        depth: usize,
        succeeds: Option<(u32, Vec<Arc<EntryBlock>>)>,
    ) -> Result<Staged, LoadError> {
        let failed = |source: NativeError| LoadError::Native { cell: name.clone(), source };
        let object = read::read(bytes).map_err(failed)?;
        let plan = Plan::new(&object).map_err(failed)?;
        let descriptions = export::descriptions(&object).map_err(failed)?;
        let definitions = definitions(&object);
        namespace.check_symbols(&name, definitions.iter().map(|(n, i)| (&**n, is_weak(&object, *i))))?;
        let types = descriptions.iter().map(|d| (&d.ty, d.ty.hash.salted(0)));
        let (types, _) = TypeShares::claim(&name, types)?;
        let requests = requests(&object, &plan, &descriptions, types.ids());
        let memory = |what| move |source| NativeError::Memory { what, source };
        let pages = EntryPages::new(&requests, types, plan.low).map_err(memory("entries")).map_err(failed)?;
        let image = WritableImage::map(&plan).map_err(failed)?;
        let start = image.start();
        let is_successor = succeeds.is_some();
        let (version, kept) = succeeds.unwrap_or_else(|| namespace.claim_remains(&name));
        let entries = guarded(|| {
            let own = EntryBlock::of_native(name.clone(), pages, plan.passes_on_entries);
            Arc::new(CellEntries::new(own, kept.clone()))
        });
        let entries = match entries {
            Ok(entries) => entries,
            Err(exhausted) => {
                if !is_successor {
                    without_failing(|| namespace.keep_entries(&name, version - 1, kept));
                }
                return Err(exhausted.into());
            }
        };
        Ok(Staged {
            image: Some(image),
            options: options.clone(),
            succeeds: is_successor,
            imports: HashMap::new(),
            edges: Vec::new(),
            needs: Vec::new(),
            namespace,
            name,
            version,
            depth,
            object,
            plan,
            start,
            entries,
            kept,
            definitions,
            descriptions,
        })
    }

    /// Address of entry `k`.
    pub fn entry(&self, k: usize) -> usize {
        self.entries.of(k).map_or(0, |(_, address)| address)
    }

    /// Address of an entry that stands for the same as entry `k` and that 32 bits have room for, signed or not, if there is one.
    pub fn low_entry(&self, k: usize) -> usize {
        self.entries.below(k, i32::MAX as usize).unwrap_or(0)
    }

    /// Where the entry of a symbol leads: to its code, or to the stub of another cell's function.
    pub fn entry_target(&self, symbol: usize) -> Option<usize> {
        self.address(symbol).or_else(|| Some(self.start + self.plan.stub(symbol)?))
    }

    /// Address of a place in the image: of a function's code, of data.
    pub fn address(&self, symbol: usize) -> Option<usize> {
        match self.object.symbols.get(symbol)?.place {
            SymbolPlace::Section(section, offset) => {
                Some(self.start + self.plan.sections.get(section).copied().flatten()? + offset)
            }
            SymbolPlace::Common(_) => Some(self.start + self.plan.common.get(&symbol)?),
            SymbolPlace::Absolute(value) => Some(value as usize),
            SymbolPlace::Undefined => None,
        }
    }

    /// The code that a description is about.
    pub fn described_code(&self, description: &Description) -> Option<usize> {
        let symbol = self.object.symbols.get(description.function.symbol)?;
        let SymbolPlace::Section(section, offset) = symbol.place else { return None };
        let offset = usize::try_from(i64::try_from(offset).ok()?.checked_add(description.function.addend)?).ok()?;
        let text = &self.plan.parts[super::object::Part::Text as usize];
        let at = self.plan.sections.get(section).copied().flatten()?.checked_add(offset)?;
        text.contains(&at).then_some(self.start + at)
    }

    /// Number of the typed export of this name.
    pub fn described(&self, export: &str) -> Option<usize> {
        self.descriptions.iter().position(|d| d.name == export)
    }

    /// Symbols that every linker defines, if this is one.
    pub fn own_symbol(&self, name: &str) -> Option<usize> {
        match name {
            "_GLOBAL_OFFSET_TABLE_" => return Some(self.start + self.plan.slot_base),
            "__dso_handle" => return Some(self.handle()),
            _ => {}
        }
        let (section, end) = match (name.strip_prefix("__start_"), name.strip_prefix("__stop_")) {
            (Some(section), _) => (section, false),
            (_, Some(section)) => (section, true),
            _ => return None,
        };
        let sections = self.object.sections.iter().zip(&self.plan.sections);
        let mut places = sections
            .filter(|(s, _)| is_identifier(section) && self.object.text(&s.name) == section)
            .filter_map(|(s, at)| Some((at.as_ref()?, s.size)));
        match end {
            false => places.next().map(|(at, _)| self.start + at),
            true => places.next_back().map(|(at, size)| self.start + at + size),
        }
    }

    /// What C++ knows the cell by.
    pub fn handle(&self) -> usize {
        self.start
    }
}

pub(super) fn is_weak(object: &NativeObject, symbol: usize) -> bool {
    object.symbols.get(symbol).is_some_and(|s| s.scope == super::object::Scope::Weak)
}

fn definitions(object: &NativeObject) -> HashMap<String, usize> {
    let exported = (1..object.symbols.len()).filter(|i| object.is_exported(*i));
    let named =
        exported.filter(|i| object.symbols[*i].kind != SymbolKind::Section && !object.symbol_name(*i).is_empty());
    named.map(|i| (names::display(object.symbol_name(i)), i)).collect()
}

/// Entries to be made: those of the plan, then one per description.
fn requests(
    object: &NativeObject,
    plan: &Plan,
    descriptions: &[Description],
    ids: &[wasm_cell::types::TypeId],
) -> Vec<EntryRequest> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut requests = Vec::with_capacity(plan.entries.len() + descriptions.len());
    for symbol in &plan.entries {
        let mut label = names::display(object.symbol_name(*symbol));
        if object.symbols.get(*symbol).is_some_and(|s| s.place == SymbolPlace::Undefined) {
            // Not what the cell defines under this name in another version.
            label.insert(0, '&');
        }
        // Local functions of one name are told apart by their order.
        let count = seen.entry(label.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            label = format!("{label}#{count}");
        }
        requests.push(EntryRequest { label: Some((label.into(), TypeHash([0; 16]))), id: None });
    }
    for (description, id) in descriptions.iter().zip(ids) {
        requests
            .push(EntryRequest { label: Some((description.name.as_str().into(), description.ty.hash)), id: Some(*id) });
    }
    requests
}
