"""Floor 4: the only floor with transports."""
