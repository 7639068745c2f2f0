"""Images and animations from arrays: colors of numbers (depth, warm near and cold far; errors, white where there is
none), PNG, GIF, MP4, contact sheets.

Frames are numpy uint8 (n, height, width, 3), RGB. Nothing here imports torch.
"""

import io
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcgen.errors import UserError
from vcgen.io import replacing, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

#: matplotlib's Plasma (Smith, van der Walt and Firing 2015, CC0) at ninths, without its last one, a yellow that is hard
#: to see on white: its lightness rises evenly, so what looks nearer is nearer, in gray and to the color-blind, too.
PLASMA = ("0d0887", "46039f", "7201a8", "9c179e", "bd3786", "d8576b", "ed7953", "fb9f3a", "fdca26")
REDS = ("ffffff", "fccc8c", "e65438", "730a26")
#: Mean absolute difference over the channels, in the range 1, at which an error has the last color.
LARGEST_ERROR = 0.5


def to_uint8(images: "Tensor") -> NDArray[np.uint8]:
    """Images (..., channels, height, width) in [0, 1], clamped -> (..., height, width, channels) on the CPU."""
    return (images.detach().float().clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()


def png_bytes(pixels: NDArray[Any] | Image.Image) -> bytes:
    """A PNG file of uint8 (height, width, 3 or 4), uint16 (height, width), or an image of Pillow."""
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


def write_png(path: Path | str, pixels: NDArray[Any]) -> Path:
    """Write :func:`png_bytes` to ``path``, atomically."""
    write_bytes(path, png_bytes(pixels))
    return Path(path)


def gif_bytes(frames: NDArray[np.uint8], fps: float = 20) -> bytes:
    """A looping animated GIF as bytes. frames: uint8 (n, height, width, 3).

    GIF counts time in hundredths of a second, and most players slow down delays below 2: ``fps`` above 50 becomes 50.
    Every frame has its own palette of 256 colors. Viewers show n frames; identical neighbors are stored once with the
    sum of their delays."""
    hundredths = max(2, round(100 / fps))
    images = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in _checked(frames)]
    stream = io.BytesIO()
    images[0].save(
        stream, format="GIF", save_all=True, append_images=images[1:], duration=10 * hundredths, loop=0, optimize=False
    )
    return stream.getvalue()


def write_gif(path: Path | str, frames: NDArray[np.uint8], fps: float = 20) -> Path:
    """Write :func:`gif_bytes` to ``path``, atomically."""
    write_bytes(path, gif_bytes(frames, fps))
    return Path(path)


def write_mp4(path: Path | str, frames: NDArray[np.uint8], fps: float = 20) -> Path:
    """Write H.264 in yuv420p with the index up front, which plays in browsers, slides and phones; atomically.

    yuv420p halves the color resolution, so odd sizes are padded to even by repeating the last row or column. Uses the
    ffmpeg binary that the package imageio-ffmpeg brings along. Raises UserError when that cannot write."""
    import imageio_ffmpeg

    _, height, width, _ = _checked(frames).shape
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    size = f"{even.shape[2]}x{even.shape[1]}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps), "-i", "-"]
    result = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "16", "-preset", "medium", "-movflags", "+faststart"]
    with replacing(path) as temporary:
        # Not the package's own writer, which takes a half-written file for a success.
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source, *result, f"file:{temporary}"]
        done = subprocess.run(command, input=even.tobytes(), capture_output=True, check=False)
        if done.returncode:
            reason = (done.stderr.decode(errors="replace").splitlines() or [f"status {done.returncode}"])[
                -1
            ].rpartition("] ")[2]
            raise UserError(f"{path}: cannot be written (ffmpeg: {reason}); choose a writable place with free space")
    return Path(path)


def contact_sheet(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], columns: int, gap: int = 2
) -> NDArray[np.uint8]:
    """Images of one size, uint8 (n, height, width, 3), row by row in ``columns`` columns on white, ``gap`` white pixels
    between them.
    """
    frames = _checked(np.asarray(images))
    count, height, width, _ = frames.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def depth_image(depth: NDArray[Any], near: float, far: float, alpha: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Depth (...) as colors (..., 3): yellow at ``near``, through red, to violet at ``far``; others are clamped.

    alpha: the same shape, opacity in [0, 1]; what is transparent fades to white.
    """
    color = colored((far - np.asarray(depth, np.float64)) / (far - near), PLASMA)
    if alpha is not None:
        coverage = np.asarray(alpha, np.float64)[..., None]
        color = color * coverage + (1 - coverage)
    return np.round(color * 255).astype(np.uint8)


def error_image(prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
    """The mean absolute difference of two images (3, height, width) in [0, 1] as colors (height, width, 3)."""
    return np.round(colored(np.abs(prediction - truth).mean(0) / LARGEST_ERROR, REDS) * 255).astype(np.uint8)


def colored(values: NDArray[Any], colors: tuple[str, ...]) -> NDArray[np.float64]:
    """Values (...), clamped to [0, 1], along a path of evenly spaced colors: (..., 3) in [0, 1]."""
    stops = np.array([list(bytes.fromhex(color)) for color in colors]) / 255
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, places, channel) for channel in stops.T], -1)


def _checked(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 (n >= 1, height, width, 3), not {frames.dtype} {frames.shape}")
    return frames
