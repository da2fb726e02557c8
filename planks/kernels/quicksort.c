/* Sorting: quicksort with the median of three and insertion sort for short runs; branches nobody can predict. */
#include "kernel.h"

enum { N = 8192 };
static u32 a[N];

static void sort(u32 *p, u32 length) {
    while (length > 16) {
        u32 x = p[0], y = p[length / 2], z = p[length - 1];
        u32 pivot = x < y ? (y < z ? y : x < z ? z : x) : (x < z ? x : y < z ? z : y);
        u32 *l = p, *r = p + length - 1;
        for (;;) {
            while (*l < pivot) l++;
            while (*r > pivot) r--;
            if (l >= r) break;
            u32 t = *l;
            *l++ = *r, *r-- = t;
        }
        u32 left = (u32)(l - p);
        if (left < length - left) sort(p, left), p = l, length -= left;
        else sort(l, length - left), length = left;
    }
    for (u32 i = 1; i < length; i++) {
        u32 x = p[i], j = i;
        for (; j > 0 && p[j - 1] > x; j--) p[j] = p[j - 1];
        p[j] = x;
    }
}

KERNEL(n) {
    u64 s = 1;
    u32 sum = 0;
    for (u32 r = 0; r < n; r++) {
        for (u32 i = 0; i < N; i++) a[i] = next(&s);
        sort(a, N);
        for (u32 i = 0; i < N; i += 37) sum = mix(sum, a[i]);
    }
    return sum;
}
