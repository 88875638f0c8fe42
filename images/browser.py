"""The browser that takes the pictures: Debian's chromium, driven by Playwright, looking the same each time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from commands import NotThereError
from images.files import WIDTH

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator, Page

VIEW = 1280  # CSS pixels across; a page with wide tables may have more, and is then drawn smaller
PATIENCE = 60_000  # milliseconds that a page of a busy server may take
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
]
STILL = """
*, *::before, *::after { animation: none !important; transition: none !important; caret-color: transparent !important }
"""
# Times relative to now differ each time and say nothing.
FREEZE = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.nodeValue;
    const still = text
      .replace(/\b(\d+|an?|a few) (second|minute|hour)s? ago\b/g, '5 minutes ago')
      .replace(/\b(\d+[hms] )*\d+[hms] ago\b/g, '5m ago')
      .replace(/^in \d+[ms]$/g, '5m ago')
      .replace(/\bin (about )?(\d+|an?|a few) (second|minute|hour)s?\b/g, 'in 1 hour');
    if (still !== text) walker.currentNode.nodeValue = still;
  }
}"""


def find_chromium() -> str | None:
    """Where chromium is, or Chrome, its twin; None where neither is."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def open_browser() -> "Iterator[Browser]":
    """Start chromium for as long as the block lasts. Raises NotThereError where there is none."""
    path = find_chromium()
    if path is None:
        raise NotThereError("there is no chromium here to take pictures with: make system-packages installs it")

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: "Browser", height: int = 800, width: int = VIEW) -> "Iterator[Page]":
    """A page in a fresh profile: light, still, in English and UTC, of the one width."""
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


def settle(page: "Page") -> None:
    """Wait until nothing is loaded or moves any more, and take out what differs each time."""
    from playwright.sync_api import Error

    with suppress(Error):  # some pages ask for news for ever
        page.wait_for_load_state("networkidle", timeout=8_000)
    page.evaluate("document.fonts.ready")
    page.add_style_tag(content=STILL)
    page.wait_for_timeout(700)
    page.evaluate(FREEZE)


def photograph(place: "Page | Locator") -> bytes:
    """A picture, as PNG, of what the window shows, or of one element."""
    from playwright.sync_api import Page

    settle(place if isinstance(place, Page) else place.page)
    return place.screenshot(animations="disabled")


def photograph_part(page: "Page", last: "Locator", first: "Locator | None" = None, margin: int = 16) -> bytes:
    """A picture, as PNG, of a page that is longer than the window: from one element, or the top, to another."""
    settle(page)
    begin, end = first.bounding_box() if first else None, last.bounding_box()
    assert end is not None
    scrolled = float(page.evaluate("window.scrollY"))
    top = max(begin["y"] + scrolled - margin, 0) if begin else 0
    bottom = end["y"] + scrolled + end["height"] + margin
    clip: FloatRect = {"x": 0, "y": top, "width": page.evaluate("window.innerWidth"), "height": bottom - top}
    return page.screenshot(animations="disabled", full_page=True, clip=clip)
