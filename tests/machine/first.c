/* The first process of a machine that runs some programs and ends. /list has a line for each: the status that it must end
 * with, what its environment gets (NAME=VALUE), the program, and its arguments. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static void run(char *line) {
    char *words[40] = {NULL}, *word = strtok(line, " \n");
    int count = 0;
    for (; word && count < 39; word = strtok(NULL, " \n")) {
        if (count == 0 && strchr(word, '=')) putenv(word);
        else words[count++] = word;
    }
    execv(words[0], words);
    perror(words[0]);
    _exit(127);
}

int main(void) {
    mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/tmp", 0777), mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL), mount("sysfs", "/sys", "sysfs", 0, NULL);
    /* The root is memory, so /tmp is as well; and the tests may lie below it. */
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    chdir("/tmp"), setenv("PATH", "/bin", 1);
    int failed = 0, lines = 0;
    char line[4096];
    FILE *list = fopen("/list", "r");
    while (list && fgets(line, sizeof line, list)) {
        char *rest;
        int wanted = (int)strtol(line, &rest, 10), status = -1;
        pid_t child = fork();
        if (child == 0) run(rest);
        while (wait(&status) != child) {}
        int ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (ended != wanted) failed = 1;
        printf("machine: line %d ended with %d, must be %d\n", ++lines, ended, wanted), fflush(stdout);
    }
    struct utsname name;
    uname(&name);
    printf("machine: Linux %s, pages of %ld bytes, %s\n", name.release, sysconf(_SC_PAGESIZE),
           lines == 0 || failed ? "failed" : "fine");
    fflush(stdout), sync(), reboot(RB_POWER_OFF);
    return 0;
}
