"""Pages in a real browser, with what they ask for and complain of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page

SERIOUS = ("error", "warning")


@dataclass
class Visit:
    """An open page, the addresses that it asked for, and the errors and warnings on its console."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def asked_of_servers(self) -> list[str]:
        return [url for url in self.asked if not url.startswith(("data:", "blob:"))]


@contextmanager
def visit_page(browser: Browser, address: str, width: int = 1280) -> Iterator[Visit]:
    """Open a page for as long as the block lasts."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    visit = Visit(page)
    page.on("request", lambda request: visit.asked.append(request.url))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("console", lambda message: visit.complaints.extend([message.text] * (message.type in SERIOUS)))
    page.goto(address)
    yield visit
    page.close()
