"""Functions of images and meshes whose values are reported."""
