/* one heap error per run.  matrix OP SIZE K   (exit 0 = nothing noticed)
   K is an offset or count; the runner enumerates. Loops are volatile so nothing folds away. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/uio.h>
static volatile char sink; typedef volatile char vc;
static void churn(int n) { for (int i = 0; i < n; i++) { char *p = malloc(16 + (i * 37) % 900); p[0] = 1; free(p); } }
static void *thr_free(void *p) { free(p); return 0; }
static void *thr_read(void *p) { sink = *(vc *)p; return 0; }
static void inthread(void *(*f)(void *), void *p) { pthread_t t; pthread_create(&t, 0, f, p); pthread_join(t, 0); }
int main(int c, char **v) {
  if (c < 4) return 99;
  const char *op = v[1]; size_t n = strtoull(v[2], 0, 0); long k = strtol(v[3], 0, 0);
#define OP(s) if (!strcmp(op, s))
  vc *p, *q;
  OP("none")      { p = malloc(n); memset((char *)p, 1, n); free((void *)p); churn(100); return 0; }
  OP("read-past") { p = malloc(n); sink = p[n + k]; free((void *)p); return 0; }
  OP("write-past"){ p = malloc(n); p[n + k] ^= 0x5a; free((void *)p); return 0; }
  OP("write-past-zero") { p = malloc(n); memset((char *)p, 1, n); p[n + k] = 0; free((void *)p); return 0; }   /* the strcpy NUL */
  OP("write-past-leak") { p = malloc(n); p[n + k] ^= 0x5a; churn(100); return 0; }                            /* never freed */
  OP("write-past-realloc") { p = malloc(n); p[n + k] ^= 0x5a; p = realloc((void *)p, n + 4096); free((void *)p); return 0; }
  OP("write-past-calloc") { p = calloc(1, n); p[n + k] ^= 0x5a; free((void *)p); return 0; }
  OP("write-past-memalign64") { p = aligned_alloc(64, n); p[n + k] ^= 0x5a; free((void *)p); return 0; }
  OP("read-before") { p = malloc(n); sink = p[-k]; free((void *)p); return 0; }
  OP("write-before") { p = malloc(n); p[-k] ^= 0x5a; free((void *)p); return 0; }
  OP("write-before-leak") { p = malloc(n); p[-k] ^= 0x5a; churn(100); return 0; }
  OP("uaf-read")  { p = malloc(n); free((void *)p); churn(k); sink = p[n / 2]; return 0; }
  OP("uaf-write") { p = malloc(n); free((void *)p); churn(k); p[n / 2] = 1; return 0; }
  OP("uaf-samesize") { p = malloc(n); free((void *)p); for (long i = 0; i < k; i++) free(malloc(n)); sink = p[0]; return 0; }
  OP("uaf-realloc-moved") { p = malloc(n); q = realloc((void *)p, n * 2 + 8192); sink = p[0]; free((void *)q); return 0; }
  OP("uaf-realloc-shrunk") { p = malloc(n); q = realloc((void *)p, n / 2); sink = q[n / 2 + k]; free((void *)q); return 0; }
  OP("uaf-thread") { p = malloc(n); inthread(thr_free, (void *)p); churn(k); sink = p[0]; return 0; }
  OP("uaf-thread2") { p = malloc(n); free((void *)p); inthread(thr_read, (void *)p); return 0; }
  OP("uaf-memcpy") { p = malloc(n); char *d = malloc(n); free((void *)p); memcpy(d, (void *)p, n); free(d); return 0; }
  OP("double-free") { p = malloc(n); free((void *)p); churn(k); free((void *)p); return 0; }
  OP("double-free-thread") { p = malloc(n); inthread(thr_free, (void *)p); free((void *)p); return 0; }
  OP("double-free-samesize") { p = malloc(n); free((void *)p); void *h[64]; for (int i = 0; i < 64; i++) h[i] = malloc(n); free((void *)p); for (int i = 0; i < 64; i++) ((char *)h[i])[0] = 1; return 0; }
  OP("realloc-freed") { p = malloc(n); free((void *)p); p = realloc((void *)p, n + 1); return 0; }
  OP("usable-freed") { p = malloc(n); free((void *)p); return malloc_usable_size((void *)p) == 12345; }
  OP("free-inside") { p = malloc(n); free((void *)(p + k)); return 0; }
  OP("free-stack") { char b[64]; free((void *)(((uintptr_t)b + 15) & ~15ul)); return 0; }
  OP("free-static") { static _Alignas(16) char b[64]; free(b); return 0; }
  OP("free-mmapish") { free((void *)(uintptr_t)0x700000000010); return 0; }
  OP("free-odd") { free((void *)1); return 0; }
  OP("syscall-read-past") { p = malloc(n); int fd = open("/dev/zero", O_RDONLY); ssize_t r = read(fd, (void *)p, n + k); free((void *)p); fprintf(stderr, "read=%zd\n", r); return 0; }
  OP("syscall-uaf") { p = malloc(n); free((void *)p); int fd = open("/dev/zero", O_RDONLY); ssize_t r = read(fd, (void *)p, n); fprintf(stderr, "read=%zd\n", r); return 0; }
  OP("uninit") { p = malloc(n); int z = 0; for (size_t i = 0; i < n; i++) z += p[i] != 0; free((void *)p); return z ? 3 : 0; }     /* 3 = memory is filled */
  OP("uninit-dirty") { p = malloc(n); memset((char *)p, 'S', n); free((void *)p); p = malloc(n); int z = 0; for (size_t i = 0; i < n; i++) z += p[i] == 'S'; return z ? 4 : 0; } /* 4 = old data leaks */
  OP("leak") { for (long i = 0; i < k; i++) { p = malloc(n); p[0] = 1; } p = 0; return 0; }
  return 98;
}
