/* Loads the library that is named when the program has long begun, and allocates by both, on two threads. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *(*its_malloc)(size_t);
static void (*its_free)(void *);

static void *work(void *failed) {
    for (int i = 0; i < 1000; i++) {
        char *own = malloc(100), *other = its_malloc(100);
        if (own == NULL || other == NULL) *(int *)failed = 1;
        memset(own, 1, 100);
        memset(other, 2, 100);
        if (own[99] != 1 || other[99] != 2) *(int *)failed = 1;
        its_free(other);
        free(own);
    }
    return NULL;
}

int main(int count, char **arguments) {
    char *before = malloc(10);
    int failed = 0;
    pthread_t thread;
    void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL) : RTLD_DEFAULT;
    if (library == NULL && count > 1) {
        puts(dlerror());
        return 1;
    }
    its_malloc = (void *(*)(size_t))dlsym(library, "malloc");
    its_free = (void (*)(void *))dlsym(library, "free");
    work(&failed);
    if (pthread_create(&thread, NULL, work, &failed) != 0 || pthread_join(thread, NULL) != 0) return 2;
    free(before);
    puts(failed ? "failed" : "both heaps serve");
    return failed;
}
