"""Attacks on the relay's HTTP/2, each as a script of raw frames (robustness: A1 – A11).

What each costs is reported, not asserted: ATTACKS_REPORT=FILE appends a line for each.
"""
