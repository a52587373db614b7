/*
 * histogram: how often each length of time was seen, in nanoseconds.
 *
 * It counts in 64 buckets for each power of two, so a value is known to 0.8 %; it is printed with 8 for each.
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H
#include "loop.h"

struct histogram {
    uint64_t buckets[60 * 64], count;
    int64_t max;
};

void histogram_add(struct histogram *, int64_t value);

/* As a member of a JSON object, in microseconds; of the buckets, [upper bound, count], those that are not empty. */
void histogram_print(const char *name, const struct histogram *);

#endif
