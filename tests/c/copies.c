/* Functions that copy and fill: `copies FUNCTION SIZE ROOM` writes, or reads, SIZE bytes where there is room for ROOM.
   `copies right` compares what each of them does with loops. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <wchar.h>

/* As programs that were built with FORTIFY call them. */
void *__memcpy_chk(void *, const void *, size_t, size_t);
void *__memmove_chk(void *, const void *, size_t, size_t);
void *__mempcpy_chk(void *, const void *, size_t, size_t);
void *__memset_chk(void *, int, size_t, size_t);
char *__strcpy_chk(char *, const char *, size_t);
char *__stpcpy_chk(char *, const char *, size_t);
char *__strncpy_chk(char *, const char *, size_t, size_t);
char *__stpncpy_chk(char *, const char *, size_t, size_t);
char *__strcat_chk(char *, const char *, size_t);
char *__strncat_chk(char *, const char *, size_t, size_t);
wchar_t *__wmemcpy_chk(wchar_t *, const wchar_t *, size_t, size_t);
wchar_t *__wmemmove_chk(wchar_t *, const wchar_t *, size_t, size_t);
wchar_t *__wmempcpy_chk(wchar_t *, const wchar_t *, size_t, size_t);
wchar_t *__wmemset_chk(wchar_t *, wchar_t, size_t, size_t);
wchar_t *__wcscpy_chk(wchar_t *, const wchar_t *, size_t);
wchar_t *__wcpcpy_chk(wchar_t *, const wchar_t *, size_t);
wchar_t *__wcsncpy_chk(wchar_t *, const wchar_t *, size_t, size_t);
wchar_t *__wcpncpy_chk(wchar_t *, const wchar_t *, size_t, size_t);
wchar_t *__wcscat_chk(wchar_t *, const wchar_t *, size_t);
wchar_t *__wcsncat_chk(wchar_t *, const wchar_t *, size_t, size_t);

#define LARGE (1 << 20)
#define ANY ((size_t)-1)

static void *volatile held;
static void *opaque(void *address) { held = address; return held; }

/* What text there is already, where another is added. */
#define BEFORE 3

/* Of wide characters: `size` bytes of them. */
static void call_wide(const char *name, wchar_t *to, wchar_t *from, size_t size) {
    size_t count = size / sizeof *to;
    int adds = strstr(name, "cat") != NULL;
    /* Those that count get no zero: they would begin with the padding behind it. */
    if (strstr(name, "wcscpy") || strstr(name, "wcpcpy") || strstr(name, "wcscat")) from[count - 1] = 0;
    if (adds) to[BEFORE] = 0;
    to = opaque(to), from = opaque(from);
#define IS(function) if (strcmp(name, #function) == 0)
    IS(wmemcpy) wmemcpy(to, from, count);
    IS(wmemmove) wmemmove(to, from, count);
    IS(wmempcpy) wmempcpy(to, from, count);
    IS(wmemset) wmemset(to, L'x', count);
    IS(wcscpy) wcscpy(to, from);
    IS(wcpcpy) wcpcpy(to, from);
    IS(wcsncpy) wcsncpy(to, from, count);
    IS(wcpncpy) wcpncpy(to, from, count);
    IS(wcscat) wcscat(to, from);
    IS(wcsncat) wcsncat(to, from, count - 1);
    IS(__wmemcpy_chk) __wmemcpy_chk(to, from, count, ANY);
    IS(__wmemmove_chk) __wmemmove_chk(to, from, count, ANY);
    IS(__wmempcpy_chk) __wmempcpy_chk(to, from, count, ANY);
    IS(__wmemset_chk) __wmemset_chk(to, L'x', count, ANY);
    IS(__wcscpy_chk) __wcscpy_chk(to, from, ANY);
    IS(__wcpcpy_chk) __wcpcpy_chk(to, from, ANY);
    IS(__wcsncpy_chk) __wcsncpy_chk(to, from, count, ANY);
    IS(__wcpncpy_chk) __wcpncpy_chk(to, from, count, ANY);
    IS(__wcscat_chk) __wcscat_chk(to, from, ANY);
    IS(__wcsncat_chk) __wcsncat_chk(to, from, count - 1, ANY);
#undef IS
}

