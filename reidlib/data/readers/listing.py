"""Which files of a folder are images, and which look like one and are left out."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reidlib.data.names import printable
from reidlib.errors import InputError, count_noun, shorten

# Images of the public benchmarks, and of own sets: every format of one still photograph that each build of
# Pillow opens. A list, so that a folder has the same images on every machine.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
OWN_ENDINGS = (
    *IMAGE_ENDINGS, ".webp", ".tif", ".tiff", ".jfif", ".jpe", ".dib", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# Pictures that may have several frames, need other software, or are no photographs; and videos.
_OTHER_PICTURES = {
    *OWN_ENDINGS, ".gif", ".apng", ".mpo", ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".j2k",
    ".jpf", ".jpx", ".tga", ".psd", ".xcf", ".pcx", ".sgi", ".exr", ".hdr", ".dds", ".ico",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw",
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts", ".m2ts",
}  # fmt: skip
# What systems and programs put beside images without being asked: copies, thumbnails and settings.
_PROGRAMS_FILES = re.compile(
    r"\._.*|\.#.*|\.(ds_store|appledouble|localized|thumbnails|picasa.*|trash.*|git|svn|hg|dvc|directory|nfs.*|"
    r"ipynb_checkpoints|spotlight-v100|fseventsd)|__macosx|@eadir|thumbs\.db|desktop\.ini|lost\+found",
    re.IGNORECASE,
)
# The first bytes of JPEG, PNG, GIF, BMP, WebP, TIFF, JPEG 2000, AVIF and HEIC.
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*|\0\0\0\x0cjP  |"
    rb"....ftyp(avif|hei|mif1)",
    re.DOTALL,
)


class UnreachablePath(InputError):
    """Error for a path that cannot be opened; a check raises it instead of listing it."""


# By reason: what is left out, why, and the mend.
LEFT_OUT = {
    "ending": ("files", "with an ending that is not read", "convert images to .jpg or .png"),
    "no ending": ("images", "without an image's ending", "add the ending"),
    "hidden": ("images", "hidden by a dot before a name", "rename them"),
    "deep": ("images", "in deeper folders", "move them up"),
    "loop": ("links", "back to a folder above", "remove them"),
    "link": ("links", "without a target", "put back the targets, or remove the links"),
}


@dataclass
class LeftOut:
    """What looks like a part of a set and is not read: paths by reason, a key of ``LEFT_OUT``."""

    paths: dict[str, set[Path]] = field(default_factory=lambda: {reason: set() for reason in LEFT_OUT})

    def __len__(self) -> int:
        return sum(map(len, self.paths.values()))

    def describe(self, *reasons: str) -> list[str]:
        """Describe these reasons, by default all, each in a sentence with the number and examples."""
        lines = []
        for reason in reasons or LEFT_OUT:
            if paths := sorted(self.paths[reason]):
                noun, why, mend = LEFT_OUT[reason]
                folder = Path(os.path.commonpath([path.parent for path in paths]))
                names = shorten([printable(path.relative_to(folder).as_posix()) for path in paths], 3)
                lines.append(f"left out: {count_noun(len(paths), noun)} {why}, in {folder}: {names}; {mend}")
        return lines


def list_images(folder: Path, endings: tuple[str, ...] = IMAGE_ENDINGS) -> list[str]:
    """List the sorted names of a folder's visible files with one of these endings, in any case."""
    return scan(folder, endings)[0]


def scan(
    folder: Path, endings: tuple[str, ...], left_out: LeftOut | None = None
) -> tuple[list[str], list[str]]:
    """List the sorted names of a folder's images and folders, and add to ``left_out`` what looks like one."""
    images, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, is_hidden = entry.name, entry.name.startswith(".")
                is_file, is_folder = _is(entry.is_file), _is(entry.is_dir)
                if is_file and not is_hidden and name.lower().endswith(endings):
                    images.append(name)
                elif _PROGRAMS_FILES.fullmatch(name):
                    continue
                elif is_folder and not is_hidden and not _is_loop(folder / name):
                    folders.append(name)
                elif left_out is not None:
                    _leave_out(left_out, folder / name, is_file, is_folder)
    except OSError as error:
        raise UnreachablePath(
            "a benchmark's folders can be listed", f"{error.strerror}: {folder}", "check its access rights"
        ) from None
    return sorted(images), sorted(folders)


def walk_images(folder: Path, endings: tuple[str, ...], left_out: LeftOut | None = None) -> Iterator[Path]:
    """Yield the images in a folder and all folders in it; links are followed, each folder is listed once."""
    waiting, listed = [folder], set()
    while waiting:
        place = waiting.pop()
        images, folders = scan(place, endings, left_out)
        yield from (place / name for name in images)
        if folders:  # most folders have none, and need not be resolved
            listed.add(place.resolve())
        for path in [place / name for name in reversed(folders)]:
            if (identity := path.resolve()) not in listed:
                listed.add(identity)
                waiting.append(path)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself, or into a folder without rights
        return False


def _is_loop(path: Path) -> bool:
    """Tell whether a folder is a link to the folder that it is in, or to one above."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _leave_out(left_out: LeftOut, path: Path, is_file: bool, is_folder: bool) -> None:
    """Add a file, folder or link to ``left_out`` if it looks like an image or a link."""
    reason, paths, ending = "", {path}, path.suffix.lower()
    if is_folder and _is_loop(path):
        reason = "loop"
    elif is_folder:
        reason = "hidden"
        with contextlib.suppress(UnreachablePath):
            paths = {*walk_images(path, OWN_ENDINGS)}
    elif not is_file:
        reason = "link" if path.is_symlink() else ""
    elif ending in _OTHER_PICTURES:
        reason = "ending"
    # A name such as 1.jpg~ or 1.jpg_large may be an image, too. Other files are not opened.
    elif not ending or any(other in path.name.lower() for other in OWN_ENDINGS):
        with contextlib.suppress(OSError), path.open("rb") as stream:
            reason = "no ending" if _SIGNATURES.match(stream.read(16)) else ""
    if reason:
        left_out.paths["hidden" if is_file and path.name.startswith(".") else reason] |= paths


def folder_names(folder: Path) -> set[str]:
    """List the names of the visible folders in a folder; empty if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:
        return set()


def entry_names(folder: Path) -> set[str]:
    """List the names of a folder's files and folders, without broken links; empty if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is(entry.is_file) or _is(entry.is_dir)}
    except (OSError, ValueError):
        return set()
