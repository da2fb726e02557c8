//! Instantiation (core spec, 4.5.4): from a linked module to an instance whose start function has run.
//!
//! The phases are functions in the order of the spec: allocate, lay out the data block, evaluate globals and tables, apply
//! active segments, start. Until the active segments nothing outside the new cell changes, so a failure leaves no trace.

use crate::builtins::{self, bulk};
use crate::call::CallError;
use crate::code::{CellModule, LoadedCode};
use crate::domain::{Concurrency, Domain};
use crate::entries::EntryBlock;
use crate::entry_plan::CellEntries;
use crate::error::LoadError;
use crate::function::{Function, HostFunction};
use crate::global::{Global, write_bits};
use crate::host::Thunk;
use crate::image::CellImage;
use crate::instance::{InstanceRecord, Parts, Thunks};
use crate::integrity;
use crate::linear_memory::{CreateError, LinearMemory};
use crate::options::LoadOptions;
use crate::section::{SectionItem, StrongSectionRef};
use crate::table::Table;
use crate::text_index;
use crate::trap::Trap;
use alloc::{string::ToString, sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;
use runtime_port::{memory::MemoryError, unwind::UnwindRegistration};
use wasm_cell::{
    abi,
    metadata::ElementMode,
    trap::TrapCode,
    types::{MemoryStyle, ValType},
};

/// What instantiation works on.
pub(crate) struct Request<'a> {
    pub cell: &'a Arc<str>,
    pub version: u32,
    pub module: &'a Arc<CellModule>,
    /// What the imports resolved to, in order.
    pub imports: &'a [StrongSectionRef],
    /// Entries that earlier cells of this name left.
    pub kept: Vec<Arc<EntryBlock>>,
    pub options: &'a LoadOptions,
    /// The domain of the version that this one is to succeed: the new version joins it.
    pub domain: Option<Arc<Domain>>,
    /// The instance whose memories and tables are taken over, those it does not import, in order.
    pub adopt: Option<&'a InstanceRecord>,
}

/// Makes the instance and its entries. Neither segments nor start have run; nothing outside refers to it.
pub(crate) fn allocate(request: Request<'_>) -> Result<(Arc<InstanceRecord>, CellEntries), LoadError> {
    let Request { cell, module, options, version, imports, kept, domain, adopt } = request;
    let m = module.metadata();
    let mut funcs = Vec::with_capacity(m.imported_funcs.len());
    let mut tables = Vec::with_capacity(m.tables.len());
    let mut memories = Vec::with_capacity(m.memories.len());
    let mut globals = Vec::with_capacity(m.imported_globals as usize);
    for section in imports {
        match &section.item {
            SectionItem::Func(f) => funcs.push(f.imported_by(module, funcs.len() as u32)),
            SectionItem::Table(t) => tables.push(t.clone()),
            SectionItem::Memory(m) => memories.push(m.clone()),
            SectionItem::Global(g) => globals.push(g.clone()),
            SectionItem::Native(_) | SectionItem::Part => {}
        }
    }
    for (i, memory) in m.memories.iter().enumerate().skip(memories.len()) {
        if memory.style == MemoryStyle::Guarded && !options.guarded_memories {
            return Err(LoadError::MemoryStyle { cell: cell.clone(), index: i as u32, style: memory.style });
        }
        let defined = i - m.imported_memories as usize;
        if let Some(adopted) = adopt.and_then(|o| o.memories().get(o.metadata().imported_memories as usize + defined)) {
            memories.push(adopted.clone());
            continue;
        }
        let made = LinearMemory::new(memory.ty, memory.style, options.memory_limit);
        memories.push(made.map_err(|e| creation_failed(cell, "memory", i, e))?);
    }
    for (i, table) in m.tables.iter().enumerate().skip(tables.len()) {
        let defined = i - m.imported_tables as usize;
        if let Some(adopted) = adopt.and_then(|o| o.tables().get(o.metadata().imported_tables as usize + defined)) {
            tables.push(adopted.clone());
            continue;
        }
        let made = Table::new(table.ty, options.table_limit);
        tables.push(made.map_err(|e| creation_failed(cell, "table", i, e))?);
    }
    let image = CellImage::map(module).map_err(|source| no_memory(cell, "image", source))?;
    integrity::before_use(cell, module, &image)?;
    let own = EntryBlock::of_image(cell.clone(), &image, module);
    let code = LoadedCode::new(cell.clone(), version, image.text(), module.clone());
    let instance = InstanceRecord::new(Parts {
        code,
        image,
        memories: memories.into(),
        tables: tables.into(),
        imported_globals: globals.into(),
        imported_funcs: funcs.into(),
    });
    let entries = CellEntries::new(own, kept);
    register(cell, &instance)?;
    fill_data_block(cell, &instance, &entries)?;
    evaluate(cell, &instance, adopt.is_some())?;
    if Concurrency::of(m) == Concurrency::Gated {
        instance.join(domain_of(&instance, domain, options)?);
    }
    Ok((instance, entries))
}

