/* Allocation: binary trees made and torn down over an allocator that keeps a list of free blocks per size. */
#include "kernel.h"

typedef struct Tree { struct Tree *left, *right; u32 value; } Tree;
typedef struct Free { struct Free *next; } Free;
static u8 heap[1 << 20] __attribute__((aligned(16)));
static u32 top;
static Free *lists[16];

static NOINLINE void *take(u32 bytes) {
    u32 c = (bytes + 15) / 16;
    Free *f = lists[c];
    if (f) {
        lists[c] = f->next;
        return f;
    }
    void *p = heap + top;
    top += c * 16;
    return p;
}

static NOINLINE void give(void *p, u32 bytes) {
    Free *f = p;
    u32 c = (bytes + 15) / 16;
    f->next = lists[c], lists[c] = f;
}

static Tree *make(u32 depth, u64 *s) {
    Tree *t = take(sizeof *t);
    t->value = next(s);
    t->left = depth ? make(depth - 1, s) : 0;
    t->right = depth && t->value & 3 ? make(depth - 1, s) : 0;
    return t;
}

static u32 end(Tree *t) {
    if (!t) return 0;
    u32 sum = t->value ^ end(t->left) * 3 ^ end(t->right) * 5;
    give(t, sizeof *t);
    return sum;
}

KERNEL(n) {
    u64 s = 23;
    u32 sum = 0;
    top = 0;
    for (u32 i = 0; i < 16; i++) lists[i] = 0;
    for (u32 r = 0; r < n * 4; r++) sum = mix(sum, end(make(8 + (r & 3), &s)));
    return sum;
}
