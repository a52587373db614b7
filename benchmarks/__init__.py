"""The benchmark harness: what a relay costs, what it adds, and what it spares, beside others on the same machine.

    python -m benchmarks run | compare | check          see __main__.py

        plan          which scenarios there are, who takes part, in which order
        scenarios     streams that are open, requests that come           each plays one act and
        leaving       many readers, stuck ones, those who come and go     notes what was seen
        notes         what is noted of a run: figures, distributions, doubts
        stage         one act: provider, subject, client, and the counters at both ends of its window
        subjects      who is compared, and how each is configured
        install_peers those from PyPI, in environments of their own
        building      the programs in C, a certificate
        processes     children on their cores, what they use
        handicap      a relay that is worse by a known amount
        check         the harness held against what was put in
        figures       every figure: its unit, its words, which way is better
        results       the JSON document that is left behind
        verdicts      what a spread allows to be said
        compare       two documents: better, worse, or noise
        summary       the answers that terminal and report both give
        terminal      the first screen, the progress bar
        report, plots the page
        delivery      the log's memory and where it is read from, by themselves
        load/         client and provider, in C: open loop, no allocation per event
        floor, fan    the least that a relay, and a fan-out, can do
        network       a bad network

An event carries the time at which it was due, so a delay includes whatever made it late. The relay's CPU is read from
the kernel's counters at both ends of a window in which all streams are open. Subjects are played in turn, repeat after
repeat, and only runs of one repeat are compared: neighbours on a shared machine make absolute figures drift by half.
"""
