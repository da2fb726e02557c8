/* Parsing: a recursive-descent parser over JSON text that it builds first; bytes, switches, deep calls. */
#include "kernel.h"

static char text[65536];
static u32 length, at, sum;

static void put(const char *s) {
    while (*s) text[length++] = *s++;
}

static void put_number(u32 x) {
    char digits[10];
    u32 k = 0;
    do digits[k++] = (char)('0' + x % 10);
    while (x /= 10);
    while (k) text[length++] = digits[--k];
}

static void space(void) {
    while (text[at] == ' ' || text[at] == '\n') at++;
}

static NOINLINE void string(void) {
    u32 h = 0;
    for (at++; text[at] != '"'; at++) {
        if (text[at] == '\\') at++;
        h = h * 31 + (u8)text[at];
    }
    at++;
    sum = mix(sum, h);
}

static void value(void) {
    space();
    char c = text[at];
    switch (c) {
    case '{':
    case '[': {
        char end = c == '{' ? '}' : ']';
        u32 count = 0;
        for (at++, space(); text[at] != end; space()) {
            if (c == '{') string(), space(), at++;
            value(), space(), count++;
            if (text[at] == ',') at++, space();
        }
        at++;
        sum = mix(sum, count);
        break;
    }
    case '"': string(); break;
    case 't': at += 4, sum = mix(sum, 1); break;
    case 'f': at += 5, sum = mix(sum, 2); break;
    case 'n': at += 4, sum = mix(sum, 3); break;
    default: {
        i64 x = 0;
        i32 negative = c == '-';
        for (at += (u32)negative; text[at] >= '0' && text[at] <= '9'; at++) x = x * 10 + (text[at] - '0');
        sum = mix(sum, (u32)(negative ? -x : x));
    }
    }
}

KERNEL(n) {
    u64 s = 4;
    length = 0, sum = 0;
    put("[");
    while (length < sizeof text - 256) {
        put("{\"id\": "), put_number(next(&s)), put(", \"name\": \"item \\\"");
        put_number(next(&s) & 1023), put("\\\"\", \"tags\": [true, false, null, -"), put_number(next(&s) & 15);
        put("], \"nested\": {\"x\": ["), put_number(next(&s)), put(", [[]]], \"y\": \"some text that is a little longer\"}},\n ");
    }
    put("0]");
    text[length] = 0;
    for (u32 r = 0; r < n; r++) at = 0, value();
    return sum;
}
