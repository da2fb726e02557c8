/* Recursion: the n-queens problem by bit masks. */
#include "kernel.h"

static NOINLINE u32 place(u32 all, u32 columns, u32 left, u32 right) {
    u32 count = 0;
    if (columns == all) return 1;
    for (u32 free = all & ~(columns | left | right); free;) {
        u32 bit = free & -free;
        free ^= bit;
        count += place(all, columns | bit, (left | bit) << 1, (right | bit) >> 1);
    }
    return count;
}

KERNEL(n) {
    u32 sum = 0;
    for (u32 r = 0; r < n; r++) sum = mix(sum, place((1u << (8 + r % 3)) - 1, 0, 0, 0));
    return sum;
}
