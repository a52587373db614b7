"""Hostile peers and failures, over real sockets: each limit, attack and fault the relay promises to stand."""
