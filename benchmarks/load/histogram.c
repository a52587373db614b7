#include "histogram.h"

enum { FINE = 64, MERGED = 8 }; /* buckets for each power of two; how many of them make one that is printed */

void histogram_add(struct histogram *h, int64_t value)
{
    uint64_t v = value < 0 ? 0 : (uint64_t)value;
    unsigned power = v < 64 ? 0 : 63 - (unsigned)__builtin_clzll(v);
    h->buckets[v < 64 ? v : (power - 5) * 64 + ((v >> (power - 6)) & 63)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

/* The middle of the bucket that holds this quantile, in microseconds. */
static double quantile_us(const struct histogram *h, double q)
{
    uint64_t rank = (uint64_t)(q * (double)h->count), seen = 0;
    for (size_t i = 0; i < sizeof h->buckets / sizeof *h->buckets; i++) {
        seen += h->buckets[i];
        if (seen > rank) {
            if (i < FINE)
                return (double)i / 1e3;
            unsigned shift = (unsigned)(i / FINE) - 1;
            double middle = ((double)(FINE + i % FINE) + 0.5) * (double)(1ULL << shift) / 1e3;
            double most = (double)h->max / 1e3;
            return middle < most ? middle : most;
        }
    }
    return 0;
}

/* Where the bucket behind this one begins, in microseconds. */
static double upper_us(size_t bucket)
{
    if (bucket < FINE)
        return (double)(bucket + 1) / 1e3;
    return (double)(FINE + bucket % FINE + 1) * (double)(1ULL << (bucket / FINE - 1)) / 1e3;
}

void histogram_print(const char *name, const struct histogram *h)
{
    const char *comma = "";
    printf("\"%s\":{\"count\":%" PRIu64 ",\"p50\":%.1f,\"p95\":%.1f,\"p99\":%.1f,\"max\":%.1f,\"buckets\":[", name,
           h->count, quantile_us(h, 0.5), quantile_us(h, 0.95), quantile_us(h, 0.99), (double)h->max / 1e3);
    for (size_t i = 0; i < sizeof h->buckets / sizeof *h->buckets; i += MERGED) {
        uint64_t sum = 0;
        for (size_t j = i; j < i + MERGED; j++)
            sum += h->buckets[j];
        if (sum) {
            printf("%s[%.10g,%" PRIu64 "]", comma, upper_us(i + MERGED - 1), sum);
            comma = ",";
        }
    }
    fputs("]}", stdout);
}
