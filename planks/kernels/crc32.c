/* Hashing: CRC-32 with a table of 256 words, a byte at a time; a load that depends on a load. */
#include "kernel.h"

static u32 table[256];
static u8 data[8192];

KERNEL(n) {
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (u32 k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
        table[i] = c;
    }
    u64 s = 9;
    for (u32 i = 0; i < LENGTH(data); i++) data[i] = (u8)next(&s);
    u32 crc = ~0u;
    for (u32 r = 0; r < n * 2; r++)
        for (u32 i = 0; i < LENGTH(data); i++) crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
    return ~crc;
}
