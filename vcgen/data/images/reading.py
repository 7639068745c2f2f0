"""Reading image files that anybody may have made: only formats that are named here, within a number of pixels, or
refused in one line.
"""

import contextlib
import io
import logging
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcgen.errors import UserError
from vcgen.io import open_regular
from vcgen.terminal import first_few, one_line

if TYPE_CHECKING:
    from PIL import Image

#: What is read, as Pillow names it. What it would try beyond these starts other programs (PostScript: gs), or is rarely
#: tested.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
#: Pixels allowed in an image file: 400 MB once decoded. A larger number in a header is refused before any memory is
#: taken.
MAX_PIXELS = 100_000_000
#: The same for a view in a shard.
MAX_VIEW_PIXELS = 50_000_000
#: Bytes allowed in an image file; some readers of Pillow take a whole file, or a whole part of it, into memory.
MAX_BYTES = 500_000_000
#: What PNG files begin with.
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
#: What messages end in.
ADVICE = "give a PNG or JPEG file"
#: What names of image files end in.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
#: EXIF's tag of the orientation.
ORIENTATION = 0x0112
#: EXIF's number of a camera's orientation -> what turns (height, width, channels) upright.
UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


# What Pillow logs of damaged files is for those who ask for it: it must not stand beside the line that refuses them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def image_in(path: Path | str) -> Path:
    """``path`` itself, or where it is a folder the image file in it. Raises UserError that lists what is there for none
    or several.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    there = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    found = [name for name in there if name.lower().endswith(SUFFIXES)]
    if len(found) == 1:
        return path / found[0]
    listed = first_few(found or there, 5) or "nothing"
    raise UserError(one_line(f"{path} is a folder with {len(found)} images ({listed})", "name the image"))


def read_image(path: Path | str, upright: bool = False) -> NDArray[np.uint8]:
    """(height, width, 3) uint8, or 4 with straight alpha where the file holds any; the first frame of an animation.

    upright: turned as EXIF notes that the camera was held. Raises UserError in one line for a file that is missing,
    damaged, of another format than ``FORMATS`` whatever its name says, larger than ``MAX_PIXELS`` or ``MAX_BYTES``, or
    gray of more than 8 bits. Colors of 16 bits a channel lose their lower 8."""
    with open_regular(path, MAX_BYTES, ADVICE) as file:
        return _decode_checked(file, str(path), upright)


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """As :func:`read_image`, of the bytes of a file. name: what messages call it."""
    return _decode_checked(io.BytesIO(data), name, upright=False)


def read_header(path: Path | str) -> tuple[tuple[int, int], int]:
    """(height, width) of an image turned upright, and EXIF's number of its orientation, 1 where it has none. Refuses
    what read_image does, as far as the header tells."""
    with open_regular(path, MAX_BYTES, ADVICE) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(file, str(path), FORMATS) as image:
            check_size(image.width, image.height, str(path))
            number = _orientation(image)
            lies = number >= 5 and image.format != "TIFF"  # of which Pillow gives the upright size
            return (image.size if lies else image.size[::-1]), number


def two_coverages(image: Path, mask: Path) -> UserError:
    """The line for an image that has transparency, and a mask."""
    return UserError(f"{image} has transparency, and {mask} is given as its mask; keep one of them")


def read_mask(mask: Path, image: Path, upright: tuple[int, int]) -> NDArray[np.uint8]:
    """Coverage (H, W) uint8 of an upright image: the mask's alpha where that says anything, else its brightness.

    A mask without EXIF orientation of an image that has one lies as its shape says. Raises UserError where that does
    not tell, and for a mask of another size, in colors or without white."""
    pixels, orientation = read_image(mask, upright=True), read_header(image)[1]
    if orientation != 1 and read_header(mask)[1] == 1:
        if orientation < 5 or upright[0] == upright[1]:
            raise UserError(
                f"{mask} has no EXIF orientation, {image} has one: which way the mask lies is not told; save both"
                " upright"
            )
        if pixels.shape[:2] != upright:
            pixels = UPRIGHT[orientation](pixels)
    if pixels.shape[:2] != upright:
        found, wanted = (f"{shape[1]} x {shape[0]}" for shape in (pixels.shape[:2], upright))
        raise UserError(
            f"{mask}: the mask has {found} pixels, {image} {wanted} (width x height, upright): give a mask of the"
            " image's size"
        )
    if pixels.shape[2] == 4 and (pixels[..., 3] < 255).any():
        return pixels[..., 3]
    if np.ptp(pixels[..., :3], axis=-1).max() > 25:
        raise UserError(f"{mask}: the mask has colors; it must be white where the object is, black elsewhere")
    if 0 < (brightest := pixels[..., :3].max()) < 128:
        raise UserError(
            f"{mask}: the brightest value is {brightest} of 255; the mask must be white where the object is"
        )
    return np.round(pixels[..., :3].mean(-1)).astype(np.uint8)


def decode_png(data: bytes, shape: tuple[int, int, int], name: str) -> NDArray[np.uint8]:
    """As :func:`read_image`, of the bytes of a PNG file whose header says ``shape``, (height, width, 3 or 4). name:
    what messages call it.

    Raises UserError for a wrong checksum, too, and for another shape, as a second header or a transparent color make
    it.
    """
    if not chunks_are_whole(io.BytesIO(data)):
        raise UserError(f"{name}: the PNG is damaged (a checksum is wrong)")
    pixels = _decode(io.BytesIO(data), name, ("PNG",), upright=False)
    if pixels.shape != shape:
        raise UserError(
            one_line(
                f"{name}: the PNG decodes to the shape {pixels.shape}, its header says {shape}", "pack the data again"
            )
        )
    return pixels


def chunks_are_whole(file: IO[bytes]) -> bool:
    """Whether every chunk of a PNG file has the checksum that it carries, up to the one that ends it.

    Pillow skips those of the pixels: to it a flipped bit often is another color.
    """
    file.seek(len(PNG_START))
    kind = b""
    while kind != b"IEND":
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        total = zlib.crc32(kind)
        while length and (piece := file.read(min(length, 1 << 20))):
            total, length = zlib.crc32(piece, total), length - len(piece)
        if length or len(kind) < 4 or total != int.from_bytes(file.read(4), "big"):
            return False
    file.seek(0)
    return True


def encode_png(pixels: NDArray[Any]) -> bytes:
    """A PNG file of uint8 pixels (height, width), or with 3 or 4 channels, or of uint16 (height, width)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def image_to_array(image: "Image.Image", name: str, upright: bool = False) -> NDArray[np.uint8]:
    """As :func:`read_image`, of an image that Pillow has opened."""
    check_size(image.width, image.height, name)
    if image.mode.startswith(("I", "F")):
        raise UserError(one_line(f"{name}: has more than 8 bits a channel", "convert it to 8-bit RGB or RGBA"))
    try:
        with _quiet() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()  # by which Pillow turns TIFF files, and forgets their orientation
        turn = UPRIGHT.get(_orientation(image)) if upright else None
        mode = "RGBA" if image.has_transparency_data else "RGB"
        image = image if image.mode == mode else image.convert(mode)
        pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
        for top in range(0, image.height, 256):  # at once, Pillow copies them twice
            pixels[top : top + 256] = np.asarray(image.crop((0, top, image.width, min(top + 256, image.height))))
        return turn(pixels) if turn else pixels
    except Exception as error:  # Pillow's readers raise a dozen types for damaged files, MemoryError among them
        raise _refusal(name, error) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The process's standard error goes nowhere: libtiff writes there of its own accord, what is wrong with a file."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _orientation(image: "Image.Image") -> int:
    """EXIF's number, from 1 to 8; 1 where there is none, or none that can be read, as other programs take it."""
    try:
        number = image.getexif().get(ORIENTATION)
    except Exception:  # as many types as there are ways to damage EXIF
        return 1
    return number if number in UPRIGHT else 1


