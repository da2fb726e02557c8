/* Numeric: escape times of the Mandelbrot set; a tight f64 loop with a data-dependent end. */
#include "kernel.h"

KERNEL(n) {
    u32 sum = 0;
    for (u32 y = 0; y < n * 8; y++)
        for (u32 x = 0; x < 128; x++) {
            f64 cr = x / 48.0 - 2.0, ci = (y % 128) / 64.0 - 1.0, zr = 0, zi = 0;
            u32 i = 0;
            for (; i < 200 && zr * zr + zi * zi < 4; i++) {
                f64 t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci, zr = t;
            }
            sum = mix(sum, i);
        }
    return sum;
}
