/* One heap error a case, in the shapes that MITRE's list and the public Juliet suite describe, and for each a twin
   without it: `cwe CASE bad`, `cwe CASE good`. It prints `armed` before the error and `survived` when it lives. */
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <wchar.h>

#define CASE __attribute__((noinline, noclone)) static void
static volatile char sink;
static int bad;

static void armed(void) {
    if (write(1, "armed\n", 6) != 6) abort();
}

/* The compiler must not know what it gets, nor that two pointers are the same. */
__attribute__((noinline, noclone)) static void *take(size_t size) {
    void *block = malloc(size);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

__attribute__((noinline, noclone)) static void give_back(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    free(block);
}

static void *opaque(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

/* 122: write past the end. */

CASE cwe122_loop(void) {
    volatile int *numbers = take(12 * sizeof(int));
    armed();
    for (int i = 0; i < (bad ? 13 : 12); i++) numbers[i] = i;
    give_back((void *)numbers);
}

CASE cwe122_memcpy(void) {
    char from[80], *to = take(64);
    memset(from, 'A', sizeof from);
    armed();
    memcpy(to, opaque(from), bad ? sizeof from : 64);
    sink = to[0];
    give_back(to);
}

CASE cwe122_strcpy(void) {
    char *to = take(16);
    armed();
    strcpy(to, opaque(bad ? "sixteen letters!" : "fifteen letters"));
    sink = to[0];
    give_back(to);
}

CASE cwe122_strncat(void) {
    char *to = take(16);
    to[0] = 0;
    armed();
    strncat(to, opaque("more than sixteen letters"), bad ? 16 : 15);
    sink = to[0];
    give_back(to);
}

CASE cwe122_snprintf(void) {
    char *to = take(16);
    armed();
    snprintf(to, bad ? 32 : 16, "%s", (char *)opaque("more than sixteen letters"));
    sink = to[0];
    give_back(to);
}

CASE cwe122_wide(void) {
    wchar_t *to = take(8 * sizeof(wchar_t));
    armed();
    wcscpy(to, opaque(bad ? L"8 wides!" : L"7 wides"));
    sink = (char)to[0];
    give_back(to);
}

CASE cwe122_memset_calloc(void) {
    char *to = opaque(calloc(4, 16));
    armed();
    memset(to, 1, bad ? 65 : 64);
    sink = to[0];
    give_back(to);
}

CASE cwe122_after_realloc(void) {
    volatile char *to = opaque(realloc(take(64), 32));
    armed();
    to[bad ? 32 : 31] = 1;
    give_back((void *)to);
}

/* The size of a pointer where that of the structure was meant: the second half lies in the slack. */
struct pair { uint64_t one, two; };

CASE cwe122_sizeof_pointer(void) {
    struct pair *pair = take(bad ? sizeof pair : sizeof *pair);
    armed();
    ((volatile struct pair *)pair)->two = 2;
    give_back(pair);
}

CASE cwe122_off_by_one(void) {
    volatile char *text = take(13);
    armed();
    text[bad ? 13 : 12] = 0;
    give_back((void *)text);
}

CASE cwe122_large(void) {
    volatile char *image = take(1 << 20);
    armed();
    image[bad ? 1 << 20 : (1 << 20) - 1] = 1;
    give_back((void *)image);
}

CASE cwe122_leaked(void) {
    volatile char *text = take(13);
    armed();
    text[bad ? 13 : 12] = 0;
    sink = *(volatile char *)opaque((void *)text);
}

/* 124: write before the start. */

CASE cwe124_index(void) {
    volatile char *bytes = take(32);
    volatile int index = bad ? -1 : 0;
    armed();
    bytes[index] = 1;
    give_back((void *)bytes);
}

CASE cwe124_memcpy(void) {
    char from[32] = "0123456789abcdef", *to = take(32);
    armed();
    memcpy(to - (bad ? 8 : 0), opaque(from), 16);
    sink = to[0];
    give_back(to);
}

CASE cwe124_loop_down(void) {
    volatile int *numbers = take(8 * sizeof(int));
    armed();
    for (int i = 7; i >= (bad ? -1 : 0); i--) numbers[i] = i;
    give_back((void *)numbers);
}

/* 126: read past the end. */

CASE cwe126_loop(void) {
    volatile int *numbers = take(12 * sizeof(int));
    for (int i = 0; i < 12; i++) numbers[i] = i;
    armed();
    for (int i = 0; i < (bad ? 13 : 12); i++) sink = (char)numbers[i];
    give_back((void *)numbers);
}

CASE cwe126_memcpy(void) {
    char to[128], *from = take(64);
    memset(from, 'A', 64);
    armed();
    memcpy(opaque(to), from, bad ? 100 : 64);
    sink = to[0];
    give_back(from);
}

CASE cwe126_unterminated(void) {
    char *text = take(32);
    memset(text, 'A', 32);
    if (!bad) text[31] = 0;
    armed();
    sink = (char)strlen(opaque(text));
    give_back(text);
}

CASE cwe126_memcmp(void) {
    char other[128] = {0}, *bytes = take(64);
    memset(bytes, 0, 64);
    armed();
    sink = (char)memcmp(opaque(other), bytes, bad ? 65 : 64);
    give_back(bytes);
}

CASE cwe126_print(void) {
    char to[256], *text = take(64);
    memset(text, 'A', 64);
    armed();
    sink = (char)snprintf(to, sizeof to, "%.*s", bad ? 100 : 64, text);
    give_back(text);
}

/* 127: read before the start. */

CASE cwe127_index(void) {
    volatile char *bytes = take(32);
    volatile int index = bad ? -1 : 0;
    bytes[0] = 1;
    armed();
    sink = bytes[index];
    give_back((void *)bytes);
}

CASE cwe127_memcpy(void) {
    char to[64], *from = take(32);
    memset(from, 'A', 32);
    armed();
    memcpy(opaque(to), from - (bad ? 8 : 0), 16);
    sink = to[0];
    give_back(from);
}

/* 415: free twice. */

CASE cwe415_twice(void) {
    char *block = take(40);
    give_back(block);
    armed();
    if (bad) give_back(block);
}

__attribute__((noinline, noclone)) static void owner(char *block) { give_back(block); }

CASE cwe415_two_owners(void) {
    char *block = take(100);
    owner(block);
    armed();
    if (bad) owner(block);
}

CASE cwe415_realloc_to_nothing(void) {
    char *block = take(40);
    if (realloc(block, 0) != NULL) abort();
    armed();
    if (bad) give_back(opaque(block));
}

static void *frees(void *block) {
    give_back(block);
    return NULL;
}

static void in_thread(void *(*function)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, function, argument) != 0 || pthread_join(thread, NULL) != 0) abort();
}

