//! What the linker and loader must know of a compiled module: types, imports, exports, segments, layout.
//!
//! One value of [`Metadata`] accompanies the machine code of a cell. It is what the metadata section of the ELF
//! object holds (bincode), and it never refers back to the wasm bytes. Its long tables are rows of fixed width (`rows`).

mod rows;

use crate::func_names::FuncNames;
use crate::rows::Rows;
use crate::trap::TrapTable;
use crate::types::{ExternType, FuncType, GlobalType, MemoryStyle, MemoryType, RefType, SaltedId, TableType, TypeId};
use alloc::{boxed::Box, string::String, vec::Vec};
use bincode::{Decode, Encode};

/// A constant expression, in postfix order (core spec, 3.4.12, with extended-const).
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct ConstExpr(pub Box<[ConstOp]>);

/// One instruction of a constant expression. Floats are kept as their bits.
#[derive(Clone, Copy, Debug, PartialEq, Hash, Encode, Decode)]
#[expect(missing_docs, reason = "named after the instructions of the core spec")]
pub enum ConstOp {
    I32Const(i32),
    I64Const(i64),
    F32Const(u32),
    F64Const(u64),
    V128Const([u8; 16]),
    GlobalGet(u32),
    RefNull,
    RefFunc(u32),
    I32Add,
    I32Sub,
    I32Mul,
    I64Add,
    I64Sub,
    I64Mul,
}

/// An import, in the order of the module.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Import {
    /// First name: by convention of this system, the exporting cell.
    pub module: String,
    /// Second name: the exported item.
    pub name: String,
    /// What it must be.
    pub ty: ExternType,
}

/// An export.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// What is exported, with its index in its index space.
    pub item: ExportItem,
}

/// What an export refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum ExportItem {
    /// function index
    Func(u32),
    /// table index
    Table(u32),
    /// memory index
    Memory(u32),
    /// global index
    Global(u32),
}

/// A function defined by the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefinedFunc {
    /// Index into [`Metadata::types`].
    pub ty: u32,
    /// Offset of the body's first instruction in the text section.
    pub offset: u32,
    /// Bytes of code.
    pub size: u32,
    /// Offset of the body in the wasm module.
    pub wasm_offset: u32,
}

/// A table of the module (imported ones too).
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Table {
    /// Its type.
    pub ty: TableType,
    /// Initial value of the elements of a defined table; `None` = null.
    pub init: Option<ConstExpr>,
}

/// A global of the module (imported ones too).
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Global {
    /// Its type.
    pub ty: GlobalType,
    /// Initial value; `None` for imported globals.
    pub init: Option<ConstExpr>,
}

/// A memory of the module (imported ones too).
#[derive(Clone, Copy, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Memory {
    /// Its type.
    pub ty: MemoryType,
    /// How the code was compiled to access it. An imported memory must have this style too.
    pub style: MemoryStyle,
}

/// A data segment.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct DataSegment {
    /// Memory and offset to copy it to at instantiation; `None` for a passive segment.
    pub active: Option<(u32, ConstExpr)>,
    /// Offset of its bytes in the rodata section.
    pub rodata_offset: u32,
    /// Number of bytes.
    pub size: u32,
}

/// What becomes of an element segment at instantiation.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub enum ElementMode {
    /// Copied to a table at an offset.
    Active(u32, ConstExpr),
    /// Kept for `table.init`.
    Passive,
    /// Only declares functions for `ref.func`.
    Declared,
}

/// Elements of a segment.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub enum ElementItems {
    /// Function indices.
    Funcs(Box<[u32]>),
    /// Constant expressions.
    Exprs(Box<[ConstExpr]>),
}

/// An element segment.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct ElementSegment {
    /// What becomes of it.
    pub mode: ElementMode,
    /// Type of the elements.
    pub ty: RefType,
    /// The elements.
    pub items: ElementItems,
}

