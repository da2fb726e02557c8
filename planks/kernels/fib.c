/* Recursion: Fibonacci numbers without a table; calls and returns, nothing else. */
#include "kernel.h"

static NOINLINE u32 fib(u32 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

KERNEL(n) {
    u32 sum = 0;
    for (u32 r = 0; r < n; r++) sum = mix(sum, fib(18 + (r & 3)));
    return sum;
}
