/* Graph: shortest paths with a binary heap over adjacency lists. */
#include "kernel.h"

enum { V = 2048, E = V * 6 };
typedef struct { u32 to, weight, next; } Edge;
static Edge edges[E + 1];
static u32 first[V], distance[V], heap[E + V], keys[E + V], size;

static void push(u32 v, u32 key) {
    u32 i = size++;
    for (; i > 0 && keys[(i - 1) / 2] > key; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2], keys[i] = keys[(i - 1) / 2];
    heap[i] = v, keys[i] = key;
}

static u32 pop(u32 *key) {
    u32 top = heap[0], v = heap[--size], x = keys[size], i = 0;
    *key = keys[0];
    for (u32 c; (c = 2 * i + 1) < size; i = c) {
        if (c + 1 < size && keys[c + 1] < keys[c]) c++;
        if (keys[c] >= x) break;
        heap[i] = heap[c], keys[i] = keys[c];
    }
    heap[i] = v, keys[i] = x;
    return top;
}

KERNEL(n) {
    u64 s = 12;
    u32 sum = 0;
    for (u32 i = 0; i < V; i++) first[i] = 0;
    for (u32 i = 1; i <= E; i++) {
        u32 from = next(&s) % V;
        edges[i] = (Edge){next(&s) % V, 1 + next(&s) % 1000, first[from]};
        first[from] = i;
    }
    for (u32 r = 0; r < n; r++) {
        for (u32 i = 0; i < V; i++) distance[i] = ~0u;
        size = 0;
        u32 start = r * 7 % V, key;
        distance[start] = 0, push(start, 0);
        while (size) {
            u32 v = pop(&key);
            if (key > distance[v]) continue;
            for (u32 e = first[v]; e; e = edges[e].next) {
                u32 d = key + edges[e].weight;
                if (d < distance[edges[e].to]) distance[edges[e].to] = d, push(edges[e].to, d);
            }
        }
        for (u32 i = 0; i < V; i += 29) sum = mix(sum, distance[i]);
    }
    return sum;
}
