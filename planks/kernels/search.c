/* Strings: all matches of several words in a text by Boyer-Moore-Horspool. */
#include "kernel.h"

static u8 text[32768];
static u32 skip[256];
static const char *const words[] = {"planks", "theseus", "kernel", "wasm", "replaced at run time"};

static NOINLINE u32 count(const u8 *word, u32 length) {
    u32 found = 0;
    for (u32 i = 0; i < 256; i++) skip[i] = length;
    for (u32 i = 0; i + 1 < length; i++) skip[word[i]] = length - 1 - i;
    for (u32 i = 0; i + length <= LENGTH(text);) {
        u32 k = length;
        while (k > 0 && text[i + k - 1] == word[k - 1]) k--;
        found += k == 0;
        i += k == 0 ? 1 : skip[text[i + length - 1]];
    }
    return found;
}

KERNEL(n) {
    u64 s = 16;
    for (u32 i = 0; i < LENGTH(text);) {
        const char *w = words[next(&s) % LENGTH(words)];
        u32 take = 2 + next(&s) % 8;
        for (u32 k = 0; k < take && w[k] && i < LENGTH(text); k++) text[i++] = (u8)w[k];
    }
    u32 sum = 0;
    for (u32 r = 0; r < n; r++)
        for (u32 i = 0; i < LENGTH(words); i++) {
            u32 length = 0;
            while (words[i][length]) length++;
            sum = mix(sum, count((const u8 *)words[i], length));
        }
    return sum;
}
