"""The pictures of the running system: which there are, and what is kept of each."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from commands import BadInputError, RefusedError
from images.browser import MOST_BYTES, WIDTH, encode_picture, open_page
from images.capture import choose_pictures
from images.pages import PICTURES, take_form
from settings import ROOT
from tests.conftest import needs_browser
from tests.messages import naming

FOLDER = ROOT / "images"
FILES = sorted(path.name for path in FOLDER.glob("*.png"))


def as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def draw_page(width: int = WIDTH, height: int = 100) -> bytes:
    """A light page with a dark bar."""
    pixels = np.full((height, width, 3), 240, dtype="uint8")
    pixels[10:20] = (140, 28, 63)
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


def test_a_narrow_picture_lies_in_the_middle_of_white() -> None:
    with Image.open(io.BytesIO(encode_picture(draw_page(width=800)))) as picture:
        assert picture.size == (WIDTH, 100)
        assert picture.convert("RGB").getpixel((0, 15)) == (255, 255, 255)
        assert picture.convert("RGB").getpixel((WIDTH // 2, 15)) == (140, 28, 63)


def test_a_wider_picture_is_made_smaller() -> None:
    with Image.open(io.BytesIO(encode_picture(draw_page(width=2 * WIDTH)))) as picture:
        assert picture.size == (WIDTH, 50)


@pytest.mark.full
def test_a_picture_that_stays_too_large_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(1000, WIDTH, 3), dtype="uint8")
    with pytest.raises(RefusedError, match=naming(f"{MOST_BYTES:,}")):
        encode_picture(as_png(noise))


def test_a_name_that_is_no_picture_is_told_with_those_that_are() -> None:
    with pytest.raises(BadInputError, match=naming("nothing", *(picture.name for picture in PICTURES))):
        choose_pictures(["api_page", "nothing"])
    assert [picture.name for picture in choose_pictures(["api_docs", "api_page"])] == ["api_page", "api_docs"]
    assert len(choose_pictures([])) == len(PICTURES)


@pytest.mark.full
@needs_browser
def test_the_page_of_an_api_is_photographed_light_in_the_one_width(browser: Browser, small_api: str) -> None:
    with open_page(browser, 1280, 800) as page, Image.open(io.BytesIO(take_form(small_api, page))) as picture:
        assert picture.width == WIDTH
        assert np.median(np.asarray(picture.convert("L"))) > 200
