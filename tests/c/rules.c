/* What programs may count on from malloc and its relatives, as the standards and glibc's manual have it. Every broken
   rule is a line; the status is their number. Rules that only hold for blocks aligned to 16 are left out by an argument. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <wchar.h>

static int broken;
#define RULE(holds) ((holds) ? (void)0 : (void)(broken++, printf("line %d: %s\n", __LINE__, #holds)))

static void *opaque(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

static size_t big(size_t size) {
    __asm__ volatile("" : "+r"(size));
    return size;
}

static int is_zero(const char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) if (bytes[i]) return 0;
    return 1;
}

static int aligned(void *block, size_t align) { return ((uintptr_t)block & (align - 1)) == 0; }

/* Before any constructor of the program's own, and of libraries'. */
static char *early;
static void at_first(void) { early = calloc(3, 7); }
__attribute__((section(".preinit_array"), used)) static void (*first)(void) = at_first;

static void sizes(int natural) {
    for (size_t size = 0; size < 70000; size = size < 300 ? size + 1 : size * 5 / 4) {
        char *block = opaque(malloc(size)), *zeroed = opaque(calloc(1, size));
        RULE(block && zeroed && block != zeroed);
        RULE(!natural || (aligned(block, 16) && aligned(zeroed, 16)));
        RULE(is_zero(zeroed, size));
        /* Programs write up to what this says. */
        RULE(malloc_usable_size(block) >= size);
        memset(block, 0x5a, malloc_usable_size(block));
        block = opaque(realloc(block, size + 33));
        RULE(size == 0 || (block[0] == 0x5a && block[size - 1] == 0x5a));
        free(block);
        free(zeroed);
    }
}

static void nothing(void) {
    char *one = opaque(malloc(0)), *two = opaque(malloc(0)), *three = opaque(calloc(0, 8));
    RULE(one && two && three && one != two && two != three);
    free(one);
    free(two);
    free(three);
    free(NULL);
    one = opaque(realloc(NULL, 20));
    RULE(one != NULL);
    errno = 0;
    RULE(realloc(one, 0) == NULL && errno == 0);
    one = opaque(reallocarray(NULL, 4, 5));
    RULE(one != NULL);
    free(one);
    RULE(malloc_usable_size(NULL) == 0);
}

static void too_large(void) {
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX, SIZE_MAX / 2 + 2};
    char *block = opaque(malloc(40));
    strcpy(block, "as it was");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = big(sizes[i]);
        void *other = &other;
#define FAILS(call, number) (errno = 0, opaque(call) == NULL && errno == (number))
        RULE(FAILS(malloc(size), ENOMEM));
        RULE(FAILS(calloc(1, size), ENOMEM));
        RULE(FAILS(calloc(size, 16), ENOMEM));
        RULE(FAILS(realloc(block, size), ENOMEM));
        RULE(FAILS(reallocarray(block, size, 16), ENOMEM));
        RULE(FAILS(memalign(64, size), ENOMEM));
        RULE(FAILS(aligned_alloc(64, size), ENOMEM));
        RULE(FAILS(valloc(size), ENOMEM));
        RULE(FAILS(pvalloc(size), ENOMEM));
        RULE(posix_memalign(&other, 64, size) == ENOMEM && other == &other);
    }
    RULE(FAILS(calloc(big(SIZE_MAX / 16 + 2), 16), ENOMEM));
    RULE(FAILS(reallocarray(block, big(SIZE_MAX / 16 + 2), 16), ENOMEM));
    RULE(strcmp(block, "as it was") == 0);
    free(block);
}

