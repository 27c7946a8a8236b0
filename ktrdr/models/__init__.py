"""Models as files: bundles, version directories, reports, and models loaded to predict."""
