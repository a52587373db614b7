"""Floor 5: one decision per request; the place for async and await."""
