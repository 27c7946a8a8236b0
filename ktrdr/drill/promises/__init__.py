"""One module for each promise, or for a few that are tried alike."""
