//! Instantiation (core spec, 4.5.4): from a linked module to an instance whose start function has run.
//!
//! The phases are functions in the order of the spec: allocate, lay out the data block, evaluate globals and tables, apply
//! active segments, start. Until the active segments nothing outside the new cell changes, so a failure leaves no trace.

use crate::builtins::{self, bulk};
use crate::call::CallError;
use crate::code::LoadedCode;
use crate::domain::{Concurrency, Domain};
use crate::entry_plan::CellEntries;
use crate::error::LoadError;
use crate::function::{Function, HostFunction};
use crate::global::{Global, write_bits};
use crate::host::Thunk;
use crate::image::CellImage;
use crate::instance::{InstanceRecord, Parts, Thunks};
use crate::options::LoadOptions;
use crate::section::{SectionItem, StrongSectionRef};
use crate::staged::{self, Request, Staged, no_memory};
use crate::table::Table;
use crate::text_index;
use crate::trap::Trap;
use alloc::{string::ToString, sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;
use runtime_port::unwind::UnwindRegistration;
use wasm_cell::{abi, metadata::ElementMode, trap::TrapCode, types::ValType};

/// Makes the instance and its entries. Neither segments nor start have run; nothing outside refers to it.
pub(crate) fn allocate(
    request: Request<'_>,
    imports: &[StrongSectionRef],
) -> Result<(Arc<InstanceRecord>, CellEntries), LoadError> {
    let made = link(staged::stage(request)?, imports)?;
    evaluate_globals(&made.0)?;
    fill_tables(&made.0, request.adopt.is_some())?;
    Ok(made)
}

/// Makes the instance of a cell whose state and entries are there. Its globals and tables have no values yet.
pub(crate) fn link(
    staged: Staged<'_>,
    imports: &[StrongSectionRef],
) -> Result<(Arc<InstanceRecord>, CellEntries), LoadError> {
    let Staged { request, memories, tables, image, entries, promised, .. } = staged;
    let Request { cell, module, options, domain, .. } = request;
    let m = module.metadata();
    let mut funcs = Vec::with_capacity(m.imported_funcs.len());
    let mut imported_tables = Vec::with_capacity(m.tables.len());
    let mut imported_memories = Vec::with_capacity(m.memories.len());
    let mut globals = Vec::with_capacity(m.imported_globals as usize);
    for section in imports {
        match &section.item {
            SectionItem::Func(f) => funcs.push(f.imported_by(module, funcs.len() as u32)),
            SectionItem::Table(t) => imported_tables.push(t.clone()),
            SectionItem::Memory(m) => imported_memories.push(m.clone()),
            SectionItem::Global(g) => globals.push(g.clone()),
            SectionItem::Native(_) | SectionItem::Part => {}
        }
    }
    imported_memories.extend(memories);
    imported_tables.extend(tables);
    let code = LoadedCode::new(cell.clone(), request.version, image.text(), module.clone());
    let instance = InstanceRecord::new(Parts {
        code,
        image,
        memories: imported_memories.into(),
        tables: imported_tables.into(),
        imported_globals: globals.into(),
        imported_funcs: funcs.into(),
    });
    register(cell, &instance)?;
    fill_data_block(cell, &instance, &entries)?;
    if Concurrency::of(m) == Concurrency::Gated {
        instance.join(domain_of(&instance, &promised, domain.cloned(), options)?);
    }
    Ok((instance, entries))
}

/// The domain of an instance with this state: that of all of it, joined if need be. What belongs to none yet belongs to it from now on.
fn domain_of(
    instance: &InstanceRecord,
    promised: &[Arc<Global>],
    predecessor: Option<Arc<Domain>>,
    options: &LoadOptions,
) -> Result<Arc<Domain>, LoadError> {
    let memories = instance.memories().iter().map(|m| m.domain());
    let tables = instance.tables().iter().map(|t| t.domain());
    let globals = instance.imported_globals().iter().chain(promised).filter(|g| g.ty().mutable).map(|g| g.domain());
    let parts: Vec<_> = memories.chain(tables).chain(globals).collect();
    let known = predecessor.or_else(|| parts.iter().find_map(|p| p.get().cloned()));
    let domain = known.unwrap_or_else(Domain::new);
    for part in parts {
        let joined = domain.join(part.get_or_set(&domain), options.gate_timeout);
        joined.map_err(|source| LoadError::Gate { cell: instance.code().cell().clone(), source })?;
    }
    Ok(domain.root())
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

/// Gives globals their initial values, in order.
pub(crate) fn evaluate_globals(instance: &InstanceRecord) -> Result<(), LoadError> {
    (0..instance.metadata().globals.len()).try_for_each(|i| evaluate_global(instance, i))
}

fn malformed(instance: &InstanceRecord) -> LoadError {
    LoadError::Object { cell: instance.code().cell().clone(), reason: "a constant expression is malformed" }
}

/// Gives a global its initial value, or what stands for it in the data block if it is an imported one.
pub(crate) fn evaluate_global(instance: &InstanceRecord, index: usize) -> Result<(), LoadError> {
    let (m, image) = (instance.metadata(), instance.image());
    let (Some(global), Some(offset)) = (m.globals.get(index), m.layout.globals.get(index)) else { return Ok(()) };
    match instance.imported_globals().get(index) {
        Some(imported) if global.ty.mutable => image.write_word(*offset, imported.address()),
        Some(imported) => write_global(image, *offset, global.ty.content, imported.bits()),
        None => {
            let bits = global.init.as_ref().and_then(|init| instance.eval(init)).ok_or_else(|| malformed(instance))?;
            write_global(image, *offset, global.ty.content, bits);
        }
    }
    Ok(())
}

/// Fills tables with their initial value. What is taken over keeps its elements.
pub(crate) fn fill_tables(instance: &InstanceRecord, adopts: bool) -> Result<(), LoadError> {
    let m = instance.metadata();
    let skip = if adopts { m.tables.len() } else { m.imported_tables as usize };
    for (table, made) in m.tables.iter().zip(instance.tables()).skip(skip) {
        if let Some(init) = &table.init {
            let value = instance.eval(init).ok_or_else(|| malformed(instance))? as u64;
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
