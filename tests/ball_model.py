"""A model whose renderings are known, and images for it."""

import numpy as np
from PIL import Image, ImageDraw

SIZE = 32
CONFIG = {
    "class_path": "stand_in.BallSystem",
    "init_args": {},
    "image_size": [SIZE, SIZE],
    "background": 1.0,
    "camera": {"focal": 1.0254, "distance": 1.3, "elevation": 20, "near": 0.8, "far": 1.8},
}
QUICK = ["--turntable-frames", "0", "--mesh-resolution", "0", "--device", "cpu"]


def red_box(path, mode="RGBA", background=(0, 0, 0, 0), size=(200, 120), box=(20, 30, 59, 49)):
    image = Image.new(mode, size, background)
    ImageDraw.Draw(image).rectangle(box, fill=(200, 30, 30, 255)[: len(mode)])
    image.save(path)
    return path


def read(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def alpha_box(image):
    rows, columns = np.nonzero(image.alpha.max(1) > 0.5)[0], np.nonzero(image.alpha.max(0) > 0.5)[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
