"""From scenes and meshes to images."""
