/* There is no POSIX in SILA's user space: the C of the second signature scheme includes this and uses none of it. */
#ifndef SILA_UNISTD_H
#define SILA_UNISTD_H

#include <stddef.h>

#endif
