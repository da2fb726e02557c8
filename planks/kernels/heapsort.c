/* Sorting: heapsort of 16-byte records by key; moves of structs, indices doubled. */
#include "kernel.h"

enum { N = 4096 };
typedef struct { u64 key, value; } Record;
static Record a[N];

static void sift(u32 i, u32 end) {
    Record x = a[i];
    for (u32 c; (c = 2 * i + 1) < end; i = c) {
        if (c + 1 < end && a[c].key < a[c + 1].key) c++;
        if (a[c].key <= x.key) break;
        a[i] = a[c];
    }
    a[i] = x;
}

KERNEL(n) {
    u64 s = 2;
    u32 sum = 0;
    for (u32 r = 0; r < n; r++) {
        for (u32 i = 0; i < N; i++) a[i] = (Record){next(&s), i};
        for (u32 i = N / 2; i-- > 0;) sift(i, N);
        for (u32 end = N - 1; end > 0; end--) {
            Record t = a[0];
            a[0] = a[end], a[end] = t;
            sift(0, end);
        }
        for (u32 i = 0; i < N; i += 61) sum = mix(sum, (u32)(a[i].key ^ a[i].value));
    }
    return sum;
}
