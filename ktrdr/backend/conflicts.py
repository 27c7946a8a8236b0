"""Transactions that are to be repeated."""


class ConflictError(Exception):
    """Another transaction changed the same since this one read it; the transaction is to be repeated."""
