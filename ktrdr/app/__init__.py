"""The one place that wires parts together: one module for each kind of process."""
