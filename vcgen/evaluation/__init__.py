"""Models measured under a protocol file, object by object."""