static void alignments(void) {
    void *block = &block;
    RULE(posix_memalign(&block, 3, 8) == EINVAL && posix_memalign(&block, 4, 8) == EINVAL);
    RULE(posix_memalign(&block, 24, 8) == EINVAL && posix_memalign(&block, 0, 8) == EINVAL && block == &block);
    for (size_t align = 8; align <= 16 << 20; align *= 2) {
        for (size_t size = 0; size <= 5000; size += 1667) {
            RULE(posix_memalign(&block, align, size) == 0 && aligned(block, align));
            memset(block, 1, size);
            block = opaque(realloc(block, size + 100));
            free(block);
            block = opaque(memalign(align, size));
            RULE(block && aligned(block, align));
            free(block);
            block = opaque(aligned_alloc(align, size));
            RULE(block && aligned(block, align));
            free(block);
        }
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    block = opaque(valloc(100));
    RULE(aligned(block, page) && malloc_usable_size(block) >= 100);
    free(block);
    block = opaque(pvalloc(100));
    RULE(aligned(block, page) && malloc_usable_size(block) >= page);
    memset(block, 1, page);
    free(block);
    /* What is no power of two is rounded up. */
    block = opaque(memalign(48, 100));
    RULE(block && aligned(block, 64));
    free(block);
}

static void error_number(void) {
    void *blocks[300];
    for (int i = 0; i < 300; i++) blocks[i] = opaque(malloc((size_t)i * 700));
    errno = 4711;
    for (int i = 0; i < 300; i++) free(blocks[i]);
    RULE(errno == 4711);
    for (int i = 0; i < 300; i++) blocks[i] = opaque(malloc(100));
    for (int i = 0; i < 300; i++) blocks[i] = opaque(realloc(blocks[i], 5000));
    RULE(errno == 4711);
    for (int i = 0; i < 300; i++) free(blocks[i]);
}

/* Functions of the C library that give blocks, and some that take them. */
static void library(void) {
    char *text = NULL;
    RULE(asprintf(&text, "%d and %s", 42, "more") == 11 && strcmp(text, "42 and more") == 0);
    free(text);
    text = opaque(strdup("a copy"));
    text = opaque(realloc(text, 200));
    RULE(strcmp(text, "a copy") == 0);
    free(text);
    text = opaque(strndup("a copy", 3));
    RULE(strcmp(text, "a c") == 0);
    free(text);
    wchar_t *wide = opaque(wcsdup(L"wide"));
    RULE(wcscmp(wide, L"wide") == 0);
    free(wide);
    text = getcwd(NULL, 0);
    RULE(text && text[0] == '/');
    free(text);
    text = realpath("/", NULL);
    RULE(text && strcmp(text, "/") == 0);
    free(text);
    FILE *memory = open_memstream(&text, &(size_t){0});
    for (int i = 0; i < 1000; i++) fprintf(memory, "%d", i % 10);
    fclose(memory);
    RULE(strlen(text) == 1000);
    FILE *lines = fmemopen(text, 1000, "r");
    char *line = NULL;
    size_t room = 0;
    RULE(getline(&line, &room, lines) == 1000 && room > 1000);
    fclose(lines);
    free(line);
    free(text);
    RULE(setenv("A_VARIABLE", "of the environment", 1) == 0 && unsetenv("A_VARIABLE") == 0);
    void *self = dlopen(NULL, RTLD_NOW);
    RULE(self && dlsym(self, "no such symbol") == NULL && dlerror() != NULL);
    dlclose(self);
}

static void answers(void) {
    int trimmed = malloc_trim(0);
    RULE(trimmed == 0 || trimmed == 1);
    RULE(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    void *blocks[20];
    struct mallinfo2 before = mallinfo2();
    for (size_t i = 0; i < 20; i++) blocks[i] = malloc(2000 + 100 * i);
    struct mallinfo2 after = mallinfo2();
    RULE(before.uordblks > 0 && after.uordblks >= before.uordblks + 2000 * 20 + 100 * 190);
    for (int i = 0; i < 20; i++) free(blocks[i]);
    struct mallinfo small = mallinfo();
    RULE(small.uordblks > 0);
    char *told = NULL;
    FILE *out = open_memstream(&told, &(size_t){0});
    RULE(malloc_info(0, out) == 0 && malloc_info(1, out) != 0);
    fclose(out);
    RULE(strncmp(told, "<malloc version=\"1\">", 20) == 0);
    free(told);
    void (*sized)(void *, size_t) = dlsym(RTLD_DEFAULT, "free_sized");
    if (sized) sized(malloc(100), 100);
    void (*both)(void *, size_t, size_t) = dlsym(RTLD_DEFAULT, "free_aligned_sized");
    if (both) both(aligned_alloc(64, 128), 64, 128);
    void (*old)(void *) = dlsym(RTLD_DEFAULT, "cfree");
    if (old) old(malloc(100));
}

static pthread_barrier_t limited, begun;

static void *until_refused(void *unused) {
    size_t count = 0;
    void *list = NULL;
    pthread_barrier_wait(&limited);
    void **first = malloc(60000);
    if (first) *first = list, list = first, count = 1;
    /* Everybody has a block before anybody takes all that is left. */
    pthread_barrier_wait(&begun);
    for (void **block; count < 100000 && (block = malloc(60000)) != NULL; count++) *block = list, list = block;
    while (list) {
        void *next = *(void **)list;
        free(list);
        list = next;
    }
    return (void *)count;
}

/* Memory that runs out is null, in every thread, and the program goes on. */
static void refused(void) {
    struct rlimit old, little;
    getrlimit(RLIMIT_DATA, &old);
    little = old;
    little.rlim_cur = 256 << 20;
    pthread_t threads[4];
    pthread_barrier_init(&limited, NULL, 5);
    pthread_barrier_init(&begun, NULL, 4);
    for (int i = 0; i < 4; i++) {
        if (pthread_create(&threads[i], NULL, until_refused, NULL) != 0) abort();
    }
    RULE(setrlimit(RLIMIT_DATA, &little) == 0);
    pthread_barrier_wait(&limited);
    for (int i = 0; i < 4; i++) {
        void *count = NULL;
        pthread_join(threads[i], &count);
        RULE(count != NULL);
    }
    RULE(setrlimit(RLIMIT_DATA, &old) == 0);
    void *block = opaque(malloc(1 << 20));
    RULE(block != NULL);
    free(block);
}

static pthread_key_t key;
static void at_the_end(void *block) {
    /* Threads free and allocate in the destructors of their own data, some after ours have run. */
    static int rounds;
    free(block);
    if (__sync_fetch_and_add(&rounds, 1) < 3) pthread_setspecific(key, malloc(100));
}

static void *ends(void *unused) {
    pthread_setspecific(key, malloc(10));
    return malloc(77);
}

static void endings(void) {
    RULE(pthread_key_create(&key, at_the_end) == 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        void *block = NULL;
        RULE(pthread_create(&thread, NULL, ends, NULL) == 0 && pthread_join(thread, &block) == 0);
        RULE(malloc_usable_size(block) >= 77);
        free(block);
    }
}

static void *kept;
static void at_exit(void) {
    free(kept);
    kept = malloc(10);
}
__attribute__((destructor)) static void last(void) { free(kept); }

int main(int count, char **words) {
    int natural = count < 2;
    RULE(early && is_zero(early, 21));
    free(early);
    kept = malloc(10);
    atexit(at_exit);
    sizes(natural);
    nothing();
    too_large();
    alignments();
    error_number();
    library();
    answers();
    endings();
    refused();
    printf("%d broken\n", broken);
    return broken;
}
