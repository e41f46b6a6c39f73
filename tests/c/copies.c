/* Functions that copy and fill: `copies FUNCTION SIZE ROOM` writes, or reads, SIZE bytes where there is room for ROOM.
   `copies right` compares what each of them does with loops. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* As programs that were built with FORTIFY call them. */
void *__memcpy_chk(void *, const void *, size_t, size_t);
void *__memmove_chk(void *, const void *, size_t, size_t);
void *__mempcpy_chk(void *, const void *, size_t, size_t);
void *__memset_chk(void *, int, size_t, size_t);
char *__strcpy_chk(char *, const char *, size_t);
char *__stpcpy_chk(char *, const char *, size_t);
char *__strncpy_chk(char *, const char *, size_t, size_t);
char *__stpncpy_chk(char *, const char *, size_t, size_t);

#define LARGE (1 << 20)
#define ANY ((size_t)-1)

static void *volatile held;
static void *opaque(void *address) { held = address; return held; }

static void call(const char *name, char *to, char *from, size_t size) {
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
#ifdef __x86_64__
    IS(movsb) __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    IS(stosb) __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"('x') : "memory");
#endif
}

static char room[3 * 4096], expected[3 * 4096];

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
    puts("armed");
    fflush(stdout);
    if (words[1][0] == '<') call(words[1] + 1, large, small, size);
    else call(words[1], small, large, size);
    puts("survived");
    return 0;
}
