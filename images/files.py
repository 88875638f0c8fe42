"""The PNG files: one width, few colours, under a size, and replaced only for a reason."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from atomic_files import write_atomically
from commands import RefusedError

WIDTH = 1600  # pixels
MOST_BYTES = 200_000
COLOURS = (256, 128, 64)  # of the palette; fewer where a picture would be too large
VISIBLE = 48  # of 255: from this difference of a channel on a pixel has changed
SETTLED = 0.01  # share of changed pixels up to which a picture is the same: a clock, an id, a duration


def read_picture(png: bytes) -> Image.Image:
    """Lay a picture on white of the one width, in the middle; one that is wider is made smaller."""
    with Image.open(io.BytesIO(png)) as opened:
        picture = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert("RGB")
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (WIDTH, picture.height), "white")
    page.paste(picture, ((WIDTH - picture.width) // 2, 0))
    return page


def encode_picture(picture: Image.Image, name: str) -> bytes:
    """A picture as the PNG that is kept: as many colours as fit. Raises RefusedError where it stays too large."""
    for colours in COLOURS:
        file = io.BytesIO()
        reduced = picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        reduced.save(file, "PNG", optimize=True)
        if file.tell() < MOST_BYTES:
            return file.getvalue()
    raise RefusedError(
        f"{name}.png has {file.tell():,} bytes with {colours} colours, and may have {MOST_BYTES:,}: photograph less"
    )


def measure_change(before: Image.Image, after: Image.Image) -> float:
    """The share of pixels that look different, 0 to 1; 1 where the sizes differ."""
    if before.size != after.size:
        return 1.0
    old, new = (np.asarray(picture.convert("RGB"), dtype="int16") for picture in (before, after))
    return float((np.abs(new - old).max(axis=2) >= VISIBLE).mean())


def keep_or_replace(path: Path, png: bytes, tolerance: float = SETTLED, always: bool = False) -> str:
    """Write a picture unless the file there looks the same, and say what was done.

    Args:
        path: the file, NAME.png.
        png: the picture as it was taken.
        tolerance: share of changed pixels up to which the file stays.
        always: write it however little has changed.

    Raises:
        RefusedError: it is too large; the file that was there is intact.
    """
    picture = read_picture(png)
    encoded = encode_picture(picture, path.stem)
    change = 1.0
    if path.is_file():
        with Image.open(path) as former, Image.open(io.BytesIO(encoded)) as new:
            change = measure_change(former, new)
        if change <= tolerance and not always:
            return f"kept, {100 * change:.1f} % of the pixels differ"
    told = f"replaced, {100 * change:.1f} % of the pixels differ" if path.is_file() else "new"
    write_atomically(path, encoded)
    return f"{told}, {len(encoded) // 1000} KB"
