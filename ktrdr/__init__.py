"""Event-driven training of neuro-fuzzy trading models."""

__version__ = "0.1.0"
