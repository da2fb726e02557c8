/* Memory: the sieve of Eratosthenes over bytes; stores with a stride, one compare. */
#include "kernel.h"

static u8 composite[65536];

KERNEL(n) {
    u32 sum = 0;
    for (u32 r = 0; r < n; r++) {
        for (u32 i = 0; i < LENGTH(composite); i++) composite[i] = 0;
        u32 count = 0;
        for (u32 i = 2; i < LENGTH(composite); i++) {
            if (composite[i]) continue;
            count++;
            for (u32 j = 2 * i; j < LENGTH(composite); j += i) composite[j] = 1;
        }
        sum = mix(sum, count);
    }
    return sum;
}
