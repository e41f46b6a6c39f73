/* A structure that eight threads read and one of them writes to, once, when nobody should. With the argument "locked" every
 * access is made under one lock: then there is no data race, and the write is wrong all the same. With "seal" the
 * structure is sealed, if there is a guard. */
#include "../../crates/fencepost-preload/include/fencepost.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct config {
    volatile long limits[6], timeout, retries;
};

static struct config *config;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int locked;
static long sums[8];

static void *reader(void *argument) {
    long number = (long)argument, sum = 0;
    for (long round = 0; round < 200000; round++) {
        if (locked) pthread_mutex_lock(&lock);
        sum += config->limits[round % 6];
        if (round % 1000 == 0) sum += config->timeout;
        if (number == 5 && round == 100000) config->timeout = 5000;
        if (locked) pthread_mutex_unlock(&lock);
    }
    sums[number] = sum;
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[8];
    int seal = 0;
    for (int i = 1; i < argc; i++) {
        locked |= !strcmp(argv[i], "locked");
        seal |= !strcmp(argv[i], "seal");
    }
    config = calloc(1, sizeof *config);
    config->timeout = 1000;
    void *handle = seal && fencepost_seal ? fencepost_seal((void *)config, sizeof *config) : NULL;
    for (long i = 0; i < 8; i++) pthread_create(&threads[i], NULL, reader, (void *)i);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    printf("sealed %d timeout %ld\n", handle != NULL, config->timeout);
    if (handle) fencepost_unseal(handle);
    free((void *)config);
    return 0;
}
