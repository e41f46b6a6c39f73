/* Buffers that the kernel fills or reads, each named longer than its block: `kernel NAME` and `kernel NAME good`.
   It prints what the call gave, so that runs with and without a guard can be compared. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Of FORTIFY: compilers call these where they know the room, which here they are told. */
ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __pread_chk(int, void *, size_t, off_t, size_t);
ssize_t __pread64_chk(int, void *, size_t, off64_t, size_t);
ssize_t __recv_chk(int, void *, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
ssize_t __readlink_chk(const char *, char *, size_t, size_t);
ssize_t __readlinkat_chk(int, const char *, char *, size_t, size_t);
char *__getcwd_chk(char *, size_t, size_t);
size_t __fread_chk(void *, size_t, size_t, size_t, FILE *);
size_t __fread_unlocked_chk(void *, size_t, size_t, size_t, FILE *);
int __poll_chk(struct pollfd *, nfds_t, int, size_t);
ssize_t getdents64(int, void *, size_t);
int __open_2(const char *, int);
/* What programs call that were built with an older glibc. */
int __xstat(int, const char *, struct stat *);
int __fxstat(int, int, struct stat *);

enum { BLOCK = 64, LONGER = 80 };
static size_t named = LONGER;
static int zeros, null, pair[2], folder;
static char *block;
static struct iovec vector[2];

static void text(void) {
    if (send(pair[1], "0123456789", 10, 0) != 10) abort();
}

static struct iovec *pieces(void) {
    vector[0] = (struct iovec){block, 16};
    vector[1] = (struct iovec){block + 16, named - 16};
    return vector;
}

static struct msghdr *message(void) {
    static struct msghdr header;
    header = (struct msghdr){.msg_iov = pieces(), .msg_iovlen = 2};
    return &header;
}

static struct mmsghdr *messages(void) {
    static struct mmsghdr table[1];
    table[0].msg_hdr = *message();
    return table;
}

static FILE *stream(int fd, const char *how) {
    FILE *file = fdopen(dup(fd), how);
    if (!file) abort();
    return file;
}

/* A structure that the kernel fills: its block is half of it, when there is an error to make. */
static void *half(size_t size) { return malloc(named == BLOCK ? size : size / 2); }

/* A path, whose block is gone when there is an error to make. */
static char *freed(const char *text) {
    char *path = strdup(text);
    if (named != BLOCK) free(path);
    return path;
}

#define CALLS(X) \
    X(read, read(zeros, block, named)) \
    X(__read_chk, __read_chk(zeros, block, named, LONGER)) \
    X(write, write(null, block, named)) \
    X(pread, pread(zeros, block, named, 0)) \
    X(pread64, pread64(zeros, block, named, 0)) \
    X(__pread_chk, __pread_chk(zeros, block, named, 0, LONGER)) \
    X(__pread64_chk, __pread64_chk(zeros, block, named, 0, LONGER)) \
    X(pwrite, pwrite(null, block, named, 0)) \
    X(pwrite64, pwrite64(null, block, named, 0)) \
    X(recv, (text(), recv(pair[0], block, named, 0))) \
    X(__recv_chk, (text(), __recv_chk(pair[0], block, named, LONGER, 0))) \
    X(recvfrom, (text(), recvfrom(pair[0], block, named, 0, NULL, NULL))) \
    X(__recvfrom_chk, (text(), __recvfrom_chk(pair[0], block, named, LONGER, 0, NULL, NULL))) \
    X(send, send(pair[1], block, named, 0)) \
    X(sendto, sendto(pair[1], block, named, 0, NULL, 0)) \
    X(readv, readv(zeros, pieces(), 2)) \
    X(preadv, preadv(zeros, pieces(), 2, 0)) \
    X(preadv64, preadv64(zeros, pieces(), 2, 0)) \
    X(preadv2, preadv2(zeros, pieces(), 2, 0, 0)) \
    X(preadv64v2, preadv64v2(zeros, pieces(), 2, 0, 0)) \
    X(writev, writev(null, pieces(), 2)) \
    X(pwritev, pwritev(null, pieces(), 2, 0)) \
    X(pwritev64, pwritev64(null, pieces(), 2, 0)) \
    X(pwritev2, pwritev2(null, pieces(), 2, 0, 0)) \
    X(pwritev64v2, pwritev64v2(null, pieces(), 2, 0, 0)) \
    X(recvmsg, (text(), recvmsg(pair[0], message(), 0))) \
    X(sendmsg, sendmsg(pair[1], message(), 0)) \
    X(recvmmsg, (text(), recvmmsg(pair[0], messages(), 1, 0, NULL))) \
    X(sendmmsg, sendmmsg(pair[1], messages(), 1, 0)) \
    X(fread, fread(block, 1, named, stream(zeros, "r"))) \
    X(__fread_chk, __fread_chk(block, LONGER, 1, named, stream(zeros, "r"))) \
    X(fread_unlocked, fread_unlocked(block, 1, named, stream(zeros, "r"))) \
    X(__fread_unlocked_chk, __fread_unlocked_chk(block, LONGER, 1, named, stream(zeros, "r"))) \
    X(fwrite, fwrite(block, 1, named, stream(null, "w"))) \
    X(fwrite_unlocked, fwrite_unlocked(block, 1, named, stream(null, "w"))) \
    X(getcwd, getcwd(block, named) != NULL) \
    X(__getcwd_chk, __getcwd_chk(block, named, LONGER) != NULL) \
    X(getdents64, getdents64(folder, block, named) > 0) \
    X(getrandom, getrandom(block, named, 0)) \
    X(getentropy, getentropy(block, named)) \
    X(readlink, readlink("/proc/self/exe", block, named) > 0) \
    X(__readlink_chk, __readlink_chk("/proc/self/exe", block, named, LONGER) > 0) \
    X(readlinkat, readlinkat(AT_FDCWD, "/proc/self/exe", block, named) > 0) \
    X(__readlinkat_chk, __readlinkat_chk(AT_FDCWD, "/proc/self/exe", block, named, LONGER) > 0) \
    X(getsockopt, getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, block, &(socklen_t){named})) \
    X(setsockopt, setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, memset(block, 0, BLOCK), named)) \
    X(getsockname, getsockname(pair[0], (void *)block, &(socklen_t){named})) \
    X(getpeername, getpeername(pair[0], (void *)block, &(socklen_t){named})) \
    X(connect, connect(socket(AF_UNIX, SOCK_STREAM, 0), memset(block, 1, BLOCK), named)) \
    X(bind, bind(socket(AF_INET, SOCK_STREAM, 0), memset(block, 1, BLOCK), named)) \
    X(poll, poll(memset(block, -1, BLOCK), named / 8, 0)) \
    X(__poll_chk, __poll_chk(memset(block, -1, BLOCK), named / 8, 0, LONGER)) \
    X(ppoll, ppoll(memset(block, -1, BLOCK), named / 8, &(struct timespec){0}, NULL)) \
    X(epoll_wait, epoll_wait(epoll_create1(0), (void *)block, named / 12, 0)) \
    X(epoll_pwait, epoll_pwait(epoll_create1(0), (void *)block, named / 12, 0, NULL)) \
    X(getxattr, getxattr("/", "user.none", block, named)) \
    X(lgetxattr, lgetxattr("/", "user.none", block, named)) \
    X(fgetxattr, fgetxattr(folder, "user.none", block, named)) \
    X(listxattr, listxattr("/", block, named) >= 0) \
    X(llistxattr, llistxattr("/", block, named) >= 0) \
    X(flistxattr, flistxattr(folder, block, named) >= 0) \
    X(stat, stat("/", half(sizeof(struct stat)))) \
    X(stat64, stat64("/", half(sizeof(struct stat)))) \
    X(lstat, lstat("/", half(sizeof(struct stat)))) \
    X(lstat64, lstat64("/", half(sizeof(struct stat)))) \
    X(fstat, fstat(folder, half(sizeof(struct stat)))) \
    X(fstat64, fstat64(folder, half(sizeof(struct stat)))) \
    X(fstatat, fstatat(folder, ".", half(sizeof(struct stat)), 0)) \
    X(fstatat64, fstatat64(folder, ".", half(sizeof(struct stat)), 0)) \
    X(statx, statx(folder, ".", 0, STATX_ALL, half(sizeof(struct statx)))) \
    X(statfs, statfs("/", half(sizeof(struct statfs)))) \
    X(statfs64, statfs64("/", half(sizeof(struct statfs)))) \
    X(fstatfs, fstatfs(folder, half(sizeof(struct statfs)))) \
    X(fstatfs64, fstatfs64(folder, half(sizeof(struct statfs)))) \
    X(uname, uname(half(sizeof(struct utsname)))) \
    X(getrusage, getrusage(RUSAGE_SELF, half(sizeof(struct rusage)))) \
    X(getrlimit, getrlimit(RLIMIT_CORE, half(sizeof(struct rlimit)))) \
    X(open, open(freed("/dev/null"), O_RDONLY) >= -1) \
    X(openat, openat(AT_FDCWD, freed("/dev/null"), O_RDONLY) >= -1) \
    X(fopen, (fopen(freed("/dev/null"), "r"), 0)) \
    X(access, access(freed("/dev/null"), R_OK) >= -1) \
    X(unlink, unlink(freed("/no such file"))) \
    X(rename, rename(freed("/no such file"), "/nor this")) \
    X(chdir, chdir(freed("/")) >= -1) \
    X(__open_2, __open_2(freed("/dev/null"), O_RDONLY) >= -1) \
    X(__xstat, __xstat(1, "/", half(sizeof(struct stat)))) \
    X(__fxstat, __fxstat(1, folder, half(sizeof(struct stat)))) \
    X(select, select(named * 8, memset(block, 0, BLOCK), NULL, NULL, &(struct timeval){0}) >= -1) \
    X(pselect, pselect(named * 8, NULL, memset(block, 0, BLOCK), NULL, &(struct timespec){0}, NULL) >= -1)

int main(int count, char **words) {
    if (count == 1) {
#define NAME(name, call) puts(#name);
        CALLS(NAME)
        return 0;
    }
    if (count > 2) named = BLOCK;
    zeros = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY), folder = open("/", O_RDONLY | O_DIRECTORY);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0 || zeros < 0 || null < 0 || folder < 0) return 3;
    block = malloc(BLOCK);
    memset(block, 'B', BLOCK);
    if (write(1, "armed\n", 6) != 6) return 3;
#define RUN(name, call) if (strcmp(words[1], #name) == 0) { long result = (long)(call); printf("%ld\n", result); return 0; }
    CALLS(RUN)
    return 2;
}
