"""Floor 1: bytes <-> protocol facts. No asyncio, no socket, no clock, no logging."""
