// A library with operators of its own, bound to itself, as one is that has a copy of C++'s library inside.
// With -DLIBRARY the library, else the program, which deletes what the library made.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

#ifdef LIBRARY
void *operator new(std::size_t size) {
    void *block = malloc(size);
    if (!block) throw std::bad_alloc();
    return block;
}
void operator delete(void *block) noexcept { free(block); }
void operator delete(void *block, std::size_t) noexcept { free(block); }

std::string *make() { return new std::string("longer than what fits inside of a string"); }
#else
std::string *make();

int main() {
    std::string *made = make();
    std::printf("%zu\n", made->size());
    delete made;
    delete new std::string("of the program's own");
}
#endif
