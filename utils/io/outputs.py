"""What inference writes, and under which names."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from dataset.labels import cityscapes_classes, cityscapes_label_ids
from utils.io.drawing import PICTURES, Painter, save_image, save_labels
from utils.io.files import Part, growing, replacing, write_json
from utils.io.video import VideoWriter, writing_video

KINDS = ("pred", "color", "overlay", "labelids", "side")


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files that belong to an input.

    Attributes:
        folder: where they lie.
        painter: makes the pictures.
        kinds: of `KINDS`.
        shares: also write the classes' shares as JSON.
        frames: write a video as single pictures.
        overwrite: replace files that are there; else they are kept.

    Raises:
        ValueError: an unknown kind, or labelids of classes that are not those of Cityscapes.
    """

    folder: Path
    painter: Painter
    kinds: Sequence[str] = ("pred", "overlay")
    shares: bool = False
    frames: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        wrong = [kind for kind in self.kinds if kind not in KINDS]
        if wrong:
            raise ValueError(f"--save: there is no {', '.join(wrong)}; there are: {', '.join(KINDS)}, or none alone")
        if "labelids" in self.kinds and self.painter.classes.names != cityscapes_classes().names:
            names = ", ".join(self.painter.classes.names[:3])
            raise ValueError(
                f"--save labelids: only Cityscapes has labelIds, and this network's classes are {names}, …"
            )

    def of_image(self, name: str) -> dict[str, Path]:
        """Name the files of an image by what they hold."""
        files = {kind: self.folder / f"{name}_{kind}.png" for kind in self.kinds}
        return files | ({"shares": self.folder / f"{name}_shares.json"} if self.shares else {})

    def of_frame(self, name: str, number: int) -> dict[str, Path]:
        """Name the files of a video's frame, each frame being a picture of its own."""
        return self.of_image(f"{name}_frames/{number:06}")

    def of_video(self, name: str) -> dict[str, Path]:
        """Name the files of a video; index pictures are not among them, since compression would change the indices.

        Raises:
            ValueError: nothing is left.
        """
        files = {kind: self.folder / f"{name}_{kind}.mp4" for kind in self.kinds if kind in PICTURES}
        if self.kinds and not files:
            raise ValueError(
                f"--save {','.join(self.kinds)}: of a video these need --frames; else {', '.join(PICTURES)}"
            )
        return files | ({"shares": self.folder / f"{name}_shares.jsonl"} if self.shares else {})

    def done(self, files: dict[str, Path]) -> bool:
        """Tell whether an input needs no work, since all its files are there."""
        return bool(files) and not self.overwrite and all(path.exists() for path in files.values())

    def write_image(self, files: dict[str, Path], image: np.ndarray, labels: np.ndarray, facts: dict[str, Any]) -> None:
        """Write the files of an image (H, W, 3) with its label map (H, W); `facts` stand before the shares.

        Raises:
            OSError: one cannot be written, as on a full disk.
        """
        for kind, path in files.items():
            if path.exists() and not self.overwrite:
                continue
            try:
                self._write(kind, path, image, labels, facts)
            except OSError as error:
                raise OSError(f"cannot write {path}: {error.strerror or error}") from None

    def _write(self, kind: str, path: Path, image: np.ndarray, labels: np.ndarray, facts: dict[str, Any]) -> None:
        if kind == "shares":
            write_json(path, facts | {"shares": self.painter.shares(labels)})
        elif kind == "pred":
            save_labels(path, labels, self.painter.classes)
        elif kind == "labelids":
            with replacing(path) as temporary:
                Image.fromarray(cityscapes_label_ids()[labels]).save(temporary)
        else:
            save_image(path, self.painter.paint(kind, image, labels))

    @contextmanager
    def writing_video(self, files: dict[str, Path], fps: float) -> Iterator["VideoFiles"]:
        """Write the files of a video frame by frame."""
        with ExitStack() as stack:
            wanted = {kind: path for kind, path in files.items() if self.overwrite or not path.exists()}
            lines = stack.enter_context(_growing_text(wanted.pop("shares"))) if "shares" in wanted else None
            writers = {kind: stack.enter_context(writing_video(path, fps)) for kind, path in wanted.items()}
            yield VideoFiles(self.painter, writers, lines)


class VideoFiles:
    """The files of a video while they are written."""

    def __init__(self, painter: Painter, writers: dict[str, VideoWriter], lines: tuple[TextIO, Part] | None) -> None:
        self.painter = painter
        self.writers = writers
        self.lines = lines

    def write(self, image: np.ndarray, labels: np.ndarray, facts: dict[str, Any]) -> None:
        """Add a frame (H, W, 3) with its label map (H, W)."""
        for kind, writer in self.writers.items():
            writer.write(self.painter.paint(kind, image, labels))
        if self.lines:
            self.lines[0].write(json.dumps(facts | {"shares": self.painter.shares(labels)}) + "\n")

    def cut(self) -> list[Path]:
        """Say that more frames were meant to come; return where what there is will lie."""
        parts = [writer.part for writer in self.writers.values()] + ([self.lines[1]] if self.lines else [])
        for part in parts:
            part.cut = True
        return [part.path for part in parts]

    @property
    def codec(self) -> str:
        """What the frames are compressed with; nothing where none are."""
        return next((writer.codec for writer in self.writers.values()), "")


@contextmanager
def _growing_text(path: Path) -> Iterator[tuple[TextIO, Part]]:
    with growing(path) as part, part.path.open("w", encoding="utf-8") as file:
        yield file, part


def check_apart(inputs: Collection[Path], files: dict[str, Path]) -> None:
    """Make sure that no result takes an input's place.

    Raises:
        ValueError: one would.
    """
    for path in files.values():
        if path.absolute() in inputs:
            raise ValueError(f"the result {path} is itself an input; choose another --output")