/// Where things lie in a cell's data block (offsets in bytes from its start, docs/CELL_ABI.md).
#[derive(Clone, Debug, Default, PartialEq, Hash, Encode, Decode)]
pub struct DataLayout {
    /// Bytes of the whole block.
    pub size: u32,
    /// Per imported function: offset of its 8-byte slot.
    pub func_import_slots: Box<[u32]>,
    /// Per function of [`Metadata::escaped_funcs`]: offset of the 8-byte slot that `ref.func` reads.
    pub escaped_slots: Box<[u32]>,
    /// Offset of the first of the 8-byte slots of [`Metadata::builtins`], which lie one behind the other.
    pub builtin_slots: u32,
    /// Per memory: offset of its 16-byte record `{ base, descriptor address }`.
    pub memories: Box<[u32]>,
    /// Per table: offset of its 16-byte record `{ base, descriptor address }`.
    pub tables: Box<[u32]>,
    /// Per global: offset of its 16-byte value, or, for imported mutable globals, of the 8-byte address of the value.
    pub globals: Box<[u32]>,
}

/// Distances in the image of a cell: text, rodata and data in one reservation (offsets in bytes from its start).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ImageLayout {
    /// Bytes of the text section; it starts at 0.
    pub text_size: u32,
    /// Page-aligned.
    pub rodata_offset: u32,
    /// Bytes of rodata, `.eh_frame` included.
    pub rodata_size: u32,
    /// Offset of `.eh_frame` within the image (it is the tail of rodata).
    pub eh_frame_offset: u32,
    /// Bytes of `.eh_frame`, with its 4-byte terminator.
    pub eh_frame_size: u32,
    /// Page-aligned.
    pub data_offset: u32,
    /// Bytes of the data block.
    pub data_size: u32,
    /// Bytes of the reservation, a multiple of the page size.
    pub total: u32,
}

/// A code offset and the wasm offset it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMapping {
    /// Offset in the text section. For calls this is the return address.
    pub code_offset: u32,
    /// Offset in the wasm module.
    pub wasm_offset: u32,
}

/// Place of machine code in the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePlace {
    /// Offset of the instruction in the module.
    pub wasm_offset: u32,
    /// The offset of a call, if the body of the function called stands in its place, and the instruction is in that.
    pub call: Option<u32>,
}

/// Everything about a compiled module but its bytes.
#[derive(Clone, Debug, Default, PartialEq, Hash, Encode, Decode)]
pub struct Metadata {
    /// Module name from the name section, if any.
    pub module_name: Option<String>,
    /// Function types of the module, in its type index space.
    pub types: Box<[FuncType]>,
    /// The id that the code uses for each of `types`. Equal types have equal ids, different types different ones.
    pub type_ids: Box<[SaltedId]>,
    /// Imports, in order.
    pub imports: Box<[Import]>,
    /// Exports, in order.
    pub exports: Box<[Export]>,
    /// Type indices (into `types`) of the imported functions.
    pub imported_funcs: Box<[u32]>,
    /// Functions the module defines, in order; their index space follows the imported ones.
    pub funcs: Rows<DefinedFunc>,
    /// All tables, imported first.
    pub tables: Box<[Table]>,
    /// Number of imported tables.
    pub imported_tables: u32,
    /// All memories, imported first.
    pub memories: Box<[Memory]>,
    /// Number of imported memories.
    pub imported_memories: u32,
    /// All globals, imported first.
    pub globals: Box<[Global]>,
    /// Number of imported globals.
    pub imported_globals: u32,
    /// Data segments.
    pub data: Box<[DataSegment]>,
    /// Element segments.
    pub elements: Box<[ElementSegment]>,
    /// The start function.
    pub start: Option<u32>,
    /// Functions that can be referred to from outside the module's direct calls: exports, `ref.func`, element segments.
    /// Sorted, each once. Each has a stable entry, and a slot at the offset at its position in `DataLayout::escaped_slots`.
    pub escaped_funcs: Box<[u32]>,
    /// Whether anything but instantiation can write a table of the module: its own code, or others, who import or export it.
    pub writes_tables: bool,
    /// Builtins the code calls, each once, in slot order.
    pub builtins: Box<[crate::builtin::Builtin]>,
    /// Where things lie in the data block.
    pub layout: DataLayout,
    /// Distances in the image.
    pub image: ImageLayout,
    /// Trap sites.
    pub traps: TrapTable,
    /// Return addresses of calls (always) and every instruction (with `CompileOptions::full_address_map`), sorted by code offset.
    pub addresses: Rows<AddressMapping>,
    /// Where code stands in place of a call of a small function: for its code offsets among the trap sites and in `addresses`, whose wasm offsets
    /// are those in that function, the wasm offset of the call. A return address counts as the byte before it, the last one of the call
    /// instruction: at the address itself stands what comes after, which may be from elsewhere. Sorted by code offset, each offset at most once.
    pub inlined: Rows<AddressMapping>,
    /// Names of functions by function index (name section).
    pub func_names: FuncNames,
    /// Custom sections kept for others: DWARF of the module (`.debug_*`), by name.
    pub custom: Vec<(String, Vec<u8>)>,
    /// Offset of the code section's contents in the module, to which its DWARF refers.
    pub code_section_offset: u32,
}

