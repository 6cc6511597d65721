/* Freestanding string.h for SILA's user space. compiler_builtins (feature "mem") defines these. */
#ifndef SILA_STRING_H
#define SILA_STRING_H

#include <stddef.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
