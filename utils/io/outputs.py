"""The files that inference writes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from dataset.labels import cityscapes_classes, cityscapes_label_ids
from utils.io.drawing import RENDERINGS, Painter
from utils.io.files import growing, save_image, save_labels, write_json
from utils.io.sources import Source
from utils.io.video import VideoWriter, writing_video

Target = Path | VideoWriter | TextIO  # a new file, or an open one that grows frame by frame
KINDS = ("pred", "color", "overlay", "labelids", "side")


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What to write for each source, and where.

    Attributes:
        kinds: which of `KINDS` to write; empty: none.
        with_shares: also write the share of each class, as JSON.
        frames: write every frame of a video as an image.
        overwrite: replace existing files, which are kept otherwise.
    """

    folder: Path
    painter: Painter
    kinds: Sequence[str] = ("pred", "overlay")
    with_shares: bool = False
    frames: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"--save: unknown {', '.join(unknown)}; use some of {', '.join(KINDS)}, or none")
        names = self.painter.classes.names
        if "labelids" in self.kinds and names != cityscapes_classes().names:
            raise ValueError(f"--save labelids needs the Cityscapes classes, but the network has {', '.join(names)}")

    def pending(self, sources: Sequence[Source]) -> list[Source]:
        """Return the sources that are not complete; a video to be written as frames always counts as incomplete.

        Raises:
            ValueError: an output would overwrite an input, or a video has no output of the chosen kinds.
        """
        inputs = {source.location.resolve() for source in sources if isinstance(source.location, Path)}
        pending = []
        for source in sources:
            files = self.files(source)
            for path in files.values():
                if path.resolve() in inputs:
                    raise ValueError(f"the output {path} is also an input; choose another --output")
            if not self.complete(files):
                pending.append(source)
        return pending

    def files(self, source: Source, frame: int | None = None) -> dict[str, Path]:
        """Return the path of each kind of output of a source, or of one `frame` if a video is written as frames."""
        is_video = source.kind != "image" and frame is None
        if is_video and self.frames:
            return {}
        name = source.name if frame is None else f"{source.name}_frames/{frame:06}"
        kinds = [kind for kind in self.kinds if not is_video or kind in RENDERINGS]  # compression would change indices
        if self.kinds and not kinds and not self.with_shares:
            raise ValueError(
                f"--save {','.join(self.kinds)} of a video needs --frames, or one of {', '.join(RENDERINGS)}"
            )
        files = {kind: self.folder / f"{name}_{kind}.{'mp4' if is_video else 'png'}" for kind in kinds}
        if self.with_shares:
            files["shares"] = self.folder / f"{name}_shares.{'jsonl' if is_video else 'json'}"
        return files

    def complete(self, files: Mapping[str, Path]) -> bool:
        """Return whether there is nothing left to write."""
        return bool(files) and not self.overwrite and all(path.exists() for path in files.values())

    @contextmanager
    def open_video(self, source: Source, fps: float) -> Iterator[dict[str, VideoWriter | TextIO]]:
        """Open the missing files of a video, for `write`; they are renamed from `.part` names on success."""
        with ExitStack() as stack:
            writers: dict[str, VideoWriter | TextIO] = {}
            missing = {kind: path for kind, path in self.files(source).items() if self.overwrite or not path.exists()}
            for kind, path in missing.items():
                if kind == "shares":
                    part = stack.enter_context(growing(path))
                    writers[kind] = stack.enter_context(part.open("w", encoding="utf-8"))
                else:
                    writers[kind] = stack.enter_context(writing_video(path, fps))
            yield writers

    def write(
        self,
        targets: Mapping[str, Target],
        image: np.ndarray,
        labels: np.ndarray,
        facts: dict[str, Any],
        *,
        gap: int = 0,
    ) -> None:
        """Write a label map (H, W) of an image (H, W, 3) to the `targets`, from `files` or `open_video`, by kind.

        Args:
            facts: precede the class shares in JSON.
            gap: number of camera frames lost before this one; a video repeats the previous frame that many times.
        """
        for kind, target in targets.items():
            if isinstance(target, VideoWriter):
                target.write(self.painter.paint(kind, image, labels), gap=gap)
            elif not isinstance(target, Path):
                target.write(json.dumps(self._record(labels, facts)) + "\n")
            elif self.overwrite or not target.exists():
                try:
                    self._save(kind, target, image, labels, facts)
                except OSError as error:
                    raise OSError(f"cannot write {target}: {error.strerror or error}") from None

    def _save(self, kind: str, path: Path, image: np.ndarray, labels: np.ndarray, facts: dict[str, Any]) -> None:
        if kind == "shares":
            write_json(path, self._record(labels, facts))
        elif kind == "pred":
            save_labels(path, labels, self.painter.classes)
        elif kind == "labelids":
            save_image(path, cityscapes_label_ids()[labels])
        else:
            save_image(path, self.painter.paint(kind, image, labels))

    def _record(self, labels: np.ndarray, facts: dict[str, Any]) -> dict[str, Any]:
        """Add the shares of all classes that are shown, whether present or not, so that records have the same keys."""
        shown = self.painter.shown or self.painter.classes.names
        return facts | {"shares": dict.fromkeys(shown, 0.0) | self.painter.shares(labels)}