impl Metadata {
    /// Number of functions in the index space.
    pub fn func_count(&self) -> usize {
        self.imported_funcs.len() + self.funcs.len()
    }

    /// Index into `types` of the type of the function with this index.
    fn func_type_index(&self, index: u32) -> Option<u32> {
        let i = index as usize;
        match self.imported_funcs.get(i) {
            Some(ty) => Some(*ty),
            None => Some(self.funcs.get(i - self.imported_funcs.len())?.ty),
        }
    }

    /// Type of the function with this index.
    pub fn func_type(&self, index: u32) -> Option<&FuncType> {
        self.types.get(self.func_type_index(index)? as usize)
    }

    /// Type id of the function with this index.
    pub fn func_type_id(&self, index: u32) -> Option<TypeId> {
        Some(self.type_ids.get(self.func_type_index(index)? as usize)?.id)
    }

    /// The defined function whose code contains this text offset, as function index.
    pub fn func_at(&self, code_offset: u32) -> Option<u32> {
        // Bodies are laid out in index order.
        let i = self.funcs.partition_point(|f| f.offset <= code_offset).checked_sub(1)?;
        let f = self.funcs.get(i)?;
        (code_offset - f.offset < f.size).then_some((i + self.imported_funcs.len()) as u32)
    }

    /// The defined function whose body contains this wasm offset, as function index.
    pub fn func_of(&self, wasm_offset: u32) -> Option<u32> {
        // Bodies have the order of their indices.
        let i = self.funcs.partition_point(|f| f.wasm_offset <= wasm_offset).checked_sub(1)?;
        Some((i + self.imported_funcs.len()) as u32)
    }

    /// The row of [`Metadata::inlined`] at exactly this offset.
    fn inlined_at(&self, code_offset: u32) -> Option<u32> {
        let i = self.inlined.binary_search_by_key(&code_offset, |row| row.code_offset).ok()?;
        Some(self.inlined.get(i)?.wasm_offset)
    }

    /// Whether a return address is that of a call in the body of a function that stands in place of a call itself.
    pub fn returns_to_inlined(&self, code_offset: u32) -> bool {
        code_offset.checked_sub(1).and_then(|last| self.inlined_at(last)).is_some()
    }

    /// Name of a function from the name section.
    pub fn func_name(&self, index: u32) -> Option<&str> {
        self.func_names.get(index)
    }

    /// Place in the module of a code offset, which is that of an instruction if it is `exact`, else a return address: that of the trap site or
    /// mapping at it; else that of the last mapping before it in the same function, without what stands in place of a call there.
    pub fn place(&self, code_offset: u32, exact: bool) -> Option<CodePlace> {
        let site = self.traps.lookup(code_offset).map(|t| t.wasm_offset);
        if let Some(wasm_offset) = site.filter(|_| exact) {
            return Some(CodePlace { wasm_offset, call: self.inlined_at(code_offset) });
        }
        let i = self.addresses.partition_point(|a| a.code_offset <= code_offset);
        let mapping = i.checked_sub(1).and_then(|i| self.addresses.get(i));
        let before = mapping.and_then(|a| self.inlined_at(a.code_offset.checked_sub(1)?));
        if let Some(a) = mapping.filter(|a| a.code_offset == code_offset) {
            let call = before.or_else(|| self.inlined_at(code_offset).filter(|_| exact));
            return Some(CodePlace { wasm_offset: a.wasm_offset, call });
        }
        if let Some(wasm_offset) = site {
            return Some(CodePlace { wasm_offset, call: self.inlined_at(code_offset) });
        }
        let a = mapping?;
        let same = self.func_at(a.code_offset.saturating_sub(1)) == self.func_at(code_offset.saturating_sub(1));
        let call = before.or_else(|| self.inlined_at(a.code_offset));
        same.then(|| CodePlace { wasm_offset: call.unwrap_or(a.wasm_offset), call: None })
    }
}
