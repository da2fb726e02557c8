/* Interpreter loop: a stack machine that runs a sieve of its own; one switch, one jump per instruction. */
#include "kernel.h"

enum { PUSH, LOAD, STORE, ADD, MUL, LESS, AND, PEEK, POKE, JUMP, JUMP_ZERO, DUP, HALT };
typedef struct { u16 op; i32 arg; } Op;

/* locals: 0 i, 1 j, 2 count */
static const Op program[] = {
    {PUSH, 2}, {STORE, 0},
    /* 2: while i < 1000 */
    {LOAD, 0}, {PUSH, 1000}, {LESS, 0}, {JUMP_ZERO, 32},
    {LOAD, 0}, {PEEK, 0}, {JUMP_ZERO, 11}, {JUMP, 27}, {HALT, 0},
    /* 11: prime: count++, j = i * i */
    {LOAD, 2}, {PUSH, 1}, {ADD, 0}, {STORE, 2}, {LOAD, 0}, {DUP, 0}, {MUL, 0}, {STORE, 1},
    /* 19: while j < 1000 { mem[j] = 1; j += i } */
    {LOAD, 1}, {PUSH, 1000}, {LESS, 0}, {JUMP_ZERO, 27}, {LOAD, 1}, {POKE, 1}, {JUMP, 33}, {HALT, 0},
    /* 27: i++ */
    {LOAD, 0}, {PUSH, 1}, {ADD, 0}, {STORE, 0}, {JUMP, 2},
    /* 32 */ {HALT, 0},
    /* 33: j += i */
    {LOAD, 1}, {LOAD, 0}, {ADD, 0}, {STORE, 1}, {JUMP, 19},
};

static u8 memory[1024];
static i32 locals[4];

static NOINLINE u32 execute(const Op *code, u32 *steps) {
    i32 stack[32], *sp = stack;
    u32 pc = 0, count = 0;
    for (;; count++) {
        Op op = code[pc++];
        switch (op.op) {
        case PUSH: *sp++ = op.arg; break;
        case LOAD: *sp++ = locals[op.arg]; break;
        case STORE: locals[op.arg] = *--sp; break;
        case ADD: sp--, sp[-1] += sp[0]; break;
        case MUL: sp--, sp[-1] *= sp[0]; break;
        case LESS: sp--, sp[-1] = sp[-1] < sp[0]; break;
        case AND: sp--, sp[-1] &= sp[0]; break;
        case PEEK: sp[-1] = memory[sp[-1] & 1023]; break;
        case POKE: memory[*--sp & 1023] = (u8)op.arg; break;
        case JUMP: pc = (u32)op.arg; break;
        case JUMP_ZERO: if (!*--sp) pc = (u32)op.arg; break;
        case DUP: sp[0] = sp[-1], sp++; break;
        case HALT: *steps = count; return (u32)locals[2];
        }
    }
}

KERNEL(n) {
    u32 sum = 0, steps;
    for (u32 r = 0; r < n * 10; r++) {
        for (u32 i = 0; i < LENGTH(memory); i++) memory[i] = 0;
        locals[2] = 0;
        sum = mix(sum, execute(program, &steps));
        sum = mix(sum, steps);
    }
    return sum;
}