CASE cwe415_by_thread(void) {
    char *block = take(40);
    in_thread(frees, block);
    armed();
    if (bad) give_back(block);
}

/* 416: use after free. */

CASE cwe416_read(void) {
    volatile char *block = take(40);
    block[8] = 1;
    if (!bad) sink = block[8];
    give_back((void *)block);
    armed();
    if (bad) sink = block[8];
}

CASE cwe416_write(void) {
    volatile char *block = take(5000);
    if (!bad) block[4999] = 1;
    give_back((void *)block);
    armed();
    if (bad) block[4999] = 1;
}

__attribute__((noinline, noclone)) static char *reversed(const char *text) {
    size_t length = strlen(text);
    char *other = take(length + 1);
    for (size_t i = 0; i < length; i++) other[i] = text[length - 1 - i];
    other[length] = 0;
    if (bad) give_back(other);
    return other;
}

CASE cwe416_returned(void) {
    char *text = reversed(opaque("a text of 23 characters"));
    armed();
    sink = (char)strlen(opaque(text));
    if (!bad) give_back(text);
}

struct object { void (*act)(struct object *); int state; };
static void acts(struct object *object) { sink = (char)object->state; }

CASE cwe416_callback(void) {
    struct object *object = take(sizeof *object);
    object->act = acts;
    object->state = 7;
    if (bad) give_back(object);
    armed();
    struct object *same = opaque(object);
    same->act(same);
    if (!bad) give_back(object);
}

