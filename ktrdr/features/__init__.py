"""From bars to the network's inputs: indicators, fuzzy memberships, normalization."""
