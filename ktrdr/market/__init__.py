"""Market data: finding, reading, checking, resampling, aligning and snapshotting bars."""
