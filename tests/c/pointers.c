/* Calls malloc and free by addresses that the executable itself holds: without -fPIE the linker makes stubs for them. */
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words)
{
    void *(*allocate)(size_t) = malloc;
    void (*release)(void *) = free;
    volatile char *block = allocate(16);
    (void)count;
    block[atoi(words[1])] = 1;
    release((void *)block);
    puts("end");
    return 0;
}
