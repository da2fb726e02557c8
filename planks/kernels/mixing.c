/* Hashing: a rotate-multiply-xor mixer over 64-bit words, one long chain of dependences and one of four lanes. */
#include "kernel.h"

static u64 data[2048];

static inline u64 rotl(u64 x, u32 r) { return x << r | x >> (64 - r); }

KERNEL(n) {
    u64 s = 5, h = 1, a = 1, b = 2, c = 3, d = 4;
    for (u32 i = 0; i < LENGTH(data); i++) data[i] = (u64)next(&s) << 32 | next(&s);
    for (u32 r = 0; r < n * 4; r++) {
        for (u32 i = 0; i < LENGTH(data); i += 4) {
            a = rotl(a + data[i] * 0xC2B2AE3D27D4EB4Full, 31) * 0x9E3779B185EBCA87ull;
            b = rotl(b + data[i + 1] * 0xC2B2AE3D27D4EB4Full, 31) * 0x9E3779B185EBCA87ull;
            c = rotl(c + data[i + 2] * 0xC2B2AE3D27D4EB4Full, 31) * 0x9E3779B185EBCA87ull;
            d = rotl(d + data[i + 3] * 0xC2B2AE3D27D4EB4Full, 31) * 0x9E3779B185EBCA87ull;
        }
        for (u32 i = 0; i < LENGTH(data); i++) h = rotl(h ^ data[i], 17) + (h >> 5) * 5;
    }
    h ^= a ^ rotl(b, 7) ^ rotl(c, 12) ^ rotl(d, 18);
    return (u32)(h ^ h >> 32);
}
