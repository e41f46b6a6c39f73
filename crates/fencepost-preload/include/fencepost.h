/* fencepost: what a C or C++ program may ask of the guard it runs under.
 *
 * The functions are defined by libfencepost_preload.so, and by a Rust executable that contains export_libc!(). They are
 * declared weak: without the guard they are null, so a program that is to run both ways asks first.
 *
 *     if (fencepost_check) fencepost_check();
 *
 * From a debugger: call (void)fencepost_describe_print(p)
 */
#ifndef FENCEPOST_H
#define FENCEPOST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FENCEPOST_WEAK __attribute__((weak))

/* The block that an address belongs to, or would be reported against. */
struct fencepost_block {
    uintptr_t address;  /* its first byte */
    size_t size;        /* as it was asked for, in bytes */
    size_t align;
    size_t distance;    /* bytes from the start if inside; else 0 is the byte next to the block */
    int place;          /* the address lies -1 before, 0 inside, 1 after the block */
    int state;          /* 1 live, 2 freed, 0 not known any more */
    int sealed;         /* not 0: some of it is sealed, watched or under a tripwire */
    uint32_t thread;    /* the system's id of the thread that allocated it; 0 when it is not known */
};

struct fencepost_stats {
    uint64_t blocks;            /* asked for so far */
    uint64_t guarded;           /* guarded so far */
    uint64_t live;              /* guarded and alive */
    uint64_t held_bytes;        /* memory that guarded blocks and the guard hold */
    uint64_t quarantined_bytes; /* freed addresses that stay dead */
    uint64_t reports;           /* errors reported */
    uint64_t reports_lost;      /* errors counted only */
};

/* Fills in what is known about an address: 1, or 0 where it is no guarded block's. */
int fencepost_describe(const void *pointer, struct fencepost_block *into) FENCEPOST_WEAK;

/* Prints the same on standard error, with the stacks as addresses. */
void fencepost_describe_print(const void *pointer) FENCEPOST_WEAK;

/* Prints the reports that nobody has read yet, at most the last 16. */
void fencepost_reports_print(void) FENCEPOST_WEAK;

/* Prints how many live blocks there are and where they were allocated, at most so many places, the most bytes first. The
 * stacks are printed as addresses. */
void fencepost_sites_print(size_t most) FENCEPOST_WEAK;

/* Verifies the bytes around every live block, reports each damaged one, and says how many there are. */
size_t fencepost_check(void) FENCEPOST_WEAK;

/* Makes memory read-only until the handle is given to fencepost_unseal: some of one guarded block, or whole pages of
 * other memory. Null where that cannot be. A write is reported as seal-violation. */
void *fencepost_seal(const void *pointer, size_t len) FENCEPOST_WEAK;

/* Reports the first access of any kind, as tripwire, and lets the program go on. Ends with fencepost_unseal. */
void *fencepost_tripwire(const void *pointer, size_t len) FENCEPOST_WEAK;

/* How many writes there were to sealed bytes, or whether a tripwire was touched. */
uint32_t fencepost_hits(const void *handle) FENCEPOST_WEAK;

/* Ends a seal or a tripwire; each handle once. Null is let pass. */
void fencepost_unseal(void *handle) FENCEPOST_WEAK;

/* Counters: 1, or 0 where nothing is guarded. */
int fencepost_stats(struct fencepost_stats *into) FENCEPOST_WEAK;

#ifdef __cplusplus
}
#endif

#endif
