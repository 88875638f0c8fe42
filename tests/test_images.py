"""The pictures of the running system: what is kept, and what is replaced."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from commands import BadInputError, RefusedError
from images.api_pictures import take_page
from images.capture import PICTURES, choose_pictures
from images.files import MOST_BYTES, WIDTH, encode_picture, keep_or_replace, measure_change, read_picture
from settings import ROOT
from tests.conftest import needs_browser
from tests.told import naming

FOLDER = ROOT / "images"
FILES = sorted(path.name for path in FOLDER.glob("*.png"))


def as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def draw_page(changed_rows: int = 0, width: int = WIDTH, height: int = 100) -> bytes:
    """A light page with a dark bar, whose last rows may be dark too."""
    pixels = np.full((height, width, 3), 240, dtype="uint8")
    pixels[10:20] = (140, 28, 63)
    pixels[height - changed_rows :] = 20
    return as_png(pixels)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page that was photographed once."""
    assert keep_or_replace(tmp_path / "page.png", draw_page()).startswith("new, ")
    return tmp_path / "page.png"


def test_every_picture_stands_in_the_table_and_is_taken_by_the_command() -> None:
    named = re.findall(r"^\| \[(\w+\.png)\]\((\w+\.png)\)", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert all(text == address for text, address in named)
    assert sorted(text for text, _ in named) == FILES
    assert sorted(f"{picture.name}.png" for picture in PICTURES) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_small_of_the_one_width_and_not_blank(name: str) -> None:
    assert (FOLDER / name).stat().st_size < MOST_BYTES
    with Image.open(FOLDER / name) as picture:
        assert picture.width == WIDTH
        assert picture.height >= 300
        assert np.asarray(picture.convert("L")).std() > 5
        assert np.percentile(np.asarray(picture.convert("L")), 80) > 200  # the light theme; code may be on black


@pytest.mark.parametrize(("width", "height"), [(800, 100), (2 * WIDTH, 50)], ids=["narrower", "wider"])
def test_a_new_picture_is_written_in_the_one_width(width: int, height: int, tmp_path: Path) -> None:
    keep_or_replace(tmp_path / "new.png", draw_page(width=width))
    with Image.open(tmp_path / "new.png") as picture:
        assert picture.size == (WIDTH, height)
        colours = picture.convert("RGB")
    if width < WIDTH:  # it lies in the middle, on white
        assert [colours.getpixel((x, 15)) for x in (0, WIDTH // 2)] == [(255, 255, 255), (140, 28, 63)]


@pytest.mark.parametrize(
    ("changed_rows", "tolerance", "always", "change"),
    [
        (0, 0.0, False, "kept, 0.0 %"),
        (0, 0.0, True, "replaced, 0.0 %"),
        (1, 0.01, False, "kept, 1.0 %"),
        (2, 0.01, False, "replaced, 2.0 %"),
        (2, 0.15, False, "kept, 2.0 %"),
    ],
)
def test_a_picture_is_replaced_only_where_enough_of_it_looks_different(
    changed_rows: int, tolerance: float, always: bool, change: str, page: Path
) -> None:
    page.write_bytes(before := page.read_bytes() + b"not of a picture")
    assert keep_or_replace(page, draw_page(changed_rows), tolerance, always=always).startswith(change)
    assert (page.read_bytes() == before) == change.startswith("kept")


def test_another_size_is_another_picture_and_shades_that_nobody_sees_are_none() -> None:
    assert measure_change(read_picture(draw_page()), read_picture(draw_page(height=101))) == 1.0
    before, after = (Image.new("RGB", (10, 10), colour) for colour in ((240, 240, 240), (250, 240, 230)))
    assert measure_change(before, after) == 0.0


@pytest.mark.full
def test_a_picture_that_stays_too_large_is_refused_and_the_former_stays(page: Path) -> None:
    before = page.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, size=(1000, WIDTH, 3), dtype="uint8")
    with pytest.raises(RefusedError, match=naming("page.png", f"{MOST_BYTES:,}")):
        keep_or_replace(page, as_png(noise))
    assert [(path.name, path.read_bytes()) for path in page.parent.iterdir()] == [("page.png", before)]


def test_the_same_picture_gives_the_same_bytes() -> None:
    page = read_picture(draw_page())
    assert encode_picture(page, "page") == encode_picture(page, "page")


def test_a_name_that_is_no_picture_is_refused_with_those_that_are() -> None:
    with pytest.raises(BadInputError, match=naming("nothing", *(picture.name for picture in PICTURES))):
        choose_pictures(["api_page", "nothing"])
    assert [picture.name for picture in choose_pictures(["api_docs", "api_page"])] == ["api_page", "api_docs"]
    assert len(choose_pictures([])) == len(PICTURES)


@pytest.mark.full
@needs_browser
def test_a_page_is_photographed_light_and_twice_the_same(browser: Browser, small_api: str, tmp_path: Path) -> None:
    path = tmp_path / "api_page.png"
    assert keep_or_replace(path, take_page(small_api, browser)).startswith("new, ")
    assert keep_or_replace(path, take_page(small_api, browser)).startswith("kept, 0.")  # another request id
    with Image.open(path) as picture:
        assert picture.width == WIDTH
        assert np.median(np.asarray(picture.convert("L"))) > 200
