"""Take screenshots with Debian's Chromium, driven by Playwright, and encode them as PNG."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from commands import NotThereError, RefusedError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator, Page

WIDTH = 1600  # pixels of every picture
MOST_BYTES = 200_000
COLOURS = (256, 128, 64)  # in the palette; fewer if a picture is too large
PATIENCE = 60_000  # timeout in milliseconds for a page of a busy server
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--hide-scrollbars", "--font-render-hinting=none"]


def find_chromium() -> str | None:
    """The path of Chromium or Chrome; None if neither is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def open_browser() -> "Iterator[Browser]":
    """Run Chromium while the block runs. Raises NotThereError if it is not installed."""
    path = find_chromium()
    if path is None:
        raise NotThereError("chromium, which takes the pictures, is not installed: make system-packages")

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: "Browser", width: int, height: int) -> "Iterator[Page]":
    """Open a page in a new profile: light, without animations, in English and UTC. The size is in CSS pixels."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=WIDTH / width,
        color_scheme="light",
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
        bypass_csp=True,
    )
    context.set_default_timeout(PATIENCE)
    try:
        yield context.new_page()
    finally:
        context.close()


def photograph(page: "Page", first: "Locator | None" = None, last: "Locator | None" = None) -> bytes:
    """A PNG of the window; with `last`, of the page from `first`, or its top, to the end of `last`."""
    from playwright.sync_api import Error

    with suppress(Error):  # some pages poll the server forever
        page.wait_for_load_state("networkidle", timeout=8_000)
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(700)
    if last is None:
        return page.screenshot(animations="disabled")
    begin, end = first.bounding_box() if first else None, last.bounding_box()
    assert end is not None
    scrolled = float(page.evaluate("window.scrollY"))
    top = begin["y"] + scrolled if begin else 0
    bottom = end["y"] + scrolled + end["height"]
    clip: FloatRect = {"x": 0, "y": top, "width": page.evaluate("window.innerWidth"), "height": bottom - top}
    return page.screenshot(animations="disabled", full_page=True, clip=clip)


def encode_picture(png: bytes) -> bytes:
    """Encode a picture WIDTH wide, on white, in as many colours as fit. Raises RefusedError if it stays too large."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGBA")
    picture.thumbnail((WIDTH, 10 * WIDTH))  # a figure may be wider than WIDTH
    page = Image.new("RGBA", (WIDTH, picture.height), "white")
    page.alpha_composite(picture, ((WIDTH - picture.width) // 2, 0))
    for colours in COLOURS:
        file = io.BytesIO()
        reduced = page.convert("RGB").quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        reduced.save(file, "PNG", optimize=True)
        if file.tell() < MOST_BYTES:
            return file.getvalue()
    raise RefusedError(
        f"{file.tell():,} bytes with {colours} colours; a picture may have {MOST_BYTES:,}: take a smaller part"
    )
