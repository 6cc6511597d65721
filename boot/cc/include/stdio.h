/* Nothing in SILA's user space prints from C: the C of the second signature scheme includes this and uses none of it. */
#ifndef SILA_STDIO_H
#define SILA_STDIO_H

#include <stddef.h>

#endif
