/* Numeric: five bodies under gravity, symplectic Euler; f64 with divisions and square roots. */
#include "kernel.h"

typedef struct { f64 x[3], v[3], m; } Body;

KERNEL(n) {
    Body b[5];
    u64 s = 7;
    for (u32 i = 0; i < 5; i++) {
        for (u32 k = 0; k < 3; k++) b[i].x[k] = next(&s) / 1e8, b[i].v[k] = next(&s) / 4e9 - 0.5;
        b[i].m = 1 + next(&s) / 1e9;
    }
    for (u32 step = 0; step < n * 1000; step++) {
        for (u32 i = 0; i < 5; i++)
            for (u32 j = i + 1; j < 5; j++) {
                f64 d[3], r2 = 0.01;
                for (u32 k = 0; k < 3; k++) d[k] = b[i].x[k] - b[j].x[k], r2 += d[k] * d[k];
                f64 f = 0.001 / (r2 * __builtin_sqrt(r2));
                for (u32 k = 0; k < 3; k++) b[i].v[k] -= d[k] * b[j].m * f, b[j].v[k] += d[k] * b[i].m * f;
            }
        for (u32 i = 0; i < 5; i++)
            for (u32 k = 0; k < 3; k++) b[i].x[k] += 0.001 * b[i].v[k];
    }
    f64 sum = 0;
    for (u32 i = 0; i < 5; i++) sum += b[i].v[0] * b[i].v[0] + b[i].v[1] * b[i].v[1] + b[i].v[2] * b[i].v[2];
    return (u32)(i64)(sum * 1000);
}