/// The domain of an instance with this state: that of all of it, joined if need be. What belongs to none yet belongs to it from now on.
fn domain_of(
    instance: &InstanceRecord,
    predecessor: Option<Arc<Domain>>,
    options: &LoadOptions,
) -> Result<Arc<Domain>, LoadError> {
    let memories = instance.memories().iter().map(|m| m.domain());
    let tables = instance.tables().iter().map(|t| t.domain());
    let globals = instance.imported_globals().iter().filter(|g| g.ty().mutable).map(|g| g.domain());
    let parts: Vec<_> = memories.chain(tables).chain(globals).collect();
    let known = predecessor.or_else(|| parts.iter().find_map(|p| p.get().cloned()));
    let domain = known.unwrap_or_else(Domain::new);
    for part in parts {
        let joined = domain.join(part.get_or_set(&domain), options.gate_timeout);
        joined.map_err(|source| LoadError::Gate { cell: instance.code().cell().clone(), source })?;
    }
    Ok(domain.root())
}

fn creation_failed(cell: &Arc<str>, what: &'static str, index: usize, error: CreateError) -> LoadError {
    let cell = cell.clone();
    match error {
        CreateError::Limit { min, limit } => LoadError::Limit { cell, what, index: index as u32, min, limit },
        CreateError::Memory(source) => LoadError::Memory { cell, what, source },
    }
}

fn no_memory(cell: &Arc<str>, what: &'static str, source: MemoryError) -> LoadError {
    LoadError::Memory { cell: cell.clone(), what, source }
}

/// Makes the code known to the trap handler and the unwinder.
fn register(cell: &Arc<str>, instance: &Arc<InstanceRecord>) -> Result<(), LoadError> {
    let image = instance.image();
    if image.text().is_empty() {
        return Ok(());
    }
    let text = text_index::register(instance.code().clone())
        .map_err(|e| LoadError::Runtime { cell: cell.clone(), reason: e.to_string() })?;
    let unwind = instance.code().module().unwind_table().map(|table| {
        // SAFETY: text and unwind info lie in the image, which the registration keeps mapped; the compiler wrote one for
        // the other, and the table was made of it.
        unsafe { UnwindRegistration::with_frame_pointers(image.text(), image.eh_frame(), table, image.clone()) }
    });
    let unwind = unwind.transpose().map_err(|source| LoadError::Unwind { cell: cell.clone(), source })?;
    instance.registrations.call_once(|| (text, unwind));
    Ok(())
}

