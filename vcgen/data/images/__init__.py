"""Photos and images: reading, framing, masks, lens distortion."""
