"""The host agent: takes training requests from the bus and runs them in a process of their own."""