CASE cwe416_after_realloc(void) {
    volatile char *old = take(24);
    old[3] = 1;
    volatile char *new = opaque(realloc((void *)old, 4000));
    armed();
    sink = bad ? old[3] : new[3];
    give_back((void *)new);
}

static void *reads(void *block) {
    sink = *(volatile char *)block;
    return NULL;
}

CASE cwe416_other_thread(void) {
    char *block = take(64);
    block[0] = 1;
    if (bad) give_back(block);
    armed();
    in_thread(reads, block);
    if (!bad) give_back(block);
}

/* 590: free of what is not on the heap. */

CASE cwe590_stack(void) {
    char local[64];
    char *block = bad ? opaque(local) : take(64);
    armed();
    give_back(block);
}

CASE cwe590_alloca(void) {
    char *block = bad ? opaque(alloca(64)) : take(64);
    armed();
    give_back(block);
}

static char fixed[64] __attribute__((aligned(16)));

CASE cwe590_static(void) {
    char *block = bad ? opaque(fixed) : take(64);
    armed();
    give_back(block);
}

CASE cwe590_literal(void) {
    char *block = bad ? opaque("a literal") : take(64);
    armed();
    give_back(block);
}

CASE cwe590_mapping(void) {
    char *block = take(64);
    if (bad) {
        give_back(block);
        block = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    armed();
    give_back(block);
}

/* 761: free of a pointer that is not the start. */

CASE cwe761_search(void) {
    char *text = take(32), *at = text;
    strcpy(text, "look for the x here");
    armed();
    while (*at != 'x') at++;
    give_back(bad ? at : text);
}

CASE cwe761_increment(void) {
    char *text = take(32), *at = text;
    strcpy(text, "abc");
    armed();
    for (; *at; at++) sink = *at;
    give_back(bad ? at : text);
}

CASE cwe761_realloc(void) {
    char *block = take(64);
    armed();
    give_back(opaque(realloc(block + (bad ? 16 : 0), 100)));
}

#define ALL(X) \
    X(cwe122_loop) X(cwe122_memcpy) X(cwe122_strcpy) X(cwe122_strncat) X(cwe122_snprintf) X(cwe122_wide) \
    X(cwe122_memset_calloc) X(cwe122_after_realloc) X(cwe122_sizeof_pointer) X(cwe122_off_by_one) X(cwe122_large) \
    X(cwe122_leaked) X(cwe124_index) X(cwe124_memcpy) X(cwe124_loop_down) X(cwe126_loop) X(cwe126_memcpy) \
    X(cwe126_unterminated) X(cwe126_memcmp) X(cwe126_print) X(cwe127_index) X(cwe127_memcpy) X(cwe415_twice) \
    X(cwe415_two_owners) X(cwe415_realloc_to_nothing) X(cwe415_by_thread) X(cwe416_read) X(cwe416_write) \
    X(cwe416_returned) X(cwe416_callback) X(cwe416_after_realloc) X(cwe416_other_thread) X(cwe590_stack) \
    X(cwe590_alloca) X(cwe590_static) X(cwe590_literal) X(cwe590_mapping) X(cwe761_search) X(cwe761_increment) \
    X(cwe761_realloc)

int main(int count, char **words) {
    if (count != 3) return 2;
    bad = strcmp(words[2], "bad") == 0;
#define RUN(name) if (strcmp(words[1], #name) == 0) { name(); puts("survived"); return 0; }
    ALL(RUN)
    return 2;
}
