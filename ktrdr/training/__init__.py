"""Training, apart from who asks for it and where: the executor, its stages, and what it reports.

Importing this package, or `progress`, `cancellation` and `job`, does not import torch; `executor` does.
"""
