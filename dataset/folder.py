"""Any images with index masks: someone's own data, described by two glob patterns per split."""

import re
from pathlib import Path, PurePosixPath

from dataset.pairs import Pairs, Sample


def find_folder(root: str | Path, *, images: str, masks: str | None) -> Pairs:
    """Pair the files that match `images` with the masks of the same name, sorted by name.

    An image and a mask belong together when the wildcards of the two patterns stand for the same text:
    `frames/*.jpg` and `labels/*_mask.png` pair `frames/7.jpg` with `labels/7_mask.png`; `**` stands for any folders.

    Args:
        root: folder that the patterns are relative to.
        images, masks: glob patterns; without masks the samples have none.

    Raises:
        ValueError: no image matches.
        FileNotFoundError: no folder at `root`.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; set dataset.root to the folder that holds the data")
    found = _match(root, images)
    if not found:
        raise ValueError(f"no file in {root} matches the images' pattern {images!r}")
    if masks is None:
        return Pairs([Sample(path, None) for path in found.values()])
    mask_of = _match(root, masks)
    return Pairs(
        samples=[Sample(path, mask_of[name]) for name, path in found.items() if name in mask_of],
        images=[path for name, path in found.items() if name not in mask_of],
        masks=[path for name, path in mask_of.items() if name not in found],
        fault=f"in {root} have no mask that matches {masks!r}",
    )


def _match(root: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """Find the files of a glob pattern, keyed by what its wildcards stand for."""
    pattern = PurePosixPath(pattern).as_posix()  # without ./ and //
    try:
        expression = _expression(pattern)
        files = {path.relative_to(root).as_posix(): path for path in sorted(root.glob(pattern)) if path.is_file()}
    except (NotImplementedError, ValueError, re.error) as error:
        raise ValueError(f"{pattern!r} is no glob pattern relative to dataset.root: {error}") from None
    matches = {name: match for name in files if (match := expression.fullmatch(name))}
    return {match.groups(default=""): files[name] for name, match in matches.items()}


def _expression(pattern: str) -> re.Pattern:
    """Turn a glob pattern into a regular expression with a group for each wildcard."""
    wildcards = {"**/": r"(?:(.*)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+])", pattern)
    return re.compile("".join(wildcards.get(part) or _literal(part) for part in parts))


def _literal(part: str) -> str:
    """Translate a plain piece of a pattern, or a set of characters such as [a-c] or [!0]."""
    if not part.startswith("["):
        return re.escape(part)
    negation = "^" if part[1] == "!" else ""
    characters = part[1:-1].removeprefix("!").replace("\\", r"\\").replace("^", r"\^").replace("[", r"\[")
    return f"([{negation}{characters}])"
