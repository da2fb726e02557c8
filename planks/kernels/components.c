/* Graph: connected components by union-find with path halving, and breadth-first search over a grid. */
#include "kernel.h"

enum { SIDE = 96, N = SIDE * SIDE };
static u8 wall[N];
static u16 parent[N], queue[N], depth[N];

static u32 find(u32 x) {
    while (parent[x] != x) parent[x] = parent[parent[x]], x = parent[x];
    return x;
}

KERNEL(n) {
    u64 s = 13;
    u32 sum = 0;
    for (u32 r = 0; r < n; r++) {
        for (u32 i = 0; i < N; i++) wall[i] = next(&s) % 10 < 4, parent[i] = (u16)i, depth[i] = 0;
        for (u32 y = 0; y < SIDE; y++)
            for (u32 x = 0; x < SIDE; x++) {
                u32 i = y * SIDE + x;
                if (wall[i]) continue;
                if (x + 1 < SIDE && !wall[i + 1]) parent[find(i)] = (u16)find(i + 1);
                if (y + 1 < SIDE && !wall[i + SIDE]) parent[find(i)] = (u16)find(i + SIDE);
            }
        u32 roots = 0;
        for (u32 i = 0; i < N; i++) roots += !wall[i] && find(i) == i;
        sum = mix(sum, roots);
        u32 head = 0, tail = 0;
        queue[tail++] = N / 2, depth[N / 2] = 1;
        while (head < tail) {
            u32 i = queue[head++], x = i % SIDE;
            u32 to[4] = {x > 0 ? i - 1 : i, x + 1 < SIDE ? i + 1 : i, i >= SIDE ? i - SIDE : i, i + SIDE < N ? i + SIDE : i};
            for (u32 k = 0; k < 4; k++)
                if (!wall[to[k]] && !depth[to[k]]) depth[to[k]] = (u16)(depth[i] + 1), queue[tail++] = (u16)to[k];
        }
        sum = mix(sum, tail ? depth[queue[tail - 1]] : 0);
    }
    return sum;
}
