"""A text prior learns the name of an object."""
