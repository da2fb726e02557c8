/* What the kernels share: exact types, a generator of numbers, and the export. Nothing of a C library. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int i32;
typedef signed long long i64;
typedef float f32;
typedef double f64;

/* A kernel is one function: it works `n` times over and returns a checksum that depends on everything it computed. */
#define KERNEL(n) __attribute__((visibility("default"))) u32 run(u32 n)

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define NOINLINE __attribute__((noinline))

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016). */
static inline u32 next(u64 *state) {
    u64 x = *state;
    x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
    *state = x;
    return (u32)((x * 0x2545F4914F6CDD1Dull) >> 32);
}

static inline u32 mix(u32 sum, u32 value) { return (sum ^ value) * 0x01000193u; }
