"""Content-addressed storage of large things: a port, and what implements it."""
