// Every form of operator new and operator delete, by name. With -DOWN the program has an operator new[] of its own, on malloc, and
// leaves operator delete[] to the library.
#include <cstdio>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

static int broken;
#define RULE(holds) ((holds) ? (void)0 : (void)(broken++, std::printf("line %d: %s\n", __LINE__, #holds)))

template <typename T> static T opaque(T value) {
    __asm__ volatile("" : "+r"(value) : : "memory");
    return value;
}

static void *used(void *block, std::size_t size, std::size_t align = 16) {
    RULE(block && (reinterpret_cast<std::uintptr_t>(block) & (align - 1)) == 0);
    return opaque(std::memset(block, 7, size));
}

#ifdef OWN
void *operator new[](std::size_t size) {
    void *block = std::malloc(size);
    if (!block) throw std::bad_alloc();
    return block;
}

static void own() {
    for (std::size_t size = 1; size < 9000; size = size * 2 + 1) {
        delete[] static_cast<char *>(used(new char[size], size));
        std::free(used(::operator new[](size), size));
    }
}
#else
static volatile bool handled;
static void on_refusal() {
    handled = true;
    std::set_new_handler(nullptr);
}

static void plain() {
    const std::nothrow_t &nothrow = std::nothrow;
    for (std::size_t size = 0; size < 9000; size = size * 2 + 1) {
        ::operator delete(used(::operator new(size), size));
        ::operator delete(used(::operator new(size), size), size);
        ::operator delete(used(::operator new(size, nothrow), size));
        ::operator delete(used(::operator new(size, nothrow), size), nothrow);
        ::operator delete[](used(::operator new[](size), size));
        ::operator delete[](used(::operator new[](size), size), size);
        ::operator delete[](used(::operator new[](size, nothrow), size));
        ::operator delete[](used(::operator new[](size, nothrow), size), nothrow);
        for (std::size_t bytes = 32; bytes <= 8192; bytes *= 4) {
            const std::align_val_t align{bytes};
            ::operator delete(used(::operator new(size, align), size, bytes), align);
            ::operator delete(used(::operator new(size, align), size, bytes), size, align);
            ::operator delete(used(::operator new(size, align, nothrow), size, bytes), align, nothrow);
            ::operator delete[](used(::operator new[](size, align), size, bytes), align);
            ::operator delete[](used(::operator new[](size, align), size, bytes), size, align);
            ::operator delete[](used(::operator new[](size, align, nothrow), size, bytes), align, nothrow);
        }
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr, std::size_t{8}, std::align_val_t{64});
}

template <typename F> static bool throws(F ask) {
    try {
        opaque(ask());
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}

static void refused() {
    const std::size_t huge = opaque(SIZE_MAX / 2 + 100);
    const std::align_val_t align{64};
    RULE(throws([&] { return ::operator new(huge); }) && throws([&] { return ::operator new[](huge); }));
    RULE(throws([&] { return ::operator new(huge, align); }) && throws([&] { return ::operator new[](huge, align); }));
    RULE(!::operator new(huge, std::nothrow) && !::operator new[](huge, std::nothrow));
    RULE(!::operator new(huge, align, std::nothrow) && !::operator new[](huge, align, std::nothrow));
    std::set_new_handler(on_refusal);
    RULE(throws([&] { return ::operator new(huge); }) && handled);
}
#endif

int main() {
#ifdef OWN
    own();
#else
    plain();
    refused();
#endif
    std::printf("%d broken\n", broken);
    return broken;
}
