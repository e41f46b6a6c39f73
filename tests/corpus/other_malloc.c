/* An allocator that leaves nothing as another would: new memory and what lies around blocks holds a byte of OTHER_FILL's
 * choice, nothing is used twice, and nothing is taken back. A program whose output depends on none of that prints the
 * same with it. To be preloaded, by the twins of `scripts/corpus --continue` only. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ROOM (64ull << 30)
#define GAP 64

static char *room;
static unsigned long long used;

static void *take(size_t align, size_t size) {
    char *start = __atomic_load_n(&room, __ATOMIC_ACQUIRE);
    if (!start) {
        char *mine = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mine == MAP_FAILED) return NULL;
        if (__atomic_compare_exchange_n(&room, &start, mine, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) start = mine;
    }
    if (align < 16) align = 16;
    if (size > ROOM || align > ROOM) return errno = ENOMEM, NULL;
    unsigned long long at = __atomic_fetch_add(&used, size + align + 2 * GAP, __ATOMIC_RELAXED);
    if (at + size + align + 2 * GAP > ROOM) return errno = ENOMEM, NULL;
    char *block = (char *)(((unsigned long long)start + at + GAP + align - 1) & ~(unsigned long long)(align - 1));
    const char *fill = getenv("OTHER_FILL");
    size_t filled = size < 1 << 20 ? size : 1 << 20;
    memset(block - GAP, fill ? atoi(fill) : 0, filled + 2 * GAP);
    /* How long it is stands further off than any overrun reaches. */
    memcpy(block - GAP, &size, sizeof size);
    return block;
}

void *malloc(size_t size) { return take(16, size); }
void free(void *block) { (void)block; }
void *memalign(size_t align, size_t size) { return take(align, size); }
void *aligned_alloc(size_t align, size_t size) { return take(align, size); }
size_t malloc_usable_size(void *block) {
    size_t size = 0;
    if (block) memcpy(&size, (char *)block - GAP, sizeof size);
    return size;
}
int posix_memalign(void **block, size_t align, size_t size) {
    void *taken = take(align, size);
    if (taken) *block = taken;
    return taken ? 0 : ENOMEM;
}
void *calloc(size_t count, size_t size) {
    size_t all;
    if (__builtin_mul_overflow(count, size, &all)) return errno = ENOMEM, NULL;
    char *block = take(16, all);
    if (block) memset(block, 0, all < 1 << 20 ? all : 1 << 20);
    return block;
}
void *realloc(void *old, size_t size) {
    char *block = take(16, size);
    size_t before = malloc_usable_size(old);
    if (block && old) memcpy(block, old, before < size ? before : size);
    return block;
}
