"""What became of a run and its scenes: recorded, read back, and drawn as a page."""
