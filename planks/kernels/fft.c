/* Numeric: complex FFT of 1024 f32 points in place, radix 2, and back. */
#include "kernel.h"

enum { N = 1024 };
static f32 re[N], im[N], wr[N / 2], wi[N / 2];

static void fft(f32 sign) {
    for (u32 i = 1, j = 0; i < N; i++) {
        u32 bit = N >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) {
            f32 t = re[i];
            re[i] = re[j], re[j] = t;
            t = im[i], im[i] = im[j], im[j] = t;
        }
    }
    for (u32 len = 2; len <= N; len <<= 1)
        for (u32 i = 0; i < N; i += len)
            for (u32 k = 0; k < len / 2; k++) {
                f32 c = wr[k * (N / len)], s = sign * wi[k * (N / len)];
                u32 p = i + k, q = p + len / 2;
                f32 xr = re[q] * c - im[q] * s, xi = re[q] * s + im[q] * c;
                re[q] = re[p] - xr, im[q] = im[p] - xi;
                re[p] += xr, im[p] += xi;
            }
}

KERNEL(n) {
    f64 c = 1, s = 0;
    const f64 dc = 0.99998117528260110, ds = 0.0061358846491544753; /* cos and sin of 2 pi / N */
    for (u32 k = 0; k < N / 2; k++) {
        wr[k] = (f32)c, wi[k] = (f32)s;
        f64 t = c * dc - s * ds;
        s = s * dc + c * ds, c = t;
    }
    u64 seed = 11;
    for (u32 i = 0; i < N; i++) re[i] = next(&seed) / 4e9f, im[i] = 0;
    for (u32 r = 0; r < n * 10; r++) {
        fft(1), fft(-1);
        for (u32 i = 0; i < N; i++) re[i] *= 1.0f / N, im[i] *= 1.0f / N;
    }
    u32 sum = 0;
    for (u32 i = 0; i < N; i++) sum += (u32)(i32)(re[i] * 1000 + 0.5f);
    return sum;
}
