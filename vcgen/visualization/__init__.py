"""Images, videos and meshes as files."""
