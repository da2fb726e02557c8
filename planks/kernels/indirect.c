/* Indirect calls whose target the processor can predict: a ring of eight small functions, in order. */
#include "kernel.h"

typedef u32 (*Step)(u32, u32);
#define STEP(name, e) static NOINLINE u32 name(u32 a, u32 b) { return e; }
STEP(s0, a + b) STEP(s1, a ^ b * 3) STEP(s2, (a << 5 | a >> 27) + b) STEP(s3, a * 33 + b)
STEP(s4, a - b) STEP(s5, a ^ a >> 7 ^ b) STEP(s6, a + (b << 3)) STEP(s7, ~a ^ b)
static const Step steps[8] = {s0, s1, s2, s3, s4, s5, s6, s7};

KERNEL(n) {
    u32 x = 1;
    for (u32 i = 0; i < n * 20000; i++) x = steps[i & 7](x, i);
    return x;
}
