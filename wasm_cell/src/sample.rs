//! A small hand-made object for tests of the object format: it owes nothing to the compiler.

use crate::abi::{GLOBAL_SIZE, HEADER_SIZE};
use crate::builtin::Builtin;
use crate::cpu::CpuFeatures;
use crate::func_names::FuncNames;
use crate::header::ObjectHeader;
use crate::metadata::*;
use crate::object::{CellObject, DataReference, Symbol};
use crate::rows::Rows;
use crate::trap::{TrapCode, TrapSite, TrapTable};
use crate::types::*;
use alloc::{boxed::Box, vec, vec::Vec};

/// Two imports' worth of everything: functions, a table, a memory, globals, segments, traps, symbols, unwind info.
pub fn object() -> CellObject {
    let nullary = FuncType { params: Box::new([]), results: Box::new([]), hash: TypeHash([1; 16]) };
    let unary = FuncType {
        params: Box::new([ValType::I32]),
        results: Box::new([ValType::I64]),
        hash: TypeHash([0x21, 0x43, 0x65, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
    };
    let image = ImageLayout {
        text_size: 0x40,
        rodata_offset: 0x1000,
        rodata_size: 0,
        eh_frame_offset: 0x1010,
        eh_frame_size: 0,
        data_offset: 0x2000,
        data_size: 256,
        total: 0x3000,
    };
    let (text, data_references) = text(&image, &unary);
    let mut rodata = b"hello, world\0\0\0\0".to_vec();
    rodata.extend(eh_frame(&image));
    let image = ImageLayout {
        rodata_size: rodata.len() as u32,
        eh_frame_size: rodata.len() as u32 - (image.eh_frame_offset - image.rodata_offset),
        ..image
    };
    let table = TableType { element: RefType::FUNCREF, is64: false, min: 2, max: Some(10) };
    let memory = MemoryType { is64: false, shared: false, min: 1, max: None, page_size_log2: 16 };
    let constant = GlobalType { content: ValType::I32, mutable: false };
    let import = |name: &str, ty: ExternType| Import { module: "env".into(), name: name.into(), ty };
    let i32_const = |n| ConstExpr(Box::new([ConstOp::I32Const(n)]));
    let metadata = Metadata {
        module_name: Some("sample".into()),
        type_ids: Box::new([nullary.hash.salted(0), unary.hash.salted(0)]),
        types: Box::new([nullary.clone(), unary]),
        imports: Box::new([import("start", ExternType::Func(nullary)), import("base", ExternType::Global(constant))]),
        exports: Box::new([
            Export { name: "get".into(), item: ExportItem::Func(1) },
            Export { name: "memory".into(), item: ExportItem::Memory(0) },
        ]),
        imported_funcs: Box::new([0]),
        funcs: Rows::from(vec![
            DefinedFunc { ty: 1, offset: 0x10, size: 14, wasm_offset: 0x50 },
            DefinedFunc { ty: 0, offset: 0x30, size: 6, wasm_offset: 0x60 },
        ]),
        tables: Box::new([Table { ty: table, init: None }]),
        memories: Box::new([Memory { ty: memory, style: MemoryStyle::Guarded }]),
        globals: Box::new([
            Global { ty: constant, init: None },
            Global {
                ty: GlobalType { content: ValType::I32, mutable: true },
                init: Some(ConstExpr(Box::new([ConstOp::GlobalGet(0), ConstOp::I32Const(4), ConstOp::I32Add]))),
            },
        ]),
        imported_globals: 1,
        data: Box::new([
            DataSegment { active: Some((0, i32_const(8))), rodata_offset: 0, size: 12 },
            DataSegment { active: None, rodata_offset: 12, size: 0 },
        ]),
        elements: Box::new([
            ElementSegment {
                mode: ElementMode::Active(0, i32_const(0)),
                ty: RefType::FUNCREF,
                items: ElementItems::Funcs(Box::new([0, 1])),
            },
            ElementSegment {
                mode: ElementMode::Passive,
                ty: RefType::FUNCREF,
                items: ElementItems::Exprs(Box::new([
                    ConstExpr(Box::new([ConstOp::RefNull])),
                    ConstExpr(Box::new([ConstOp::RefFunc(1)])),
                ])),
            },
        ]),
        start: Some(0),
        escaped_funcs: Box::new([0, 1]),
        builtins: Box::new([Builtin::MemoryGrow]),
        layout: DataLayout {
            size: image.data_size,
            func_import_slots: Box::new([HEADER_SIZE]),
            escaped_slots: Box::new([HEADER_SIZE + 8, HEADER_SIZE + 16]),
            builtin_slots: HEADER_SIZE + 24,
            memories: Box::new([HEADER_SIZE + 32]),
            tables: Box::new([HEADER_SIZE + 48]),
            globals: Box::new([HEADER_SIZE + 64, HEADER_SIZE + 64 + GLOBAL_SIZE]),
        },
        image,
        traps: TrapTable {
            sites: vec![TrapSite { code_offset: 0x35, wasm_offset: 0x62, code: TrapCode::Unreachable }].into(),
        },
        addresses: vec![AddressMapping { code_offset: 0x35, wasm_offset: 0x62 }].into(),
        func_names: FuncNames::of(vec![(1, "get"), (2, "weird \0 name \\0")]),
        custom: vec![(".debug_info".into(), vec![1, 2, 3])],
        code_section_offset: 0x40,
        ..Metadata::default()
    };
    let symbol = |name: &str, offset, size, global| Symbol { name: name.into(), offset, size, global };
    CellObject {
        header: ObjectHeader {
            settings: "opt_level=speed".into(),
            cpu: CpuFeatures { sse41: true, ..CpuFeatures::NONE },
        },
        text,
        rodata,
        symbols: vec![symbol("get", 0x10, 14, true), symbol("weird \0 name \\0", 0x30, 6, false)],
        data_references,
        metadata,
        reuse: Default::default(),
    }
}

/// `get` takes the address of the data block, the other function calls a trap stub that is not there.
fn text(image: &ImageLayout, unary: &FuncType) -> (Vec<u8>, Vec<DataReference>) {
    let mut text = vec![0xcc; image.text_size as usize];
    text[0x0c..0x10].copy_from_slice(&unary.hash.id(0).0.to_le_bytes());
    // push rbp; mov rbp, rsp; lea rax, [rip + data block]; pop rbp; ret; nop
    text[0x10..0x1e].copy_from_slice(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x8d, 0x05, 0, 0, 0, 0, 0x5d, 0xc3, 0x90]);
    let reference = DataReference { text_offset: 0x17, addend: 0x40 - 4 };
    let distance = image.data_offset as i32 + reference.addend - reference.text_offset as i32;
    text[0x17..0x1b].copy_from_slice(&distance.to_le_bytes());
    // push rbp; mov rbp, rsp; pop rbp; ret
    text[0x30..0x36].copy_from_slice(&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3]);
    (text, vec![reference])
}

/// One CIE (`CFA = rsp + 8`) and one FDE per function, with a terminator.
fn eh_frame(image: &ImageLayout) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend([20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0]);
    for (offset, size) in [(0x10i32, 14u32), (0x30, 6)] {
        let start = out.len();
        out.extend(20u32.to_le_bytes());
        out.extend((start as u32 + 4).to_le_bytes());
        out.extend((offset - (image.eh_frame_offset as i32 + start as i32 + 8)).to_le_bytes());
        out.extend(size.to_le_bytes());
        // Augmentation length 0; after `push rbp; mov rbp, rsp`: CFA = rbp + 16, rbp at CFA - 16.
        out.extend([0, 0x44, 0x0c, 6, 16, 0x86, 2, 0]);
    }
    out.extend([0; 4]);
    out
}
