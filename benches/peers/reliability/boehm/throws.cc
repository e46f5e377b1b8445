// A finalizer of the Boehm collector throws a C++ exception: who gets it, and do the others run?
#define GC_THREADS
#include <gc/gc.h>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <unistd.h>

static int started, ran;

static void finalize(void *, void *) {
    if (++started % 500 == 0) throw std::runtime_error("a finalizer threw");
    ran++;
}

__attribute__((noinline)) static void populate() {
    GC_disable();
    for (int i = 0; i < 2000; i++) {
        GC_REGISTER_FINALIZER(GC_MALLOC(64), finalize, nullptr, nullptr, nullptr);
    }
    GC_enable();
}

// With the argument "caught", every call that may run finalizers catches; otherwise nobody does.
int main(int count, char **arguments) {
    alarm(30);
    GC_INIT();
    bool caught = count > 1 && std::strcmp(arguments[1], "caught") == 0;
    int exceptions = 0;
    populate();
    for (int i = 0; i < 20; i++) {
        if (!caught) {
            GC_gcollect();
            continue;
        }
        try {
            GC_gcollect();
            GC_invoke_finalizers();
        } catch (const std::exception &) {
            exceptions++;
        }
    }
    std::printf("%d of 2,000 threw, out of the call that collected, into its caller; %d others ran\n", exceptions, ran);
}