static void call(const char *name, char *to, char *from, size_t size) {
    if (name[0] == 'w' || strncmp(name, "__w", 3) == 0) {
        call_wide(name, (wchar_t *)to, (wchar_t *)from, size);
        return;
    }
    int adds = strstr(name, "cat") != NULL;
    if (adds) to[BEFORE] = 0;
    if (strstr(name, "strncat") != NULL) from[size - 1] = 'a';
    to = opaque(to), from = opaque(from);
#define IS(function) if (strcmp(name, #function) == 0)
    IS(memcpy) memcpy(to, from, size);
    IS(memmove) memmove(to, from, size);
    IS(mempcpy) mempcpy(to, from, size);
    IS(memset) memset(to, 'x', size);
    IS(bcopy) bcopy(from, to, size);
    IS(bzero) bzero(to, size);
    IS(strcpy) strcpy(to, from);
    IS(stpcpy) stpcpy(to, from);
    IS(strncpy) strncpy(to, from, size);
    IS(stpncpy) stpncpy(to, from, size);
    IS(__memcpy_chk) __memcpy_chk(to, from, size, ANY);
    IS(__memmove_chk) __memmove_chk(to, from, size, ANY);
    IS(__mempcpy_chk) __mempcpy_chk(to, from, size, ANY);
    IS(__memset_chk) __memset_chk(to, 'x', size, ANY);
    IS(__strcpy_chk) __strcpy_chk(to, from, ANY);
    IS(__stpcpy_chk) __stpcpy_chk(to, from, ANY);
    IS(__strncpy_chk) __strncpy_chk(to, from, size, ANY);
    IS(__stpncpy_chk) __stpncpy_chk(to, from, size, ANY);
    IS(strcat) strcat(to, from);
    IS(strncat) strncat(to, from, size - 1);
    IS(__strcat_chk) __strcat_chk(to, from, ANY);
    IS(__strncat_chk) __strncat_chk(to, from, size - 1, ANY);
#ifdef __x86_64__
    IS(movsb) __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    IS(stosb) __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"('x') : "memory");
#endif
}

_Alignas(16) static char room[3 * 4096], expected[3 * 4096];

static void wrong(const char *what, size_t size) {
    printf("wrong: %s of %zu bytes\n", what, size);
    exit(1);
}

/* Fills both areas alike, with no zero but those that end texts of `size` bytes. */
static void begin(size_t size) {
    for (size_t at = 0; at < sizeof room; at++) room[at] = expected[at] = (char)(at % 251 + 1);
    if (size != 0) room[4096 + size - 1] = expected[4096 + size - 1] = 0;
}

static void compare(const char *what, size_t size, void *returned, void *wanted) {
    for (size_t at = 0; at < sizeof room; at++)
        if (room[at] != expected[at]) wrong(what, size);
    if (returned != wanted) wrong(what, size);
}

static void copied(char *to, const char *from, size_t size) {
    to = expected + (to - room), from = expected + (from - room);
    for (size_t at = 0; at < size; at++) {
        size_t place = to > from ? size - 1 - at : at;
        ((volatile char *)to)[place] = from[place];
    }
}

static void filled(char *to, int value, size_t size) {
    for (size_t at = 0; at < size; at++) ((volatile char *)expected)[to - room + at] = (char)value;
}

#define CASE(what, change, call, wanted) \
    do { begin(size); change; void *returned = (call); compare(what, size, returned, wanted); } while (0)

