"""The strategy language about itself: what there is, what a strategy means, a schema for editors."""
