/* Compression: canonical Huffman codes, encoding to bits and decoding by a table. */
#include "kernel.h"

enum { N = 16384, MAX = 12 };
static u8 in[N], bits[N * 2], lengths[32], symbol_of[1 << MAX], length_of[1 << MAX];
static u16 codes[32];

KERNEL(n) {
    u64 s = 10;
    u32 sum = 0, code = 0;
    /* Lengths that fill the code space: 1/2, 1/4, ..., then the rest evenly. */
    for (u32 i = 0; i < 32; i++) lengths[i] = (u8)(i < 5 ? i + 1 : i < 8 ? 7 : i < 16 ? 10 : 12);
    for (u32 length = 1; length <= MAX; length++, code <<= 1)
        for (u32 i = 0; i < 32; i++)
            if (lengths[i] == length) {
                codes[i] = (u16)code;
                for (u32 k = 0; k < 1u << (MAX - length); k++) {
                    u32 at = (code << (MAX - length) | k) & ((1 << MAX) - 1);
                    symbol_of[at] = (u8)i, length_of[at] = (u8)length;
                }
                code++;
            }
    for (u32 i = 0; i < N; i++) {
        u32 r = next(&s);
        in[i] = (u8)(r & 1 ? 0 : r & 2 ? 1 : r & 4 ? 2 : r >> 8 & 31);
    }
    for (u32 r = 0; r < n; r++) {
        u64 buffer = 0;
        u32 have = 0, o = 0;
        for (u32 i = 0; i < N; i++) {
            buffer = buffer << lengths[in[i]] | codes[in[i]], have += lengths[in[i]];
            while (have >= 8) have -= 8, bits[o++] = (u8)(buffer >> have);
        }
        bits[o] = (u8)(buffer << (8 - have)), bits[o + 1] = bits[o + 2] = 0;
        sum = mix(sum, o);
        buffer = 0, have = 0, o = 0;
        for (u32 i = 0; i < N; i++) {
            while (have < MAX) buffer = buffer << 8 | bits[o++], have += 8;
            u32 at = (u32)(buffer >> (have - MAX)) & ((1 << MAX) - 1);
            have -= length_of[at];
            sum += symbol_of[at] * (i & 7);
        }
    }
    return sum;
}
