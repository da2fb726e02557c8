/* Hashing: SHA-256 (FIPS 180-4) over a buffer; rotations, many live values. */
#include "kernel.h"

static u32 k[64];
static u8 data[4096];
static const u8 primes[64] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211, 223, 227, 229, 233, 239, 241, 251};

#define ROR(x, r) ((x) >> (r) | (x) << (32 - (r)))

static void block(u32 h[8], const u8 *p) {
    u32 w[64], v[8];
    for (u32 i = 0; i < 16; i++) w[i] = (u32)p[4 * i] << 24 | (u32)p[4 * i + 1] << 16 | (u32)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (u32 i = 16; i < 64; i++) {
        u32 a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (ROR(a, 7) ^ ROR(a, 18) ^ a >> 3) + w[i - 7] + (ROR(b, 17) ^ ROR(b, 19) ^ b >> 10);
    }
    for (u32 i = 0; i < 8; i++) v[i] = h[i];
    for (u32 i = 0; i < 64; i++) {
        u32 s1 = ROR(v[4], 6) ^ ROR(v[4], 11) ^ ROR(v[4], 25), ch = (v[4] & v[5]) ^ (~v[4] & v[6]);
        u32 t = v[7] + s1 + ch + k[i] + w[i];
        u32 s0 = ROR(v[0], 2) ^ ROR(v[0], 13) ^ ROR(v[0], 22), maj = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        v[7] = v[6], v[6] = v[5], v[5] = v[4], v[4] = v[3] + t, v[3] = v[2], v[2] = v[1], v[1] = v[0], v[0] = t + s0 + maj;
    }
    for (u32 i = 0; i < 8; i++) h[i] += v[i];
}

KERNEL(n) {
    u32 h[8];
    /* The constants need not be the standard's for the work to be. */
    for (u32 i = 0; i < 64; i++) k[i] = (primes[i] + i) * 0x9E3779B9u;
    for (u32 i = 0; i < 8; i++) h[i] = k[i] ^ 0x6a09e667u;
    for (u32 i = 0; i < LENGTH(data); i++) data[i] = (u8)(i * 31);
    for (u32 r = 0; r < n; r++)
        for (u32 at = 0; at < LENGTH(data); at += 64) block(h, data + at);
    return h[0] ^ h[7];
}
