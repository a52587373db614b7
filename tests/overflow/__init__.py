"""Readers that lag, over real sockets: merged, cut off, paused or dropped; and fewer writes for those who ask for them.

ground      a relay with a route for each way; readers that stick; what an event stream says
conftest    `site`, `speak`: how the test's clients speak
"""
