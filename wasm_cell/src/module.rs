//! Reading a module: sections to metadata, validated on the way, function bodies set aside.
//!
//! One pass. What a section holds is checked against the limits before it is copied anywhere. Bodies are validated when
//! they are translated.

use crate::canonical::{self, Excluded};
use crate::error::CompileError;
use crate::features::{self, FEATURES};
use crate::metadata::{
    ConstExpr, ConstOp, DataSegment, DefinedFunc, ElementItems, ElementMode, ElementSegment, Export, ExportItem,
    Global, Import, Memory, Metadata, Table,
};
use crate::names;
use crate::types::{ExternType, FuncType, GlobalType, MemoryStyle, MemoryType, RefType, TableType, TypeHash};
use crate::validators::{Reused, Validators};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use kernel_config::limits;
use wasmparser::{
    DataKind, ElementKind, ExternalKind, FuncToValidate, FunctionBody, Operator, Parser, Payload, TableInit, TypeRef,
    ValidPayload, ValidatorResources,
};

/// A function body that waits to be translated.
pub(crate) struct Body<'a> {
    /// What its validation needs.
    pub validate: FuncToValidate<ValidatorResources>,
    /// Its bytes.
    pub body: FunctionBody<'a>,
}

/// A module whose sections are read and valid; its bodies are not yet.
pub(crate) struct Module<'a> {
    /// Everything but layout, code offsets and traps.
    pub meta: Metadata,
    /// Bodies of the defined functions, in order.
    pub bodies: Vec<Body<'a>>,
    /// Bytes of the data segments.
    pub rodata: Vec<u8>,
}

/// Why reading failed.
pub(crate) enum ReadError {
    /// The parser or validator says so.
    Invalid(wasmparser::Error),
    /// The section needs what is refused by name.
    Excluded(Excluded),
    /// Anything else.
    Other(CompileError),
}

impl From<wasmparser::Error> for ReadError {
    fn from(e: wasmparser::Error) -> Self {
        ReadError::Invalid(e)
    }
}

impl From<CompileError> for ReadError {
    fn from(e: CompileError) -> Self {
        ReadError::Other(e)
    }
}

impl From<Excluded> for ReadError {
    fn from(e: Excluded) -> Self {
        ReadError::Excluded(e)
    }
}

type Read<T = ()> = Result<T, ReadError>;

/// Fails if `value` is more than `limit`.
pub(crate) fn check_limit(what: &'static str, value: usize, limit: usize) -> Result<(), CompileError> {
    if value > limit {
        return Err(CompileError::Limit { what, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Reads `wasm`. `guarded`: whether 32-bit memories get guard pages.
pub(crate) fn read<'a>(wasm: &'a [u8], guarded: bool, validators: &Validators) -> Read<Module<'a>> {
    check_limit("bytes of the module", wasm.len(), limits::MODULE_BYTES)?;
    let mut reader = Reader {
        validator: validators.take(),
        guarded,
        meta: Metadata::default(),
        bodies: Vec::new(),
        rodata: Vec::new(),
        types: Vec::new(),
        imports: Vec::new(),
        imported_funcs: Vec::new(),
        memories: Vec::new(),
        tables: Vec::new(),
        globals: Vec::new(),
        escaped: Vec::new(),
        elements: 0,
    };
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES);
    for payload in parser.parse_all(wasm) {
        let payload = payload?;
        let offset = payload.as_section().map_or(0, |(_, range)| range.start);
        reader.payload(payload).map_err(|e| match e {
            ReadError::Excluded(Excluded(what)) => ReadError::Other(CompileError::UnsupportedFeature {
                feature: features::GC,
                offset,
                reason: format!("{what} in the section that starts here"),
            }),
            e => e,
        })?;
    }
    let (module, validator) = reader.finish();
    validators.give_back(validator, module.meta.types.len());
    Ok(module)
}

struct Reader<'a> {
    validator: Reused,
    guarded: bool,
    meta: Metadata,
    bodies: Vec<Body<'a>>,
    rodata: Vec<u8>,
    types: Vec<FuncType>,
    imports: Vec<Import>,
    imported_funcs: Vec<u32>,
    memories: Vec<Memory>,
    tables: Vec<Table>,
    globals: Vec<Global>,
    /// Functions that something outside direct calls can refer to; unsorted, with repetitions.
    escaped: Vec<u32>,
    /// Elements of all element segments so far.
    elements: usize,
}

