/* Sealing, tripwires and questions from C, and system calls on sealed memory. */
#include "../../crates/fencepost-preload/include/fencepost.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!fencepost_seal) {
        puts("no guard");
        return 0;
    }
    char *block = malloc(64);
    memset(block, 'a', 64);
    if (!strcmp(what, "ask")) {
        struct fencepost_block answer;
        struct fencepost_stats stats;
        int known = fencepost_describe(block + 8, &answer);
        printf("%d %d %zu %zu %d\n", known, answer.address == (uintptr_t)block, answer.size, answer.distance, answer.state);
        free(block);
        fencepost_describe(block, &answer);
        printf("%d %d\n", answer.state, fencepost_describe(&answer, &answer));
        int counted = fencepost_stats(&stats);
        printf("%d %d %zu\n", counted, stats.guarded > 0, fencepost_check());
        fencepost_describe_print(block);
        return 0;
    }
    if (!strcmp(what, "sites")) {
        for (int i = 0; i < 7; i++) (void)!malloc(10000);
        fencepost_sites_print(1000);
        return 0;
    }
    int wired = !strcmp(what, "wire") || !strcmp(what, "wait");
    void *handle = wired ? fencepost_tripwire(block, 16) : fencepost_seal(block, 16);
    printf("%d %d\n", handle != NULL, fencepost_seal(&block, 8) == NULL);
    int ends[2];
    if (pipe(ends) || write(ends[1], "0123456789abcdef", 16) != 16) return 1;
    if (!strcmp(what, "write")) {
        block[3] = 'x';
    } else if (!strcmp(what, "read")) {
        printf("read %zd\n", read(ends[0], block + 8, 4));
    } else if (!strcmp(what, "beside")) {
        printf("read %zd\n", read(ends[0], block + 16, 4));
    } else if (!strcmp(what, "recv")) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || send(pair[0], "0123", 4, 0) != 4) return 1;
        printf("recv %zd\n", recv(pair[1], block + 4, 4, 0));
    } else if (!strcmp(what, "futex")) {
        /* A lock with priority inheritance: the kernel itself writes its owner's number. */
        *(volatile int *)(block + 8) = 0;
        long locked = syscall(SYS_futex, block + 8, 6, 0, NULL, NULL, 0);
        printf("lock %ld %d\n", locked, *(volatile int *)(block + 8) == (int)syscall(SYS_gettid));
        syscall(SYS_futex, block + 8, 7, 0, NULL, NULL, 0);
        *(volatile int *)(block + 8) = 0x61616161;
    } else if (!strcmp(what, "wait")) {
        /* Another value than is there: the kernel reads it and answers at once, EAGAIN. */
        long waited = syscall(SYS_futex, block + 8, 0, 1, NULL, NULL, 0);
        printf("wait %ld %d\n", waited, errno == EAGAIN);
    } else if (!strcmp(what, "wire")) {
        printf("written %zd\n", write(ends[1], block, 4));
        printf("again %zd\n", write(ends[1], block, 4));
    }
    printf("hits %u %.24s\n", fencepost_hits(handle), block);
    block[17] = 'y';
    fencepost_unseal(handle);
    block[0] = 'z';
    free(block);
    puts("end");
    return 0;
}
