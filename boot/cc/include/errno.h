/* Freestanding errno.h for SILA's user space: no errno exists; the compiler's mm_malloc.h includes it. */
#ifndef SILA_ERRNO_H
#define SILA_ERRNO_H
#endif
