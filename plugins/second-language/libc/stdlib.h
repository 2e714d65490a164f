/* The part of the C library that a policy needs. */
#ifndef POTLUCK_STDLIB_H
#define POTLUCK_STDLIB_H
#include <stddef.h>

void *malloc(size_t size);
void *realloc(void *old, size_t size);
void free(void *old);
_Noreturn void abort(void);
#endif
