/* Indirect calls as object-oriented code makes them: shapes with tables of methods, in a random order. */
#include "kernel.h"

typedef struct Shape Shape;
typedef struct { u32 (*area)(const Shape *); void (*grow)(Shape *, u32); u32 (*edges)(const Shape *); } Methods;
struct Shape { const Methods *methods; u32 a, b, c; };

static u32 square_area(const Shape *s) { return s->a * s->a; }
static u32 box_area(const Shape *s) { return s->a * s->b; }
static u32 triangle_area(const Shape *s) { return s->a * s->b / 2; }
static u32 ring_area(const Shape *s) { return 3 * (s->a * s->a - s->b * s->b); }
static void grow_one(Shape *s, u32 by) { s->a = (s->a + by) & 1023; }
static void grow_two(Shape *s, u32 by) { s->a = (s->a + by) & 1023, s->b = (s->b + 2 * by) & 1023; }
static u32 four(const Shape *s) { (void)s; return 4; }
static u32 three(const Shape *s) { (void)s; return 3; }
static const Methods kinds[4] = {
    {square_area, grow_one, four}, {box_area, grow_two, four}, {triangle_area, grow_two, three}, {ring_area, grow_two, three}};
static Shape shapes[1024];

KERNEL(n) {
    u64 s = 22;
    u32 sum = 0;
    for (u32 i = 0; i < LENGTH(shapes); i++) shapes[i] = (Shape){&kinds[next(&s) & 3], next(&s) & 255, next(&s) & 255, 0};
    for (u32 r = 0; r < n * 8; r++)
        for (u32 i = 0; i < LENGTH(shapes); i++) {
            Shape *p = &shapes[i];
            p->methods->grow(p, r & 3);
            sum = mix(sum, p->methods->area(p) + p->methods->edges(p));
        }
    return sum;
}
