"""Floor 3: the relay without sockets. A clock is handed in; nothing here asks for the time by itself."""