/* Adds to a text of BEFORE characters, and so to none. */
static void add_right(size_t size) {
    char *from = opaque(room + 4096), *to = opaque(room + 8192 + 3);
#define ADDED(room) (memset(room + 8192 + 3, 'x', BEFORE), (room)[8192 + 3 + BEFORE] = 0)
#define ADD ADDED(room), ADDED(expected), copied(to + BEFORE, from, size)
    CASE("strcat", ADD, strcat(to, from), to);
    CASE("strcat_chk", ADD, __strcat_chk(to, from, ANY), to);
    CASE("strncat", ADD, strncat(to, from, size + 7), to);
    CASE("strncat_chk", ADD, __strncat_chk(to, from, size, ANY), to);
    CASE("strncat cut", (ADDED(room), ADDED(expected), copied(to + BEFORE, from, size - 1), filled(to + BEFORE + size - 1, 0, 1)),
         strncat(to, from, size - 1), to);
    if (size % 4 != 0 || size == 0) return;
    wchar_t *wide = opaque(room + 8192 + 4), *chars = opaque(from);
    size_t count = size / 4;
#define END ((wchar_t *)(room + 4096))[count - 1] = ((wchar_t *)(expected + 4096))[count - 1] = 0
#define WIDE_COPY END, copied((char *)wide, from, size)
    CASE("wmemcpy", WIDE_COPY, wmemcpy(wide, chars, count), wide);
    CASE("wmemmove", WIDE_COPY, wmemmove(wide, chars, count), wide);
    CASE("wmempcpy", WIDE_COPY, wmempcpy(wide, chars, count), wide + count);
    CASE("wmemset", filled((char *)wide, 0, size), wmemset(wide, 0, count), wide);
    CASE("wcscpy", WIDE_COPY, wcscpy(wide, chars), wide);
    CASE("wcpcpy", WIDE_COPY, wcpcpy(wide, chars), wide + count - 1);
    CASE("wcsncpy", WIDE_COPY, wcsncpy(wide, chars, count), wide);
    CASE("wcpncpy", WIDE_COPY, wcpncpy(wide, chars, count), wide + count - 1);
#define WIDE_ADDED(room) (((wchar_t *)(room + 8192 + 4))[0] = 'y', ((wchar_t *)(room + 8192 + 4))[1] = 0)
#define WIDE_ADD END, WIDE_ADDED(room), WIDE_ADDED(expected), copied((char *)(wide + 1), from, size)
    CASE("wcscat", WIDE_ADD, wcscat(wide, chars), wide);
    CASE("wcsncat", WIDE_ADD, wcsncat(wide, chars, count), wide);
    CASE("wcscat_chk", WIDE_ADD, __wcscat_chk(wide, chars, ANY), wide);
    CASE("wcsncat_chk", WIDE_ADD, __wcsncat_chk(wide, chars, count + 3, ANY), wide);
    CASE("wmemcpy_chk", WIDE_COPY, __wmemcpy_chk(wide, chars, count, ANY), wide);
    CASE("wcscpy_chk", WIDE_COPY, __wcscpy_chk(wide, chars, ANY), wide);
    CASE("wcsncpy_chk", WIDE_COPY, __wcsncpy_chk(wide, chars, count, ANY), wide);
}

static void are_right(size_t size) {
    char *from = opaque(room + 4096), *to = opaque(room + 8192 + 3), *near = opaque(room + 4096 + 7), *below = opaque(room + 4090);
    CASE("memcpy", copied(to, from, size), memcpy(to, from, size), to);
    CASE("memmove up", copied(near, from, size), memmove(near, from, size), near);
    CASE("memmove down", copied(below, from, size), memmove(below, from, size), below);
    CASE("mempcpy", copied(to, from, size), mempcpy(to, from, size), to + size);
    CASE("memset", filled(to, 0x155, size), memset(to, 0x155, size), to);
    CASE("bcopy", copied(near, from, size), (bcopy(from, near, size), NULL), NULL);
    CASE("bzero", filled(to, 0, size), (bzero(to, size), NULL), NULL);
    CASE("memcpy_chk", copied(to, from, size), __memcpy_chk(to, from, size, size), to);
    CASE("memmove_chk", copied(near, from, size), __memmove_chk(near, from, size, size), near);
    CASE("mempcpy_chk", copied(to, from, size), __mempcpy_chk(to, from, size, size), to + size);
    CASE("memset_chk", filled(to, 5, size), __memset_chk(to, 5, size, size), to);
    if (size == 0) return;
    add_right(size);
    CASE("strcpy", copied(to, from, size), strcpy(to, from), to);
    CASE("stpcpy", copied(to, from, size), stpcpy(to, from), to + size - 1);
    CASE("strncpy", copied(to, from, size), strncpy(to, from, size), to);
    CASE("stpncpy", (copied(to, from, size), filled(to + size, 0, 9)), stpncpy(to, from, size + 9), to + size - 1);
    CASE("strcpy_chk", copied(to, from, size), __strcpy_chk(to, from, size), to);
    CASE("stpcpy_chk", copied(to, from, size), __stpcpy_chk(to, from, size), to + size - 1);
    CASE("strncpy_chk", copied(to, from, size), __strncpy_chk(to, from, size, size), to);
    CASE("stpncpy_chk", copied(to, from, size), __stpncpy_chk(to, from, size, size), to + size - 1);
}

int main(int count, char **words) {
    if (count == 2) {
        for (size_t size = 0; size < 600; size++) are_right(size);
        for (size_t size = 600; size < 4000; size += 97) are_right(size);
        puts("right");
        return 0;
    }
    size_t size = strtoul(words[2], NULL, 0), space = strtoul(words[3], NULL, 0);
    char *large = malloc(LARGE), *small = malloc(space);
    for (size_t at = 0; at < LARGE; at++) large[at] = 'a';
    for (size_t at = 0; at < space; at++) small[at] = 'b';
    large[size - 1] = 0;
    if (strstr(words[1], "wc") != NULL) large[size - 1] = 'a';
    puts("armed");
    fflush(stdout);
    if (words[1][0] == '<') call(words[1] + 1, large, small, size);
    else call(words[1], small, large, size);
    puts("survived");
    return 0;
}
