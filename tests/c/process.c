/* Programs that treat their process roughly and have no error: `process NAME`. Status 0 when all went as it should. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char *self, *argument;

#define MUST(holds) ((holds) ? (void)0 : (fprintf(stderr, "line %d: %s: %s\n", __LINE__, #holds, strerror(errno)), exit(1)))

static void work(unsigned seed, int rounds) {
    char *blocks[32] = {0};
    for (int i = 0; i < rounds; i++) {
        unsigned at = (seed = seed * 1103515245 + 12345) >> 16 & 31, size = seed >> 8 & 2047;
        if (blocks[at] && blocks[at][0] != (char)at) abort();
        free(blocks[at]);
        blocks[at] = malloc(size + 1);
        memset(blocks[at], (int)at, size + 1);
    }
    for (int i = 0; i < 32; i++) free(blocks[i]);
}

static void *works(void *seed) {
    work((unsigned)(size_t)seed, 200);
    /* Freed by whoever waits for this thread. */
    char *left = malloc(100);
    memset(left, 7, 100);
    return left;
}

/* 200 at once, in waves, each ending while others begin. */
static void threads(void) {
    pthread_t all[200];
    for (int wave = 0; wave < 3; wave++) {
        for (size_t i = 0; i < 200; i++) MUST(pthread_create(&all[i], NULL, works, (void *)(i + 1)) == 0);
        for (int i = 0; i < 200; i++) {
            void *left = NULL;
            MUST(pthread_join(all[i], &left) == 0 && ((char *)left)[99] == 7);
            free(left);
        }
    }
}

static volatile int stop;

static void *until_stopped(void *seed) {
    while (!stop) work((unsigned)(size_t)seed, 20);
    return NULL;
}

/* Each child must find the heap usable, whatever the other threads of its parent were doing. */
static void forks(void) {
    pthread_t all[3];
    for (size_t i = 0; i < 3; i++) MUST(pthread_create(&all[i], NULL, until_stopped, (void *)(i + 1)) == 0);
    int count = argument ? atoi(argument) : 1000;
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        MUST(child >= 0);
        if (child == 0) {
            work((unsigned)i, 10);
            _exit(i & 63);
        }
        int status = 0;
        MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == (i & 63));
    }
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(all[i], NULL);
}

static void closes_all(void) {
    for (int fd = 3; fd < 1024; fd++) close(fd);
    work(1, 2000);
    MUST(closefrom == NULL || (closefrom(3), 1));
    work(2, 2000);
    /* The descriptors that were given back are the program's own again. */
    int fd = open("/dev/zero", O_RDONLY);
    MUST(fd == 3);
    char *bytes = malloc(100);
    MUST(read(fd, bytes, 100) == 100);
    free(bytes);
}

/* One program after the other in the same process; the environment goes through. */
static void execs(void) {
    int left = argument ? atoi(argument) : 5;
    work((unsigned)left, 50);
    if (left == 0) return;
    char number[12];
    snprintf(number, sizeof number, "%d", left - 1);
    char *words[] = {self, "execs", number, NULL};
    if (left % 3 == 0) execve(self, words, environ);
    if (left % 3 == 1) execl(self, self, "execs", number, NULL);
    execvp(self, words);
    MUST(!"exec returned");
}

static void spawns(void) {
    for (int i = 0; i < 20; i++) {
        char *words[] = {self, "execs", "1", NULL};
        pid_t child;
        int status = 0;
        MUST(posix_spawn(&child, self, NULL, NULL, words, environ) == 0);
        MUST(waitpid(child, &status, 0) == child && status == 0);
        child = vfork();
        if (child == 0) {
            execve(self, words, environ);
            _exit(99);
        }
        MUST(waitpid(child, &status, 0) == child && status == 0);
        child = vfork();
        if (child == 0) {
            char *none[] = {"/no/such/program", NULL};
            execve(none[0], none, environ);
            _exit(98);
        }
        MUST(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 98);
        work((unsigned)i, 50);
    }
}

static void *no_memory(void *unused) {
    void *held[1000];
    int count = 0;
    while (count < 1000 && (held[count] = malloc(1 << 16)) != NULL) count++;
    while (count) free(held[--count]);
    return NULL;
}

/* A library that allocates when it is loaded and frees when it goes. */
static void libraries(void) {
    MUST(argument);
    for (int i = 0; i < 50; i++) {
        void *library = dlopen(argument, i % 2 ? RTLD_NOW : RTLD_LAZY | RTLD_GLOBAL);
        if (!library) fprintf(stderr, "%s\n", dlerror());
        MUST(library);
        char *(*hold)(void) = (char *(*)(void))dlsym(library, "plugin_block");
        MUST(hold && strcmp(hold(), "allocated by a constructor") == 0);
        MUST(dlclose(library) == 0);
        work((unsigned)i, 100);
    }
}

static volatile sig_atomic_t handled;
static void on_signal(int number) { handled = number; }

/* Handlers, masks and alternate stacks of the program's own stay its own. */
static void signals(void) {
    struct sigaction mine = {.sa_handler = on_signal}, seen;
    MUST(sigaction(SIGUSR1, &mine, NULL) == 0 && sigaction(SIGSEGV, &mine, NULL) == 0);
    MUST(sigaction(SIGSEGV, NULL, &seen) == 0 && seen.sa_handler == on_signal);
    MUST(raise(SIGSEGV) == 0 && handled == SIGSEGV);
    sigset_t all, was;
    sigfillset(&all);
    MUST(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0 && sigprocmask(SIG_BLOCK, NULL, &was) == 0);
    MUST(sigismember(&was, SIGSEGV) == 1 && sigismember(&was, SIGUSR1) == 1);
    MUST(raise(SIGUSR1) == 0 && handled == SIGSEGV);
    work(1, 100);
    sigemptyset(&all);
    MUST(sigprocmask(SIG_SETMASK, &all, NULL) == 0 && handled == SIGUSR1);
    MUST(signal(SIGBUS, SIG_IGN) == SIG_DFL && signal(SIGBUS, SIG_DFL) == SIG_IGN);
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16}, old;
    MUST(sigaltstack(&stack, &old) == 0 && sigaltstack(&old, NULL) == 0);
    free(stack.ss_sp);
}

static void limits(void) {
    work(1, 1000);
    MUST(mlockall(MCL_CURRENT) == 0 || errno == EPERM || errno == ENOMEM || errno == EAGAIN);
    work(2, 1000);
    munlockall();
    no_memory(NULL);
}

static void cancelled_thread(void *block) { free(block); }

static void *waits(void *unused) {
    char *block = malloc(64);
    pthread_cleanup_push(cancelled_thread, block);
    char byte;
    int ends[2];
    MUST(pipe(ends) == 0);
    (void)read(ends[0], &byte, 1);
    pthread_cleanup_pop(1);
    return NULL;
}

/* A thread that is cancelled in a call that we stand in front of unwinds through us. */
static void cancels(void) {
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        void *result;
        MUST(pthread_create(&thread, NULL, waits, NULL) == 0);
        MUST(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    }
}

int main(int count, char **words) {
    if (count < 2) return 2;
    self = words[0];
    argument = count > 2 ? words[2] : NULL;
#define RUN(name) if (strcmp(words[1], #name) == 0) { name(); puts("done"); return 0; }
    RUN(threads) RUN(forks) RUN(closes_all) RUN(execs) RUN(spawns) RUN(libraries) RUN(signals) RUN(limits) RUN(cancels)
    return 2;
}
