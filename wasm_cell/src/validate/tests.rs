use crate::metadata::*;
use crate::trap::{TrapCode, TrapSite};
use crate::types::{MemoryStyle, ValType};
use crate::{CellObject, CompileError, FuncNames, sample};
use alloc::{boxed::Box, string::String, vec};

/// The reason why the sample is refused after `change`.
fn refusal(change: impl FnOnce(&mut CellObject)) -> String {
    let mut object = sample::object();
    assert_eq!(object.validate(), Ok(()));
    change(&mut object);
    match object.validate() {
        Err(CompileError::Object(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

macro_rules! refused {
    ($($name:ident: $part:literal, $change:expr;)*) => {$(
        #[test]
        fn $name() {
            let reason = refusal($change);
            assert!(reason.contains($part), "{reason}");
        }
    )*};
}

refused! {
    text_of_another_size: "image layout", |o| o.text.push(0);
    unaligned_data_block: "image layout", |o| o.metadata.image.data_offset += 8;
    rodata_over_data: "image layout", |o| o.metadata.image.data_offset = 0x1000;
    reservation_too_small: "image layout", |o| o.metadata.image.total = 0x2000;
    eh_frame_not_at_the_end: "tail", |o| o.metadata.image.eh_frame_size -= 4;
    eh_frame_without_terminator: "terminator", |o| *o.rodata.last_mut().unwrap() = 1;
    eh_frame_with_a_record_over_the_terminator: "bad length", |o| {
        let mut at = (o.metadata.image.eh_frame_offset - o.metadata.image.rodata_offset) as usize;
        loop {
            let length = u32::from_le_bytes(o.rodata[at..at + 4].try_into().unwrap());
            let next = at + 4 + length as usize;
            if next + 4 == o.rodata.len() {
                o.rodata[at..at + 4].copy_from_slice(&(length + 4).to_le_bytes());
                break;
            }
            at = next;
        }
    };
    eh_frame_of_foreign_code: "outside .text", |o| o.rodata[0x10 + 24 + 8] ^= 0x80;
    data_block_without_header: "data block", |o| { o.metadata.layout.size = 8; o.metadata.image.data_size = 8; };
    slots_in_the_header: "func_import_slots", |o| o.metadata.layout.func_import_slots[0] = 8;
    slots_beyond_the_block: "builtin_slots", |o| o.metadata.layout.builtin_slots = 256;
    memory_record_missing: "memory records", |o| o.metadata.layout.memories = Box::new([]);
    table_record_unaligned: "table records", |o| o.metadata.layout.tables[0] += 4;
    global_beyond_the_block: "globals", |o| o.metadata.layout.globals[1] = 256;
    global_unaligned: "globals", |o| o.metadata.layout.globals[0] += 8;
    function_beyond_text: "misplaced", |o| o.metadata.funcs[1].size = 0x100;
    functions_overlap: "misplaced", |o| o.metadata.funcs[0].size = 0x20;
    function_without_type: "no type", |o| o.metadata.funcs[0].ty = 9;
    type_ids_missing: "type ids differ", |o| o.metadata.type_ids = Box::new([]);
    type_id_of_another_salt: "type 1 has not the id", |o| o.metadata.type_ids[1].salt = 1;
    type_id_of_another_type: "type 0 has not the id", |o| o.metadata.type_ids[0] = o.metadata.type_ids[1];
    one_type_under_two_salts: "one type by one salt", |o| {
        o.metadata.types[1].hash = o.metadata.types[0].hash;
        o.metadata.type_ids[1] = o.metadata.types[0].hash.salted(1);
    };
    function_without_type_id: "type id", |o| o.text[0x0c] ^= 1;
    traps_unsorted: "trap table", |o| {
        o.metadata.traps.sites.push(TrapSite { code_offset: 0, wasm_offset: 0, code: TrapCode::Unreachable });
    };
    trap_beyond_text: "trap table", |o| o.metadata.traps.sites[0].code_offset = 0x41;
    address_beyond_text: "address map", |o| o.metadata.addresses[0].code_offset = 0x41;
    symbol_beyond_text: "symbol", |o| o.symbols[1].size = 0x11;
    reference_beyond_text: "reference", |o| o.data_references[0].text_offset = 0x3d;
    reference_beyond_data: "reference", |o| o.data_references[0].addend = 0x2000;
    reference_with_another_distance: "reference", |o| o.text[0x17] ^= 1;
    escaped_functions_unsorted: "escaped", |o| o.metadata.escaped_funcs = Box::new([1, 0]);
    escaped_function_unknown: "escaped", |o| o.metadata.escaped_funcs = Box::new([0, 1, 3]);
    import_of_another_type: "import `env` `start`", |o| o.metadata.imported_funcs[0] = 1;
    import_missing: "imports", |o| { o.metadata.imports = Box::new([]); };
    export_of_nothing: "export `memory`", |o| o.metadata.exports[1].item = ExportItem::Memory(1);
    export_without_entry: "export `get`", |o| o.metadata.exports[0].item = ExportItem::Func(2);
    two_exports_of_one_name: "two exports", |o| o.metadata.exports[1].name = "get".into();
    table_with_impossible_limits: "table 0", |o| o.metadata.tables[0].ty.max = Some(1);
    memory_with_impossible_limits: "memory 0", |o| o.metadata.memories[0].ty.min = 1 << 17;
    memory_with_impossible_pages: "page size", |o| o.metadata.memories[0].ty.page_size_log2 = 12;
    guarded_64_bit_memory: "guard pages", |o| o.metadata.memories[0].ty.is64 = true;
    memory_offset_of_another_type: "data segment 0", |o| {
        o.metadata.memories[0].ty.is64 = true;
        o.metadata.memories[0].style = MemoryStyle::Checked;
    };
    imported_global_with_value: "imported global", |o| o.metadata.globals[0].init = Some(ConstExpr(Box::new([])));
    global_without_value: "no initial value", |o| o.metadata.globals[1].init = None;
    global_that_refers_to_itself: "global 1", |o| {
        o.metadata.globals[1].init = Some(ConstExpr(Box::new([ConstOp::GlobalGet(1)])));
    };
    global_of_another_type: "global 1", |o| o.metadata.globals[1].ty.content = ValType::I64;
    expression_without_operands: "operands", |o| {
        o.metadata.globals[1].init = Some(ConstExpr(Box::new([ConstOp::I32Const(1), ConstOp::I32Add])));
    };
    start_with_parameters: "start", |o| o.metadata.start = Some(1);
    start_unknown: "start", |o| o.metadata.start = Some(3);
    data_beyond_rodata: "data segment 1", |o| o.metadata.data[1].size = 5;
    data_for_no_memory: "data segment 0", |o| o.metadata.data[0].active.as_mut().unwrap().0 = 1;
    elements_for_no_table: "element segment 0", |o| {
        o.metadata.elements[0].mode = ElementMode::Active(1, ConstExpr(Box::new([ConstOp::I32Const(0)])));
    };
    element_without_entry: "element segment 0", |o| {
        o.metadata.elements[0].items = ElementItems::Funcs(Box::new([2]));
    };
    null_where_none_is_allowed: "element segment 1", |o| o.metadata.elements[1].ty.nullable = false;
    builtin_twice: "builtin", |o| {
        let builtin = o.metadata.builtins[0];
        o.metadata.builtins = Box::new([builtin, builtin]);
    };
    name_of_unknown_function: "function names", |o| o.metadata.func_names = FuncNames::of(vec![(1, "a"), (3, "x")]);
    too_many_memories: "limit", |o| o.metadata.memories = vec![o.metadata.memories[0]; 101].into();
}