/// Writes header, records, slots and imported globals (docs/CELL_ABI.md, "Data block").
fn fill_data_block(cell: &Arc<str>, instance: &Arc<InstanceRecord>, entries: &CellEntries) -> Result<(), LoadError> {
    let (m, image) = (instance.metadata(), instance.image());
    let layout = &m.layout;
    image.write_word(abi::HEADER_INSTANCE as u32, Arc::as_ptr(instance) as usize);
    if let Some(word) = image.gate_instance() {
        word.store(Arc::as_ptr(instance).expose_provenance(), Ordering::Release);
    }
    image.write_word(abi::HEADER_RAISE as u32, crate::call::raise_routine());
    for (offset, memory) in layout.memories.iter().zip(instance.memories()) {
        image.write_word(offset + abi::RECORD_BASE as u32, memory.base());
        image.write_word(offset + abi::RECORD_DESCRIPTOR as u32, memory.descriptor_address());
    }
    for (offset, table) in layout.tables.iter().zip(instance.tables()) {
        image.write_word(offset + abi::RECORD_BASE as u32, table.base());
        image.write_word(offset + abi::RECORD_DESCRIPTOR as u32, table.descriptor_address());
    }
    for (k, builtin) in m.builtins.iter().enumerate() {
        image.write_word(layout.builtin_slots + 8 * k as u32, builtins::address_of(*builtin));
    }
    let mut thunks = Thunks::default();
    let thunk_addresses = make_thunks(cell, instance, &mut thunks.calls)?;
    let imported = |i: u32| instance.imported_func(i).zip(thunk_addresses.get(i as usize).copied());
    for (i, slot) in layout.func_import_slots.iter().enumerate() {
        if let Some((function, thunk)) = imported(i as u32) {
            image.write_word(*slot, function.entry().unwrap_or(thunk));
        }
    }
    let mut escaped = Vec::with_capacity(m.escaped_funcs.len());
    let lets_funcs_escape = instance.code().module().funcrefs_can_escape();
    for (k, (func, slot)) in m.escaped_funcs.iter().zip(&layout.escaped_slots).enumerate() {
        let address = match imported(*func) {
            Some((Function::Wasm(f), _)) => {
                if lets_funcs_escape {
                    f.block.mark_escaped();
                }
                f.entry
            }
            Some((Function::Native(f), _)) => f.reference().map_err(|e| no_memory(cell, "function references", e))?,
            Some((Function::Host(host), _)) if lets_funcs_escape => {
                let thunk = make_thunk(cell, instance, host)?;
                thunk.mark_escaped();
                let address = thunk.address();
                thunks.references.push(thunk);
                address
            }
            Some((Function::Host(_), thunk)) => thunk,
            None => entries.of(k).map_or(0, |(_, entry)| entry),
        };
        image.write_word(*slot, address);
        escaped.push(address);
    }
    instance.thunks.call_once(|| thunks);
    instance.escaped_entries.call_once(|| escaped.into());
    Ok(())
}

fn make_thunk(cell: &Arc<str>, instance: &Arc<InstanceRecord>, host: &HostFunction) -> Result<Thunk, LoadError> {
    // SAFETY: the thunk belongs to the record it points to, and goes before it.
    let thunk = unsafe { Thunk::new(&host.func, host.type_id, Arc::as_ptr(instance)) };
    thunk.map_err(|source| no_memory(cell, "host function thunk", source))
}

/// One thunk per imported closure. Returns their addresses by function index, 0 for other functions.
fn make_thunks(
    cell: &Arc<str>,
    instance: &Arc<InstanceRecord>,
    thunks: &mut Vec<Thunk>,
) -> Result<Vec<usize>, LoadError> {
    let mut addresses = Vec::with_capacity(instance.metadata().imported_funcs.len());
    for i in 0..instance.metadata().imported_funcs.len() as u32 {
        addresses.push(match instance.imported_func(i) {
            Some(Function::Host(host)) => {
                let thunk = make_thunk(cell, instance, host)?;
                let address = thunk.address();
                thunks.push(thunk);
                address
            }
            _ => 0,
        });
    }
    Ok(addresses)
}

/// Initial values: globals in order, then tables.
fn evaluate(cell: &Arc<str>, instance: &Arc<InstanceRecord>, adopts: bool) -> Result<(), LoadError> {
    let (m, image) = (instance.metadata(), instance.image());
    let malformed = || LoadError::Object { cell: cell.clone(), reason: "a constant expression is malformed" };
    for (i, (global, offset)) in m.globals.iter().zip(&m.layout.globals).enumerate() {
        let imported = (i < m.imported_globals as usize).then(|| instance.global(i as u32)).flatten();
        match imported {
            Some(imported) if global.ty.mutable => image.write_word(*offset, imported.address()),
            Some(imported) => write_global(image, *offset, global.ty.content, imported.bits()),
            None => {
                let init = global.init.as_ref().ok_or_else(malformed)?;
                let bits = instance.eval(init).ok_or_else(malformed)?;
                write_global(image, *offset, global.ty.content, bits);
            }
        }
    }
    // What is taken over keeps its elements.
    let skip = if adopts { m.tables.len() } else { m.imported_tables as usize };
    for (table, made) in m.tables.iter().zip(instance.tables()).skip(skip) {
        if let Some(init) = &table.init {
            let value = instance.eval(init).ok_or_else(malformed)? as u64;
            if value != 0 {
                made.fill(0, value, made.len());
            }
        }
    }
    Ok(())
}