def check_size(width: int, height: int, name: str, limit: int = MAX_PIXELS) -> None:
    """Raise UserError for an image of more than ``limit`` pixels, or of none."""
    if not 0 < width * height <= limit:
        size = f"{width} x {height} pixels (width x height)"
        raise UserError(
            one_line(f"{name}: the image has {size}, allowed are 1 to {limit // 10**6} million", "give a smaller one")
        )


def _decode_checked(file: IO[bytes], name: str, upright: bool) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on sizes and odd parts: the file is taken, or refused below
        if file.read(len(PNG_START)) == PNG_START and not chunks_are_whole(file):
            raise _refusal(name, "a checksum in it is wrong")
        file.seek(0)
        return _decode(file, name, FORMATS, upright)


def _decode(file: IO[bytes], name: str, formats: tuple[str, ...], upright: bool) -> NDArray[np.uint8]:
    with _open(file, name, formats) as image:
        return image_to_array(image, name, upright)


def _open(file: IO[bytes], name: str, formats: tuple[str, ...]) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=formats)  # reads the header
    except UnidentifiedImageError as error:
        raise UserError(
            one_line(f"{name}: cannot be read as an image: it is damaged, or none of {', '.join(formats)}", ADVICE)
        ) from error
    except Exception as error:
        raise _refusal(name, error) from error


def _refusal(name: str, error: Exception | str) -> UserError:
    reason = "not enough memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
    return UserError(one_line(f"{name}: cannot be read as an image ({reason})", ADVICE))
