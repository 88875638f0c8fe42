"""Figures as SVG inside a page."""

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure


def render_svg(name: str, title: str, figure: Figure) -> str:
    """A figure as SVG for a page whose policy allows no style but the page's own.

    Text stays text and takes the page's font. Ids are the same each time and differ between the pictures.
    """
    file = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue().decode()
    root = ElementTree.fromstring(text)
    _drop_elements(root, {"metadata", "style"})
    referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    for element in root.iter():
        element.tag = _drop_namespace(element.tag)
        _tidy_attributes(element, referred)
    root.attrib |= {"role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode").strip()


def _drop_elements(root: ElementTree.Element, names: set[str]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if _drop_namespace(child.tag) in names]:
            parent.remove(child)


def _tidy_attributes(element: ElementTree.Element, referred: set[str]) -> None:
    """Turn a style into attributes of their own, and leave out what the page decides or nothing refers to."""
    given = {_drop_namespace(name): value for name, value in element.attrib.items()}
    declared = (each.partition(":") for each in given.pop("style", "").split(";") if each.strip())
    given |= {name.strip(): value.strip() for name, _, value in declared}
    unwanted = {"font-family", "version"} | ({"width", "height"} if element.tag == "svg" else set())
    if given.get("id") not in referred:
        unwanted.add("id")
    if "d" in given:  # a thousandth of a point is nothing to see, and half of the page
        given["d"] = re.sub(r"(\.\d\d)\d+", r"\1", " ".join(given["d"].split()))
    element.attrib.clear()
    element.attrib.update({name: value for name, value in given.items() if name not in unwanted})


def _drop_namespace(name: str) -> str:
    return name.rpartition("}")[2]
