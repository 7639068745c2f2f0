"""A coarse field becomes a mesh, refined by guidance."""
