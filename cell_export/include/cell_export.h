// Typed descriptions of the functions that a native cell exports, for the loader of cells.
//
//     int32_t add(int32_t a, int64_t b) { return a + (int32_t)b; }
//     PLANKS_EXPORT(add, "i32(i32,i64)");
//
// makes `add` of cell `math` the export `math::add`, `(func (param i32 i64) (result i32))`. Types: i32 i64 f32 f64 v128 funcref externref;
// `void` or nothing for no result. A function with several results, "i32,f64(i32)", is `struct R *f(struct R *results, int32_t)`.
//
//     extern int32_t PLANKS_IMPORT(counter, inc)(int32_t by);
//
// is the export `inc` of cell `counter`. A name that is no identifier needs `__asm__("cell::name")` behind the declaration, and an
// assembler that takes quoted symbols (clang's does).
#ifndef PLANKS_CELL_EXPORT_H
#define PLANKS_CELL_EXPORT_H

#include <stdint.h>

// Describes `function` under its own name.
#define PLANKS_EXPORT(function, signature) PLANKS_EXPORT_AS(function, #function, signature)

// Describes `function` under another name.
#define PLANKS_EXPORT_AS(function, export_name, type_text)                                                         \
    static const struct planks_export_of_##function {                                                             \
        uint32_t magic, bytes;                                                                                    \
        void (*address)(void);                                                                                    \
        uint16_t name_length, signature_length;                                                                   \
        char name[sizeof(export_name)], signature[sizeof(type_text)];                                             \
    } planks_export_of_##function __attribute__((section(".planks.exports"), used, aligned(8))) = {               \
        UINT32_C(0x31584b50), sizeof(struct planks_export_of_##function), (void (*)(void))(function),             \
        sizeof(export_name), sizeof(type_text), export_name, type_text}

// The symbol of export `function` of cell `cell`.
#define PLANKS_IMPORT(cell, function) planks$##cell##$##function

#endif
