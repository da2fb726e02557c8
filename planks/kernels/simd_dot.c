/* SIMD: dot products and norms of f32 vectors, four lanes, four sums. */
#include "kernel.h"

enum { N = 4096 };
typedef f32 lanes __attribute__((vector_size(16)));
static lanes a[N / 4], b[N / 4];

KERNEL(n) {
    u64 s = 15;
    for (u32 i = 0; i < N / 4; i++)
        for (u32 k = 0; k < 4; k++) a[i][k] = next(&s) / 4e9f, b[i][k] = next(&s) / 4e9f;
    f32 total = 0;
    for (u32 r = 0; r < n * 8; r++) {
        lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (u32 i = 0; i < N / 4; i += 4)
            s0 += a[i] * b[i], s1 += a[i + 1] * b[i + 1], s2 += a[i + 2] * b[i + 2], s3 += a[i + 3] * b[i + 3];
        s0 += s1, s2 += s3, s0 += s2;
        total = total * 0.5f + s0[0] + s0[1] + s0[2] + s0[3];
        a[r % (N / 4)][r & 3] = total / 4096;
    }
    return (u32)total;
}
