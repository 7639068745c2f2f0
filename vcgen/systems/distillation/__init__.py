"""A prior is distilled into the scene of one object."""
