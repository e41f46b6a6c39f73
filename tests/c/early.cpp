// A program with a `malloc` of its own and the common `operator new`, and a library (-DLIBRARY) whose constructor asks for a
// block before the program runs.
#include <new>

#ifdef LIBRARY
long *first = new long(1);
#else
#include <stddef.h>
#include <unistd.h>

extern long *first;
static char room[1 << 20];
static size_t used, calls;

extern "C" void *malloc(size_t size) {
    void *block = room + used;
    used += (size + 15) & ~(size_t)15;
    calls++;
    return block;
}
extern "C" void free(void *) {}

int main() {
    void *volatile block = malloc(8);
    int count = *first == 1;
    for (int i = 0; i < 10; i++) {
        long *volatile number = new long(1);
        count += (int)*number;
        delete number;
    }
    delete first;
    if (count != 11 || block == nullptr || calls == 0) return 1;
    return write(1, "11 served by the program's own\n", 31) == 31 ? 0 : 1;
}
#endif
