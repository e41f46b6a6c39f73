/* Sealing, tripwires and questions from C, and system calls on sealed memory. */
#include "../../crates/fencepost-preload/include/fencepost.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    void *handle = !strcmp(what, "wire") ? fencepost_tripwire(block, 16) : fencepost_seal(block, 16);
    printf("%d %d\n", handle != NULL, fencepost_seal(&block, 8) == NULL);
    int ends[2];
    if (pipe(ends) || write(ends[1], "0123456789abcdef", 16) != 16) return 1;
    if (!strcmp(what, "write")) {
        block[3] = 'x';
    } else if (!strcmp(what, "read")) {
        printf("read %zd\n", read(ends[0], block + 8, 4));
    } else if (!strcmp(what, "beside")) {
        printf("read %zd\n", read(ends[0], block + 16, 4));
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
