/*
 * The part of the C library that a policy needs: memory that is handed out from one end to the other, and begins anew
 * when nothing of it is in use. A policy lives for one call, so nothing more is needed.
 */
#include "stdlib.h"
#include "string.h"
#include <stdint.h>

#define PAGE 65536u
/* Before each piece: its size. The largest alignment that the interface asks for is 8. */
#define HEAD 8u

extern unsigned char __heap_base;

/* The bindings ask the linker for an object with the interface's description; it is put in after linking. */
void __component_type_object_force_link_routing_policy(void) {}

static uintptr_t next;
static size_t live;

_Noreturn void abort(void) { __builtin_trap(); }

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  return __builtin_memcpy(to, from, size);
}

void *memset(void *to, int byte, size_t size) { return __builtin_memset(to, byte, size); }

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length] != '\0') length++;
  return length;
}

void *malloc(size_t size) {
  if (size > UINT32_MAX - PAGE) return NULL;
  uintptr_t start = next == 0 ? ((uintptr_t)&__heap_base + 7u) & ~(uintptr_t)7u : next;
  uint64_t end = (uint64_t)start + HEAD + ((size + 7u) & ~(size_t)7u);
  uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) * PAGE;
  if (end > have) {
    uint64_t pages = (end - have + PAGE - 1) / PAGE;
    if (pages > UINT16_MAX || __builtin_wasm_memory_grow(0, (size_t)pages) == SIZE_MAX) return NULL;
  }
  *(size_t *)start = size;
  next = (uintptr_t)end;
  live++;
  return (void *)(start + HEAD);
}

void free(void *old) {
  if (old == NULL) return;
  live--;
  if (live == 0) next = 0;
}

void *realloc(void *old, size_t size) {
  if (old == NULL) return malloc(size);
  size_t before = *(size_t *)((uintptr_t)old - HEAD);
  if (size <= before) return old;
  void *new = malloc(size);
  if (new != NULL) {
    memcpy(new, old, before);
    free(old);
  }
  return new;
}
