/* Freestanding stdlib.h for SILA's user space. sila_rt (feature "c-alloc") defines these. */
#ifndef SILA_STDLIB_H
#define SILA_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *block);

#endif
