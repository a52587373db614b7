"""Floor 2: who may hold how much. No asyncio, no socket, no clock, no logging."""
