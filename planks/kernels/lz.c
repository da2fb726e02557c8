/* Compression: an LZ77 of bytes with a hash table of positions, and back again. */
#include "kernel.h"

enum { N = 16384 };
static u8 in[N], packed[N * 2], out[N];
static u16 heads[4096];

static u32 pack(void) {
    u32 o = 0, i = 0;
    for (u32 k = 0; k < LENGTH(heads); k++) heads[k] = 0;
    while (i + 4 < N) {
        u32 word = (u32)in[i] | (u32)in[i + 1] << 8 | (u32)in[i + 2] << 16;
        u32 h = word * 2654435761u >> 20, m = heads[h], length = 0;
        heads[h] = (u16)i;
        if (m < i)
            while (length < 127 && i + length < N && in[m + length] == in[i + length]) length++;
        if (length >= 4) {
            packed[o++] = (u8)(128 | length), packed[o++] = (u8)((i - m) >> 8), packed[o++] = (u8)(i - m);
            i += length;
        } else packed[o++] = in[i++] & 127;
    }
    while (i < N) packed[o++] = in[i++] & 127;
    return o;
}

static u32 unpack(u32 length) {
    u32 o = 0;
    for (u32 i = 0; i < length;) {
        u32 b = packed[i++];
        if (b < 128) out[o++] = (u8)b;
        else {
            u32 distance = (u32)packed[i] << 8 | packed[i + 1];
            i += 2;
            for (u32 k = b & 127; k > 0; k--, o++) out[o] = out[o - distance];
        }
    }
    return o;
}

KERNEL(n) {
    u64 s = 8;
    static const char words[] = "the ship of theseus and its planks were kept by the athenians who replaced each as it decayed ";
    for (u32 i = 0; i < N;) {
        u32 start = next(&s) % 80, count = 3 + next(&s) % 12;
        for (u32 k = 0; k < count && i < N; k++) in[i++] = (u8)words[start + k];
    }
    u32 sum = 0;
    for (u32 r = 0; r < n; r++) {
        in[next(&s) % N] = (u8)(next(&s) & 127);
        u32 length = pack();
        sum = mix(sum, length);
        sum = mix(sum, unpack(length));
        for (u32 i = 0; i < N; i += 97) sum = mix(sum, out[i]);
    }
    return sum;
}
