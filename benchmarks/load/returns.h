/*
 * returns: who comes back after a break, and when: a heap, the next one on top.
 */
#ifndef RETURNS_H
#define RETURNS_H
#include "loop.h"

void returns_prepare(uint32_t most);
void returns_add(uint32_t reader, int64_t at);
int64_t returns_next(void); /* INT64_MAX: nobody */
uint32_t returns_take(void);

#endif