impl<'a> Reader<'a> {
    fn finish(mut self) -> (Module<'a>, Reused) {
        self.escaped.sort_unstable();
        self.escaped.dedup();
        self.meta.types = self.types.into();
        self.meta.imports = self.imports.into();
        self.meta.imported_funcs = self.imported_funcs.into();
        self.meta.memories = self.memories.into();
        self.meta.tables = self.tables.into();
        self.meta.globals = self.globals.into();
        self.meta.escaped_funcs = self.escaped.into();
        (Module { meta: self.meta, bodies: self.bodies, rodata: self.rodata }, self.validator)
    }

    fn payload(&mut self, payload: Payload<'a>) -> Read {
        self.check_counts(&payload)?;
        match self.validator.validator.payload(&payload)? {
            ValidPayload::Func(validate, body) => {
                self.body(validate, body)?;
                return Ok(());
            }
            ValidPayload::Ok | ValidPayload::End(_) | ValidPayload::Parser(_) => {}
        }
        match payload {
            Payload::TypeSection(section) => {
                self.types.reserve_exact(section.count() as usize);
                for group in section {
                    canonical::add_group(&mut self.types, &group?)?;
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.import(import?)?;
                }
            }
            Payload::FunctionSection(section) => {
                let mut funcs = Vec::with_capacity(section.count() as usize);
                for ty in section {
                    funcs.push(DefinedFunc { ty: ty?, offset: 0, size: 0, wasm_offset: 0 });
                }
                self.meta.funcs = funcs.into();
            }
            Payload::TableSection(section) => {
                for table in section {
                    let table = table?;
                    let ty = self.table_type(&table.ty)?;
                    let init = match table.init {
                        TableInit::RefNull => None,
                        TableInit::Expr(e) => Some(self.const_expr(&e)?),
                    };
                    self.tables.push(Table { ty, init });
                }
            }
            Payload::MemorySection(section) => {
                for ty in section {
                    let memory = self.memory(&ty?);
                    self.memories.push(memory);
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let global = global?;
                    let ty = self.global_type(&global.ty)?;
                    let init = Some(self.const_expr(&global.init_expr)?);
                    self.globals.push(Global { ty, init });
                }
            }
            Payload::ExportSection(section) => {
                let mut exports = Vec::with_capacity(section.count() as usize);
                self.escaped.reserve_exact(section.count() as usize);
                for export in section {
                    exports.push(self.export(&export?)?);
                }
                self.meta.exports = exports.into();
            }
            Payload::StartSection { func, .. } => self.meta.start = Some(func),
            Payload::ElementSection(section) => {
                let mut segments = Vec::with_capacity(section.count() as usize);
                for element in section {
                    segments.push(self.element(element?)?);
                }
                self.meta.elements = segments.into();
            }
            Payload::CodeSectionStart { count, unchecked_range, .. } => {
                self.bodies.reserve_exact(count as usize);
                self.meta.code_section_offset = unchecked_range.start as u32;
            }
            Payload::DataSection(section) => {
                let mut segments = Vec::with_capacity(section.count() as usize);
                for data in section {
                    segments.push(self.data(&data?)?);
                }
                self.meta.data = segments.into();
            }
            Payload::CustomSection(section) => {
                if section.name() == "name" {
                    let functions = self.imported_funcs.len() + self.meta.funcs.len();
                    names::read(&mut self.meta, functions, section.data_reader());
                } else if section.name().starts_with(".debug_") {
                    self.meta.custom.push((section.name().to_string(), section.data().to_vec()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the number of entries of a section before anything is made of them.
    fn check_counts(&self, payload: &Payload<'_>) -> Result<(), CompileError> {
        match payload {
            Payload::TypeSection(s) => check_limit("types", s.count() as usize, limits::TYPES),
            Payload::ImportSection(s) => check_limit("imports", s.count() as usize, limits::IMPORTS),
            Payload::FunctionSection(s) => {
                check_limit("functions", self.imported_funcs.len() + s.count() as usize, limits::FUNCTIONS)
            }
            Payload::TableSection(s) => check_limit("tables", self.tables.len() + s.count() as usize, limits::TABLES),
            Payload::MemorySection(s) => {
                check_limit("memories", self.memories.len() + s.count() as usize, limits::MEMORIES)
            }
            Payload::GlobalSection(s) => {
                check_limit("globals", self.globals.len() + s.count() as usize, limits::GLOBALS)
            }
            Payload::ExportSection(s) => check_limit("exports", s.count() as usize, limits::EXPORTS),
            Payload::ElementSection(s) => check_limit("element segments", s.count() as usize, limits::ELEMENT_SEGMENTS),
            Payload::DataSection(s) => check_limit("data segments", s.count() as usize, limits::DATA_SEGMENTS),
            _ => Ok(()),
        }
    }

    /// Hash of the type at an index.
    fn type_hash(&self, index: u32) -> Result<TypeHash, Excluded> {
        self.types.get(index as usize).map(|t| t.hash).ok_or(Excluded::UNKNOWN_TYPE)
    }

    fn ref_type(&self, ty: wasmparser::RefType) -> Result<RefType, Excluded> {
        canonical::ref_type(ty, |i| self.type_hash(i))
    }

    fn table_type(&self, ty: &wasmparser::TableType) -> Result<TableType, Excluded> {
        Ok(TableType { element: self.ref_type(ty.element_type)?, is64: ty.table64, min: ty.initial, max: ty.maximum })
    }

    fn global_type(&self, ty: &wasmparser::GlobalType) -> Result<GlobalType, Excluded> {
        let content = canonical::val_type(ty.content_type, |i| self.type_hash(i))?;
        Ok(GlobalType { content, mutable: ty.mutable })
    }

    fn memory(&self, ty: &wasmparser::MemoryType) -> Memory {
        let page_size_log2 = ty.page_size_log2.unwrap_or(16);
        let ty = MemoryType { is64: ty.memory64, shared: ty.shared, min: ty.initial, max: ty.maximum, page_size_log2 };
        let guarded = self.guarded && !ty.is64 && page_size_log2 == 16;
        Memory { ty, style: if guarded { MemoryStyle::Guarded } else { MemoryStyle::Checked } }
    }

    fn import(&mut self, import: wasmparser::Import<'_>) -> Read {
        let ty = match import.ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                self.imported_funcs.push(index);
                ExternType::Func(self.types.get(index as usize).ok_or(Excluded::UNKNOWN_TYPE)?.clone())
            }
            TypeRef::Table(t) => {
                let ty = self.table_type(&t)?;
                self.tables.push(Table { ty, init: None });
                self.meta.imported_tables += 1;
                ExternType::Table(ty)
            }
            TypeRef::Memory(m) => {
                let memory = self.memory(&m);
                self.memories.push(memory);
                self.meta.imported_memories += 1;
                ExternType::Memory(memory.ty)
            }
            TypeRef::Global(g) => {
                let ty = self.global_type(&g)?;
                self.globals.push(Global { ty, init: None });
                self.meta.imported_globals += 1;
                ExternType::Global(ty)
            }
            TypeRef::Tag(_) => return Err(Excluded("a tag").into()),
        };
        self.imports.push(Import { module: import.module.to_string(), name: import.name.to_string(), ty });
        Ok(())
    }

    fn export(&mut self, export: &wasmparser::Export<'_>) -> Read<Export> {
        let item = match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => {
                self.escaped.push(export.index);
                ExportItem::Func(export.index)
            }
            ExternalKind::Table => ExportItem::Table(export.index),
            ExternalKind::Memory => ExportItem::Memory(export.index),
            ExternalKind::Global => ExportItem::Global(export.index),
            ExternalKind::Tag => return Err(Excluded("a tag").into()),
        };
        Ok(Export { name: export.name.to_string(), item })
    }

    fn element(&mut self, element: wasmparser::Element<'_>) -> Read<ElementSegment> {
        let mode = match element.kind {
            ElementKind::Active { table_index, offset_expr } => {
                ElementMode::Active(table_index.unwrap_or(0), self.const_expr(&offset_expr)?)
            }
            ElementKind::Passive => ElementMode::Passive,
            ElementKind::Declared => ElementMode::Declared,
        };
        let count = match &element.items {
            wasmparser::ElementItems::Functions(f) => f.count(),
            wasmparser::ElementItems::Expressions(_, e) => e.count(),
        };
        self.elements += count as usize;
        check_limit("elements", self.elements, limits::ELEMENTS)?;
        let (ty, items) = match element.items {
            wasmparser::ElementItems::Functions(funcs) => {
                let funcs = funcs.into_iter().collect::<Result<Box<[u32]>, _>>()?;
                self.escaped.extend_from_slice(&funcs);
                (RefType { nullable: false, ..RefType::FUNCREF }, ElementItems::Funcs(funcs))
            }
            wasmparser::ElementItems::Expressions(ty, exprs) => {
                let mut list = Vec::with_capacity(exprs.count() as usize);
                for expr in exprs {
                    list.push(self.const_expr(&expr?)?);
                }
                (self.ref_type(ty)?, ElementItems::Exprs(list.into()))
            }
        };
        Ok(ElementSegment { mode, ty, items })
    }

    fn data(&mut self, data: &wasmparser::Data<'_>) -> Read<DataSegment> {
        check_limit("bytes of data segments", self.rodata.len() + data.data.len(), limits::DATA_BYTES)?;
        let active = match &data.kind {
            DataKind::Active { memory_index, offset_expr } => Some((*memory_index, self.const_expr(offset_expr)?)),
            DataKind::Passive => None,
        };
        let rodata_offset = self.rodata.len() as u32;
        self.rodata.extend_from_slice(data.data);
        Ok(DataSegment { active, rodata_offset, size: data.data.len() as u32 })
    }

    fn body(&mut self, validate: FuncToValidate<ValidatorResources>, body: FunctionBody<'a>) -> Read {
        let range = body.range();
        check_limit("bytes of a function body", (range.end - range.start) as usize, limits::FUNCTION_BYTES)?;
        let index = self.bodies.len();
        if let Some(func) = self.meta.funcs.get_mut(index) {
            func.wasm_offset = range.start as u32;
        }
        self.bodies.push(Body { validate, body });
        Ok(())
    }

    /// A validated constant expression.
    fn const_expr(&mut self, expr: &wasmparser::ConstExpr<'_>) -> Read<ConstExpr> {
        let mut ops = Vec::with_capacity(1);
        let mut reader = expr.get_operators_reader();
        while !reader.eof() {
            ops.push(match reader.read()? {
                Operator::I32Const { value } => ConstOp::I32Const(value),
                Operator::I64Const { value } => ConstOp::I64Const(value),
                Operator::F32Const { value } => ConstOp::F32Const(value.bits()),
                Operator::F64Const { value } => ConstOp::F64Const(value.bits()),
                Operator::V128Const { value } => ConstOp::V128Const(*value.bytes()),
                Operator::GlobalGet { global_index } => ConstOp::GlobalGet(global_index),
                Operator::RefNull { .. } => ConstOp::RefNull,
                Operator::RefFunc { function_index } => {
                    self.escaped.push(function_index);
                    ConstOp::RefFunc(function_index)
                }
                Operator::I32Add => ConstOp::I32Add,
                Operator::I32Sub => ConstOp::I32Sub,
                Operator::I32Mul => ConstOp::I32Mul,
                Operator::I64Add => ConstOp::I64Add,
                Operator::I64Sub => ConstOp::I64Sub,
                Operator::I64Mul => ConstOp::I64Mul,
                Operator::End => break,
                _ => return Err(Excluded("an instruction on heap objects").into()),
            });
        }
        Ok(ConstExpr(ops.into()))
    }
}