fn write_global(image: &CellImage, offset: u32, ty: ValType, bits: u128) {
    // SAFETY: 16 bytes of the data block (`data_address` checks), 16-aligned by the layout, and no code runs yet.
    unsafe { write_bits(image.data_address(offset, 16), ty, bits) };
}

/// Applies active segments and runs the start function, inside the cell's state domain. What happened before a trap stays.
pub(crate) fn start(instance: &Arc<InstanceRecord>, options: &LoadOptions) -> Result<(), LoadError> {
    let cell = || instance.code().cell().clone();
    let guard = instance.domain().map(|d| d.acquire(Some(options.gate_timeout))).transpose();
    let _guard = guard.map_err(|source| LoadError::Gate { cell: cell(), source })?;
    start_inside(instance).map_err(|trap| LoadError::Trap { cell: cell(), trap })
}

fn start_inside(instance: &Arc<InstanceRecord>) -> Result<(), Trap> {
    let m = instance.metadata();
    for (i, segment) in m.elements.iter().enumerate() {
        let i = i as u32;
        if let ElementMode::Active(table, offset) = &segment.mode {
            let offset = instance.eval(offset).ok_or_else(|| Trap::new(TrapCode::TableOutOfBounds))? as u64;
            let count = instance.element_count(i);
            bulk::init_table(instance, *table, i, offset, 0, count)
                .ok_or_else(|| Trap::new(TrapCode::TableOutOfBounds))?;
        }
        if !matches!(segment.mode, ElementMode::Passive) {
            instance.drop_elements(i);
        }
    }
    for (i, segment) in m.data.iter().enumerate() {
        let i = i as u32;
        if let Some((memory, offset)) = &segment.active {
            let offset = instance.eval(offset).ok_or_else(|| Trap::new(TrapCode::MemoryOutOfBounds))? as u64;
            bulk::init_memory(instance, *memory, i, offset, 0, segment.size.into())
                .ok_or_else(|| Trap::new(TrapCode::MemoryOutOfBounds))?;
            instance.drop_data(i);
        }
    }
    let Some(start) = m.start else { return Ok(()) };
    let address = match instance.body_address(start) {
        Some(body) => body,
        None => match m.layout.func_import_slots.get(start as usize) {
            Some(slot) => instance.image().read_word(*slot),
            None => return Ok(()),
        },
    };
    match m.func_type(start) {
        // SAFETY: the address is the start function's, and its type is the module's.
        Some(ty) => match unsafe { crate::call::call_values(address, ty, &[], &mut []) } {
            Err(CallError::Trap(trap)) => Err(trap),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

/// Whether instantiation can have left references to the cell's functions in places that outlive it. They get there through what the
/// cell imports: what it exports itself nobody can have seen yet.
pub(crate) fn may_have_leaked(instance: &InstanceRecord) -> bool {
    let m = instance.metadata();
    let imports = !m.imported_funcs.is_empty() || m.imported_tables > 0 || m.imported_globals > 0;
    imports && instance.code().module().funcrefs_can_escape()
}

/// Everything an instance imports that could hold references to its functions.
pub(crate) fn imported_holders(instance: &InstanceRecord) -> (Vec<Arc<Table>>, Vec<Arc<Global>>) {
    let m = instance.metadata();
    let tables = instance.tables().iter().take(m.imported_tables as usize).cloned().collect();
    let globals = (0..m.imported_globals)
        .filter_map(|i| instance.global(i))
        .filter(|g| g.ty().mutable && matches!(g.ty().content, ValType::Ref(_)))
        .collect();
    (tables, globals)
}
