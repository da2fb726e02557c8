/* Parsing: validates and decodes UTF-8 by branches; counts what it finds in classes. */
#include "kernel.h"

static u8 text[32768];

KERNEL(n) {
    u64 s = 6;
    u32 length = 0, sum = 0, classes[5] = {0};
    while (length < LENGTH(text) - 4) {
        u32 r = next(&s), c = r >> 8;
        switch (r & 7) {
        case 0: c = 0x80 + c % 0x780; break;
        case 1: c = 0x800 + c % 0xC800; break;
        case 2: c = 0x10000 + c % 0x100000; break;
        default: c = 32 + c % 95;
        }
        if (c < 0x80) text[length++] = (u8)c;
        else if (c < 0x800) text[length++] = (u8)(0xC0 | c >> 6), text[length++] = (u8)(0x80 | (c & 63));
        else if (c < 0x10000) text[length++] = (u8)(0xE0 | c >> 12), text[length++] = (u8)(0x80 | (c >> 6 & 63)), text[length++] = (u8)(0x80 | (c & 63));
        else text[length++] = (u8)(0xF0 | c >> 18), text[length++] = (u8)(0x80 | (c >> 12 & 63)), text[length++] = (u8)(0x80 | (c >> 6 & 63)), text[length++] = (u8)(0x80 | (c & 63));
    }
    for (u32 r = 0; r < n * 2; r++) {
        for (u32 i = 0; i < length;) {
            u32 b = text[i], c, more;
            if (b < 0x80) c = b, more = 0;
            else if (b < 0xC2) { classes[4]++, i++; continue; }
            else if (b < 0xE0) c = b & 31, more = 1;
            else if (b < 0xF0) c = b & 15, more = 2;
            else c = b & 7, more = 3;
            if (i + more >= length) { classes[4]++; break; }
            for (u32 k = 1; k <= more; k++) c = c << 6 | (text[i + k] & 63);
            i += more + 1;
            classes[more]++;
            sum += c;
        }
    }
    for (u32 i = 0; i < 5; i++) sum = mix(sum, classes[i]);
    return sum;
}
