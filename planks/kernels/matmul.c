/* Numeric: product of dense matrices of f64, in blocks; multiply-add with strided loads. */
#include "kernel.h"

enum { N = 96, B = 24 };
static f64 a[N][N], b[N][N], c[N][N];

KERNEL(n) {
    u64 s = 3;
    for (u32 i = 0; i < N; i++)
        for (u32 j = 0; j < N; j++) a[i][j] = next(&s) / 4e9, b[i][j] = next(&s) / 4e9, c[i][j] = 0;
    for (u32 r = 0; r < n; r++)
        for (u32 ii = 0; ii < N; ii += B)
            for (u32 kk = 0; kk < N; kk += B)
                for (u32 jj = 0; jj < N; jj += B)
                    for (u32 i = ii; i < ii + B; i++)
                        for (u32 k = kk; k < kk + B; k++) {
                            f64 f = a[i][k];
                            for (u32 j = jj; j < jj + B; j++) c[i][j] += f * b[k][j];
                        }
    u32 sum = 0;
    for (u32 i = 0; i < N; i++)
        for (u32 j = 0; j < N; j++) sum = mix(sum, (u32)c[i][j]);
    return sum;
}
