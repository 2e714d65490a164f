/* The part of the C library that a policy needs. */
#ifndef POTLUCK_STRING_H
#define POTLUCK_STRING_H
#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int byte, size_t size);
size_t strlen(const char *text);
#endif
