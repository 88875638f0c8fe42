"""Find the columns of a wine in a file: by the letters of their names, and the colour by its words."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from commands import BadInputError
from wine_data.schema import CATEGORY, FLAGS, KINDS, MEASUREMENTS, ROW, ROWS, TARGET, TYPE, TYPES

BLANKS = ("", "NA", "N/A", "n/a", "#N/A", "na", "NaN", "nan", "NAN", "NULL", "null", "None", "?")
_INDEX_NAMES = ("", "index", "id")  # not reported as unused
_FLAGS = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0}
_NAME_LETTERS = 200  # longer names are not a wine's; the time to remove units grows with the square of the length
ONE_COLOUR = (  # ends a message
    f". If all its {ROWS} have one {CATEGORY}, say which: WINE_TYPE={KINDS[0]}, or --type {KINDS[0]}"
)
NO_COLOUR = f"is neither {' nor '.join(TYPES)}"
_WAY_ON = f"name it is_{KINDS[0]} if 1 is {KINDS[0]}, or write {' and '.join(TYPES)}"


def _letters(name: str) -> str:
    """The letters and digits of a name, without units in brackets: "Fixed.Acidity (g/dm3)" is fixedacidity."""
    text = re.sub(r"\(.*?\)|\[.*?\]|\{.*?\}", "", name).lower().replace("sulph", "sulf").replace("colour", "color")
    return re.sub(r"[^a-z0-9]", "", text)


_KNOWN = {_letters(name): name for name in (*MEASUREMENTS, TARGET)}
_WORDS: dict[str, float] = {}  # of the category: red, redwine and r are 1
if TYPES:
    _KNOWN |= {_letters(name): TYPE for name in (TYPE, CATEGORY, ROW + TYPE, ROW + CATEGORY)}
    _KNOWN |= {_letters(name): FLAGS[0] for name in (FLAGS[0], f"is {TYPES[0]}")}
    _WORDS = {word.lower(): 1.0 - at for at, kind in enumerate(TYPES) for word in (kind, kind + ROW)}
    if TYPES[0][0] != TYPES[1][0]:
        _WORDS |= {TYPES[0][0].lower(): 1.0, TYPES[1][0].lower(): 0.0}


@dataclass(frozen=True)
class Columns:
    """The position of each column of a wine in a file.

    `name` is the file's name for the colour's column; `has_flags` says that it may contain 1 and 0. `wine_type` is the
    colour of all wines in a file without such a column.
    """

    fields: dict[str, int]
    colour: int | None
    name: str
    has_flags: bool
    wine_type: str
    unused: tuple[str, ...]

    def describe(self) -> list[str]:
        """Describe, for people, what is unusual about the columns."""
        unusual = {
            f"{CATEGORY} from {self.name}": self.colour is not None and self.name not in (TYPE, *FLAGS),
            f"all {ROWS} {self.wine_type}": self.colour is None and bool(TYPES),
            f"not used: {', '.join(self.unused)}": bool(self.unused),
        }
        return [text for text, applies in unusual.items() if applies]

    def read_colour(self, cell: object) -> float | None:
        """1.0 for red, 0.0 for white, None for neither; 0 and 1 count only if the column's name explains them."""
        text = str(cell).strip().lower()
        word = _WORDS.get(re.sub(r"[^a-z]", "", text)) if not re.search(r"\d", text) else None
        return _FLAGS.get(text) if word is None and self.has_flags else word

    def require_colours(self, cells: Iterable[object], name: object) -> None:
        """Refuse a file if none of its first colours can be read: this is one error, not one per row."""
        given = [cell for cell in cells if cell is not None and str(cell).strip() not in BLANKS]
        if not given or any(self.read_colour(cell) is not None for cell in given):
            return
        where = f"{name}, column {self.name}"
        if all(str(cell).strip().lower() in (*_FLAGS, "2", "2.0") for cell in given):
            raise BadInputError(f"{where}: nothing says whether {given[0]} is {' or '.join(TYPES)}: {_WAY_ON}")
        if len(given) > 1:
            raise BadInputError(f"{where}: {given[0]} {NO_COLOUR}, and so in every row")


def find_known(name: str) -> str:
    """The schema's name for a column; "" for an unknown column."""
    return _KNOWN.get(_letters(name), "") if len(name) <= _NAME_LETTERS else ""


def is_known(name: str) -> bool:
    """Whether a name is that of a wine's column."""
    return bool(find_known(name))


def find_type_of_file(name: object) -> str:
    """The colour in the name of a UCI original, such as winequality-red.csv; "" for any other name."""
    match = re.match(rf"winequality[-_ ]?({'|'.join(TYPES)})\b", str(name).rsplit("/", 1)[-1].lower())
    return match[1] if match else ""


def match_columns(names: Sequence[str], name: object, wine_type: str = "", graded: bool = False) -> Columns:
    """Find the columns of a wine among the names of a header.

    Args:
        names: the header's names.
        name: the file's name in errors; the name of a UCI original gives the colour of its wines.
        wine_type: red or white, the colour of every wine in a file without such a column.
        graded: whether the grade is also required.

    Raises:
        BadInputError: a column is missing, or is there more than once.
    """
    places: dict[str, list[int]] = {}
    for at, text in enumerate(names):
        places.setdefault(find_known(text), []).append(at)
    unknown = places.pop("", [])
    needed = (*MEASUREMENTS, *((TARGET,) if graded else ()))
    repeated = [known for known, found in places.items() if len(found) > 1]
    if repeated:
        raise BadInputError(f"{name} has the column {', '.join(repeated)} more than once: keep one of them")
    colour = next((known for known in (TYPE, *FLAGS) if known in places), "")
    wine_type = ("" if colour else wine_type or find_type_of_file(name)) if TYPES else KINDS[0]
    _require_columns([known for known in needed if known not in places], bool(colour or wine_type), names, name)
    unused = [names[at] for at in unknown if not _is_index(names[at])]
    unused += [names[places[flag][0]] for flag in FLAGS if colour == TYPE and flag in places]
    return Columns(
        fields={known: places[known][0] for known in (*MEASUREMENTS, TARGET) if known in places},
        colour=places[colour][0] if colour else None,
        name=names[places[colour][0]].strip() if colour else "",
        has_flags=colour in FLAGS,
        wine_type=wine_type,
        unused=tuple(unused),
    )


def _require_columns(missing: Sequence[str], has_colour: bool, names: Sequence[str], name: object) -> None:
    found = f"found {', '.join(text.strip() for text in names if text.strip())}"
    if missing:
        also = "" if has_colour else f", {TYPE}"
        raise BadInputError(f"{name} lacks the column {', '.join(missing)}{also}; {found}")
    if not has_colour:
        raise BadInputError(
            f"{name} has no column for the {CATEGORY} ({TYPE}: {' or '.join(TYPES)}; or {FLAGS[0]}: 1 or 0); "
            f"{found}{ONE_COLOUR}"
        )


def _is_index(name: str) -> bool:
    text = name.strip().lower()
    return text in _INDEX_NAMES or text.startswith("unnamed:")
