// One heap error of C++'s own a case, and for each a twin without it: `cwe_cpp CASE bad`, `cwe_cpp CASE good`.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <unistd.h>
#include <vector>

#define CASE __attribute__((noinline, noclone)) static void
static volatile char sink;
static bool bad;

static void armed() {
    if (write(1, "armed\n", 6) != 6) abort();
}

template <typename T> static T opaque(T value) {
    __asm__ volatile("" : "+r"(value) : : "memory");
    return value;
}

struct Shape {
    long sides = 4;
    virtual ~Shape() {}
    virtual long corners() { return sides; }
};

struct Square : Shape {
    long more[4] = {};
};

// 762: given back to another family of functions.

CASE cwe762_new_free() {
    int *block = opaque(new int(1));
    armed();
    if (bad) free(block); else delete block;
}

CASE cwe762_malloc_delete() {
    int *block = opaque(static_cast<int *>(malloc(sizeof(int))));
    armed();
    if (bad) delete block; else free(block);
}

CASE cwe762_array_delete() {
    int *block = opaque(new int[10]);
    armed();
    if (bad) delete block; else delete[] block;
}

CASE cwe762_delete_array() {
    int *block = opaque(new int(1));
    armed();
    if (bad) delete[] block; else delete block;
}

CASE cwe762_strdup_delete() {
    char *text = opaque(strdup("a text"));
    armed();
    if (bad) delete[] text; else free(text);
}

CASE cwe762_new_realloc() {
    char *block = opaque(bad ? new char[16] : static_cast<char *>(malloc(16)));
    armed();
    free(opaque(realloc(block, 100)));
}

CASE cwe762_unique_ptr() {
    std::unique_ptr<int> owner(bad ? new int[4] : new int(4));
    armed();
    owner.reset();
}

// Deleted as another type: the size that goes to operator delete is that type's.
struct Small { long one; };
struct Large { long many[16]; };

CASE cwe762_wrong_size() {
    Large *large = opaque(new Large());
    armed();
    if (bad) delete reinterpret_cast<Small *>(large); else delete large;
}

// The other classes, as C++ shows them.

CASE cwe122_array_new() {
    volatile int *numbers = opaque(new int[8]);
    armed();
    numbers[bad ? 8 : 7] = 1;
    delete[] numbers;
}

CASE cwe122_vector_data() {
    std::vector<long> numbers(16);
    volatile long *data = opaque(numbers.data());
    armed();
    data[bad ? 16 : 15] = 1;
}

CASE cwe122_downcast() {
    Shape *shape = opaque(bad ? new Shape() : new Square());
    armed();
    static_cast<volatile Square *>(static_cast<Square *>(shape))->more[2] = 1;
    delete shape;
}

CASE cwe415_two_owners() {
    int *block = opaque(new int(1));
    delete block;
    armed();
    if (bad) delete opaque(block);
}

CASE cwe416_iterator() {
    std::vector<int> numbers(4, 1);
    auto first = numbers.begin();
    if (bad) numbers.resize(1000);
    armed();
    sink = static_cast<char>(*opaque(&*first));
}

CASE cwe416_c_str() {
    auto owner = std::make_unique<std::string>("a string that is longer than what fits inside");
    const char *text = opaque(owner->c_str());
    if (bad) owner.reset();
    armed();
    sink = *static_cast<const volatile char *>(text);
}

CASE cwe416_virtual() {
    Shape *shape = opaque(new Square());
    if (bad) delete shape;
    armed();
    sink = static_cast<char>(opaque(shape)->corners());
    if (!bad) delete shape;
}

CASE cwe416_erased() {
    std::map<int, std::string> names{{1, "one"}, {2, "two"}};
    std::string *one = opaque(&names.at(1));
    if (bad) names.erase(1);
    armed();
    sink = *static_cast<const volatile char *>(opaque(&reinterpret_cast<char *>(one)[8]));
}

CASE cwe590_local() {
    int local = 1;
    int *block = bad ? opaque(&local) : new int(1);
    armed();
    delete block;
}

CASE cwe761_middle() {
    char *block = opaque(new char[64]);
    armed();
    delete[] (bad ? block + 8 : block);
}

#define ALL(X) \
    X(cwe762_new_free) X(cwe762_malloc_delete) X(cwe762_array_delete) X(cwe762_delete_array) X(cwe762_strdup_delete) \
    X(cwe762_new_realloc) X(cwe762_unique_ptr) X(cwe762_wrong_size) X(cwe122_array_new) X(cwe122_vector_data) \
    X(cwe122_downcast) X(cwe415_two_owners) X(cwe416_iterator) X(cwe416_c_str) X(cwe416_virtual) X(cwe416_erased) \
    X(cwe590_local) X(cwe761_middle)

int main(int count, char **words) {
    if (count != 3) return 2;
    bad = strcmp(words[2], "bad") == 0;
#define RUN(name) if (strcmp(words[1], #name) == 0) { name(); puts("survived"); return 0; }
    ALL(RUN)
    return 2;
}
