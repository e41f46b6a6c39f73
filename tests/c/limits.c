/* Programs that limit their own memory: `limits NAME`. Status 0 when all went as it should. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(holds) ((holds) ? (void)0 : (fprintf(stderr, "line %d: %s: %s\n", __LINE__, #holds, strerror(errno)), exit(1)))
#define LIMIT ((size_t)512 << 20)
/* Without a guard that is the limit. With one, guarded blocks take as much again at most, and what is set aside. */
#define MOST (2 * LIMIT + LIMIT / 2)
#define THREADS 3

static int resource;
static char *self;

static void limited_to(size_t size) {
    struct rlimit now;
    MUST(getrlimit(resource, &now) == 0 && now.rlim_cur == size);
    MUST(prlimit(0, resource, NULL, &now) == 0 && now.rlim_cur == size);
    MUST(prlimit(getpid(), resource, NULL, &now) == 0 && now.rlim_cur == size);
}

static void limit_to(size_t size) {
    struct rlimit wished, before;
    MUST(getrlimit(resource, &before) == 0);
    wished = before;
    wished.rlim_cur = size;
    MUST(setrlimit(resource, &wished) == 0);
    limited_to(size);
    struct rlimit old;
    MUST(prlimit(0, resource, &wished, &old) == 0 && old.rlim_cur == size && old.rlim_max == before.rlim_max);
    limited_to(size);
}

static void *works(void *unused) {
    char *block = malloc(100000);
    MUST(block != NULL);
    memset(block, 1, 100000);
    return block;
}

static void threads_start(void) {
    pthread_t all[THREADS];
    for (int i = 0; i < THREADS; i++) MUST(pthread_create(&all[i], NULL, works, NULL) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *block = NULL;
        MUST(pthread_join(all[i], &block) == 0);
        free(block);
    }
}

/* Blocks of a size until there is none, each with its first byte written. */
static void to_the_end(size_t size) {
    size_t total = 0;
    void *list = NULL;
    for (void **block; (block = malloc(size)) != NULL; total += size) {
        *block = list, list = block;
        MUST(total < MOST);
    }
    MUST(errno == ENOMEM);
    /* But for what the process has already, and what small blocks cost. */
    MUST(total >= LIMIT / 2);
    fprintf(stderr, "figure: %zu MiB in blocks of %zu bytes\n", total >> 20, size);
    while (list) {
        void *next = *(void **)list;
        free(list);
        list = next;
    }
    void *block = malloc(1000000);
    MUST(block != NULL);
    free(block);
}

static void goes_on(void) {
    limit_to(LIMIT);
    threads_start();
    to_the_end(16 << 20);
    to_the_end(1 << 20);
    to_the_end(60000);
    MUST(malloc(MOST) == NULL && errno == ENOMEM);
    threads_start();
    pid_t child = fork();
    MUST(child >= 0);
    if (child == 0) {
        limited_to(LIMIT);
        threads_start();
        _exit(7);
    }
    int status = 0;
    MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    /* Lifted again, and set lower. */
    limit_to(RLIM_INFINITY);
    free(memset(malloc(2 * LIMIT), 1, 1));
    limit_to(LIMIT / 2);
    threads_start();
}

/* The C library gives little of such blocks back. */
static void small_blocks(void) {
    limit_to(LIMIT);
    to_the_end(200);
}

static void is_refused_what_nobody_may(void) {
    struct rlimit limit = {.rlim_cur = LIMIT, .rlim_max = LIMIT / 2};
    MUST(setrlimit(resource, &limit) == -1 && errno == EINVAL);
    void *volatile nowhere = (void *)8;
    MUST(setrlimit(resource, nowhere) == -1 && errno == EFAULT);
    limit.rlim_max = LIMIT;
    MUST(setrlimit(resource, &limit) == 0);
    limited_to(LIMIT);
    MUST(getrlimit(resource, &limit) == 0 && limit.rlim_max == LIMIT);
    threads_start();
    limit.rlim_cur = LIMIT / 2;
    MUST(setrlimit(resource, &limit) == 0);
    limit.rlim_cur = limit.rlim_max = LIMIT;
    MUST(setrlimit(resource, &limit) == 0);
    limited_to(LIMIT);
    threads_start();
}

/* A program in this one's place, which has the limit and no other; and one that is not there. */
static void starts_another(void) {
    limit_to(LIMIT);
    char *words[] = {self, "asks", resource == RLIMIT_AS ? "addresses" : "data", NULL};
    MUST(execv("/no/such/program", words) == -1 && errno == ENOENT);
    limited_to(LIMIT);
    threads_start();
    execv(self, words);
    MUST(!"started");
}

static void asks(void) {
    limited_to(LIMIT);
    free(malloc(1000));
}

int main(int count, char **words) {
    MUST(count == 3);
    self = words[0];
    resource = strcmp(words[2], "data") == 0 ? RLIMIT_DATA : RLIMIT_AS;
    if (strcmp(words[1], "goes_on") == 0) goes_on();
    else if (strcmp(words[1], "small") == 0) small_blocks();
    else if (strcmp(words[1], "refused") == 0) is_refused_what_nobody_may();
    else if (strcmp(words[1], "starts") == 0) starts_another();
    else if (strcmp(words[1], "asks") == 0) asks();
    else return 2;
    puts("done");
    return 0;
}
