/* Freestanding assert.h for SILA's user space: assertions in C are compiled out, as in a release build. */
#undef assert
#define assert(condition) ((void)0)
