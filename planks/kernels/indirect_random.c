/* Indirect calls whose target nobody can predict: 64 functions chosen by a generator; half of the table changes while it runs. */
#include "kernel.h"

typedef u32 (*Step)(u32, u32);
#define STEP(i) static NOINLINE u32 s##i(u32 a, u32 b) { return (a ^ b) * (2 * i + 1) + (a >> (i % 13)); }
#define EIGHT(i) STEP(i##0) STEP(i##1) STEP(i##2) STEP(i##3) STEP(i##4) STEP(i##5) STEP(i##6) STEP(i##7)
EIGHT(1) EIGHT(2) EIGHT(3) EIGHT(4) EIGHT(5) EIGHT(6) EIGHT(7) EIGHT(8)
#define NAMES(i) s##i##0, s##i##1, s##i##2, s##i##3, s##i##4, s##i##5, s##i##6, s##i##7
static Step steps[64] = {NAMES(1), NAMES(2), NAMES(3), NAMES(4), NAMES(5), NAMES(6), NAMES(7), NAMES(8)};

KERNEL(n) {
    u64 s = 21;
    u32 x = 1;
    for (u32 i = 0; i < n * 5000; i++) {
        u32 r = next(&s);
        if ((r & 0xfff00000u) == 0) {
            Step t = steps[r & 31];
            steps[r & 31] = steps[r >> 5 & 31], steps[r >> 5 & 31] = t;
        }
        x = steps[r & 63](x, r);
    }
    return x;
}
