"""What a picture is: a name, and how it is taken of what stands on the stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images.files import SETTLED

if TYPE_CHECKING:  # the names are wanted by the command's help, long before a browser and servers are
    from playwright.sync_api import Browser

    from images.stage import Stage

MEASURED = 0.15  # share of pixels that may differ where times are drawn, which are others each time


@dataclass(frozen=True)
class Picture:
    """A picture: images/NAME.png. `take` returns it as PNG; up to `tolerance` changed pixels it stays as it is."""

    name: str
    take: "Callable[[Stage, Browser], bytes]"
    tolerance: float = SETTLED
