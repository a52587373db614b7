/*
 * outcome: what a client prints at its end, and what it only keeps for that.
 */
#ifndef OUTCOME_H
#define OUTCOME_H
#include "loop.h"

extern struct outcome {
    uint64_t stuck_gone;
    int64_t stuck_last_gone, window_start;
} outcome;

void outcome_prepare(uint32_t readers);
void outcome_left(uint32_t reader, int64_t at); /* the times of the first of them are kept */
void outcome_report(double window, double segments_per_event);

#endif
