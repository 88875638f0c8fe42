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


def test_a_new_picture_is_written_under_the_one_width(tmp_path: Path) -> None:
    told = keep_or_replace(tmp_path / "new.png", draw_page(width=800))
    assert told.startswith("new, ")
    with Image.open(tmp_path / "new.png") as picture:
        assert picture.size == (WIDTH, 100)
        assert picture.convert("RGB").getpixel((0, 15)) == (255, 255, 255)  # it lies in the middle, on white
        assert picture.convert("RGB").getpixel((WIDTH // 2, 15)) == (140, 28, 63)


def test_a_wider_picture_is_made_smaller() -> None:
    assert read_picture(draw_page(width=2 * WIDTH)).size == (WIDTH, 50)


@pytest.mark.parametrize(
    ("changed_rows", "tolerance", "told"),
    [(0, 0.0, "kept, 0.0 %"), (1, 0.01, "kept, 1.0 %"), (2, 0.01, "replaced, 2.0 %"), (2, 0.15, "kept, 2.0 %")],
)
def test_a_picture_is_replaced_only_where_enough_of_it_looks_different(
    tmp_path: Path, changed_rows: int, tolerance: float, told: str
) -> None:
    path = tmp_path / "page.png"
    keep_or_replace(path, draw_page())
    before = path.read_bytes()
    assert keep_or_replace(path, draw_page(changed_rows), tolerance).startswith(told)
    assert (path.read_bytes() == before) == told.startswith("kept")


def test_always_means_always(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    keep_or_replace(path, draw_page())
    assert keep_or_replace(path, draw_page(), always=True).startswith("replaced, 0.0 %")


def test_another_size_is_another_picture() -> None:
    before, after = read_picture(draw_page()), read_picture(draw_page(height=101))
    assert measure_change(before, after) == 1.0


def test_shades_that_nobody_sees_are_no_change() -> None:
    before, after = Image.new("RGB", (10, 10), (240, 240, 240)), Image.new("RGB", (10, 10), (250, 240, 230))
    assert measure_change(before, after) == 0.0


@pytest.mark.full
def test_a_picture_that_stays_too_large_is_refused_and_the_former_stays(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    keep_or_replace(path, draw_page())
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, size=(1000, WIDTH, 3), dtype="uint8")
    with pytest.raises(RefusedError, match=naming("noise.png", f"{MOST_BYTES:,}")):
        keep_or_replace(path, as_png(noise))
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["noise.png"]


def test_the_same_picture_gives_the_same_bytes() -> None:
    page = read_picture(draw_page())
    assert encode_picture(page, "page") == encode_picture(page, "page")


def test_a_name_that_is_no_picture_is_told_with_those_that_are() -> None:
    with pytest.raises(BadInputError, match=naming("nothing", *(picture.name for picture in PICTURES))):
        choose_pictures(["api_page", "nothing"])
    assert [picture.name for picture in choose_pictures(["api_docs", "api_page"])] == ["api_page", "api_docs"]
    assert len(choose_pictures([])) == len(PICTURES)


@pytest.mark.full
@needs_browser
def test_the_page_of_an_api_is_photographed_light_and_the_same_twice(
    browser: Browser, small_api: str, tmp_path: Path
) -> None:
    path = tmp_path / "api_page.png"
    assert keep_or_replace(path, take_page(small_api, browser)).startswith("new, ")
    assert keep_or_replace(path, take_page(small_api, browser)).startswith("kept, 0.")  # another request id
    with Image.open(path) as picture:
        assert picture.width == WIDTH
        assert np.median(np.asarray(picture.convert("L"))) > 200
