"""Real peers that nobody here wrote, speaking HTTP/2 with the relay: clients, providers, browsers."""
