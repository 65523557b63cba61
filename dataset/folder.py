"""Custom data: images and masks of class indices, located by glob patterns."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from unicodedata import normalize

import numpy as np

from dataset.labels import IGNORE_INDEX, ClassTable, class_table, lookup_table
from dataset.pairs import Pairs, Sample, match


def find_folder(root: str | Path, *, images: str, masks: str | None) -> Pairs:
    """Pair the files that match two glob patterns, sorted by name.

    An image and a mask form a pair if the wildcards of both patterns match the same text: `frames/*.jpg` and
    `labels/*_mask.png` pair `frames/7.jpg` with `labels/7_mask.png`. `**` matches any number of folders.
    Hidden files, and those in hidden folders that the pattern does not name, are left out.

    Args:
        root: folder that the patterns are relative to.
        images, masks: glob patterns; without `masks` the samples are unlabelled.

    Raises:
        ValueError: no image matches, or an invalid pattern.
        FileNotFoundError: no folder at `root`.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; set dataset.root to the folder of the data")
    found = _glob(root, images)
    if not found:
        raise ValueError(f"no file in {root} matches the image pattern {images!r}")
    if masks is None:
        return Pairs([Sample(path, None) for path in found.values()])
    return match(found, _glob(root, masks), expected=f"mask matching {masks!r} in {root}")


def _glob(root: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """Find the files that match a glob pattern, keyed by the text that its wildcards match."""
    pattern = PurePath(pattern).as_posix()  # without ./ and //
    try:
        expression = _regex(normalize("NFC", pattern))
        # file names have accents with their letters or, as those from macOS, apart from them
        spellings = {pattern, normalize("NFC", pattern), normalize("NFD", pattern)}
        found = sorted({path for spelling in spellings for path in root.glob(spelling) if not path.is_dir()})
    except (NotImplementedError, ValueError, IndexError, re.error) as error:
        raise ValueError(f"{pattern!r} is not a glob pattern relative to dataset.root: {error}") from None
    names = {path: path.relative_to(root).as_posix() for path in found}
    visible = (path for path in found if not _hidden(names[path], pattern))
    matches = {path: expression.fullmatch(normalize("NFC", names[path])) for path in visible}
    return {match.groups(""): path for path, match in matches.items() if match}


def _hidden(name: str, pattern: str) -> bool:
    """Return whether a file is hidden, like macOS's `._7.jpg`, or in a hidden folder, while the pattern names none."""
    *folders, file = name.split("/")
    named = any(part.startswith(".") for part in pattern.split("/"))
    return file.startswith(".") or (not named and any(folder.startswith(".") for folder in folders))


def _regex(pattern: str) -> re.Pattern:
    """Translate a glob pattern into a regular expression with a group for each wildcard."""
    wildcards = {"**/": r"(?:(.*)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+])", pattern)
    flags = re.IGNORECASE if os.name == "nt" else 0  # as glob does on Windows
    return re.compile("".join(wildcards.get(part) or _literal(part) for part in parts), flags)


def _literal(part: str) -> str:
    """Translate literal text, or a character set such as [a-c] or [!0]."""
    if not part.startswith("["):
        return re.escape(part)
    negation = "^" if part[1] == "!" else ""
    characters = part[1:-1].removeprefix("!").replace("\\", r"\\").replace("^", r"\^").replace("[", r"\[")
    return f"([{negation}{characters}])"


def folder_classes(
    names: Sequence[str], colors: Sequence[Sequence[int]], *, ignore_index: int
) -> tuple[ClassTable, np.ndarray]:
    """Build the class table, and the lookup table (256,) from mask values to class indices.

    Args:
        names, colors: in the order of the mask values 0, 1, …; without colours, distinct ones are chosen.
        ignore_index: mask value of unlabelled pixels.
    """
    if not names:
        raise ValueError("dataset.classes is empty: list the class names in the order of the mask values")
    if colors and len(colors) != len(names):
        raise ValueError(
            f"dataset.colors has {len(colors)} colours for {len(names)} dataset.classes; omit it for automatic ones"
        )
    classes = class_table(names, colors)
    if ignore_index < len(classes):
        raise ValueError(
            f"dataset.ignore_index is {ignore_index}, the index of class {classes.names[ignore_index]!r}; "
            "use another value for unlabelled pixels"
        )
    return classes, lookup_table({**{index: index for index in range(len(classes))}, ignore_index: IGNORE_INDEX})
