/* Programs that forbid themselves calls, and that hold signals back: `sandbox HOW [bad]`. HOW is `prctl` or `seccomp`, by which a
   filter is put in force, or `blocked`; `bad` then writes past a block. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MUST(holds) ((holds) ? (void)0 : (fprintf(stderr, "line %d: %s: %s\n", __LINE__, #holds, strerror(errno)), exit(1)))
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#define DIES_BY(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

/* No C library's allocator makes these calls. */
static struct sock_filter rules[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
    DIES_BY(SYS_ioctl), DIES_BY(SYS_userfaultfd), DIES_BY(SYS_process_madvise), DIES_BY(SYS_process_vm_readv),
    DIES_BY(SYS_perf_event_open), DIES_BY(SYS_timer_create), DIES_BY(SYS_fork), DIES_BY(SYS_execve),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static void work(void) {
    char *blocks[500];
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < 500; i++) {
            blocks[i] = malloc(i * 37);
            if (i != 0) memset(blocks[i], 1, i * 37);
        }
        for (int i = 0; i < 500; i++) {
            if (i % 3 == 0) blocks[i] = realloc(blocks[i], 70000);
            free(blocks[i]);
        }
    }
}

static void *works(void *unused) {
    work();
    return NULL;
}

int main(int count, char **words) {
    MUST(count >= 2);
    /* Streams ask what they write to. */
    puts("armed");
    fflush(stdout);
    work();
    struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};
    sigset_t all;
    sigfillset(&all);
    if (strcmp(words[1], "blocked") == 0) {
        MUST(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
    } else {
        MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        if (strcmp(words[1], "prctl") == 0) MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
        else MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
    }
    work();
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, works, NULL) == 0 && pthread_join(thread, NULL) == 0);
    volatile char *block = malloc(48);
    block[count > 2 ? 48 : 47] = 1;
    free((void *)block);
    puts("done");
    return 0;
}
