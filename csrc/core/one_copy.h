// A function that callers share, also those in other files: GCC makes one of its own for each, where arguments are known.
#pragma once

#if __has_attribute(noclone)
#define TG_ONE_COPY __attribute__((noinline, noclone))
#else
#define TG_ONE_COPY __attribute__((noinline))
#endif
