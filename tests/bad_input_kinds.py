# ruff: noqa: E501 - tables of odd values
"""The kinds of bad inputs: each composes a command on a valid input, and damages the one or the other."""

from __future__ import annotations

import contextlib
import copy
import csv
import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch
from cuhk03_miniature import write_archive, write_lists
from PIL import Image
from small_miniatures import write_cuhk01, write_grid, write_viper

ROOT = Path(__file__).resolve().parent.parent
PAYLOAD = "executed-payload"  # the file that an executed pickle would make
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def _complete(_: str) -> list[str]:
    return []


@dataclass
class Case:
    """One bad input: a command in a folder with all its files.

    ``refused``: it must not end as a success. ``may_change``: files that a success may change.
    ``may_remain``: complete files that a refusal may leave or change. ``incomplete``: what lacks in the outputs
    of a success, given standard output. ``command``: a process instead of ``main``.
    """

    folder: Path
    rng: random.Random
    seeds: Seeds
    words: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: bool = False
    as_nobody: bool = False
    may_change: tuple[str, ...] = ()
    may_remain: tuple[str, ...] = ()
    incomplete: Callable[[str], list[str]] = _complete
    command: list[str] | None = None

    @property
    def note(self) -> str:
        """What was damaged, and how."""
        return ", ".join(self.notes)

    def pick(self, choices):
        """One of some choices, by the input's own random numbers."""
        return self.rng.choice(list(choices))

    def give(self, seed: str, name: str | None = None) -> Path:
        """A copy of a valid input in this input's folder; its files are links until they are written."""
        target = self.folder / (name or seed)
        source = self.seeds.folder / seed
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        return target

    def run(self) -> Path:
        """The trained run, in the folder of runs."""
        return next(self.give("home/runs").glob("jlml-*"))


@dataclass
class Seeds:
    """The valid inputs, made once."""

    folder: Path

    @classmethod
    def prepare(cls, folder: Path) -> Seeds:
        """Render, train, embed, and write miniatures."""
        from reidlib.cli import main
        from reidlib.training import runs

        home, environment = folder / "home", dict(os.environ)
        os.environ["REIDLIB_HOME"] = str(home)
        try:
            train = ["train", "jlml", "--profile", "smoke", "--device", "cpu"]
            assert main(train) == 0
            run = next((home / "runs").glob("jlml-*"))
            kept, runs.CHECKPOINT = runs.CHECKPOINT, "none"  # a run as a kill leaves it, with its checkpoint
            try:
                assert main([*train, "--runs", str(folder / "unfinished")]) == 0
            finally:
                runs.CHECKPOINT = kept
            shutil.move(home / "data" / "synthetic-smoke", folder / "rendered")
            shutil.rmtree(home / "data"), shutil.rmtree(home / "cache")
            for killed in (folder / "unfinished").glob("jlml-*"):
                for name in ("run.json", "scores.json", "rankings.npz", "weights.pt"):
                    (killed / name).unlink(missing_ok=True)
            write_people(folder)
            for name, source in (("q.npz", "people"), ("g.parquet", "people"), ("g.npz", "loose")):
                assert main(["embed", str(run), str(folder / source), str(folder / name)]) == 0
            shutil.rmtree(home / "features")
        finally:
            os.environ.clear()
            os.environ.update(environment)
        (folder / "cuhk03").mkdir()
        write_archive(folder / "cuhk03" / "cuhk-03.mat")
        for kind in ("labeled", "detected"):
            write_lists(folder / "cuhk03", kind)
        write_grid(folder / "grid"), write_viper(folder / "viper"), write_cuhk01(folder / "cuhk01")
        return cls(folder)

    def digest(self) -> str:
        """A hash of all their bytes."""
        state = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            state.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
        return state.hexdigest()


def write_people(folder: Path) -> None:
    """Twelve rendered people as a folder for each, as loose images, and in a CSV."""
    rows = []
    (folder / "loose").mkdir()
    for path in sorted((folder / "rendered" / "query").glob("*.jpg"))[::2]:
        person, camera = path.name.split("_")[0], path.name.split("_c")[1][0]
        place = folder / "people" / person / f"c{camera}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(path, place / path.name), os.link(path, folder / "loose" / path.name)
        rows.append((f"{person}/c{camera}/{path.name}", person, camera))
    with (folder / "people" / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "person", "camera"), *rows])


def make(kind: str, number: int, rng: random.Random, folder: Path, seeds: Seeds) -> Case:
    """The input of a kind and number."""
    case = Case(folder, rng, seeds, environment={"REIDLIB_HOME": str(folder / "home")})
    _KINDS[kind](case)
    if case.as_nobody:
        for path in (folder, *folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
                rewrite(path, path.read_bytes())
            if not os.geteuid():  # nobody else can give files away, and the input then runs as they are
                os.chown(path, 65534, 65534, follow_symlinks=False)
    return case


# ---- commands and their outputs ----


def check(case: Case, name: str, root: Path) -> None:
    case.words = ["check", name, str(root)]
    case.may_change = (r"home/checked/.*",)
    case.incomplete = lambda out: [] if "readable" in out.splitlines()[-1] else ["no verdict"]


def train(case: Case, *words: str) -> None:
    case.words = ["train", "jlml", "--profile", "smoke", "--device", "cpu", *words]
    case.may_change = (r"(home/runs|runs)/.*",)

    def incomplete(out: str) -> list[str]:
        from reidlib.training.runs import Run

        run = Run.open(out.rpartition("run: ")[2].strip())
        present = {path.name for path in run.folder.iterdir()}
        missing = [f"no {name}" for name in ("scores.json", "run.json") if name not in present]
        return missing or ([] if run.scores["branches"]["full"] else ["no scores"])

    case.incomplete = incomplete


def evaluate(case: Case, run: Path, *words: str) -> None:
    case.words = ["evaluate", str(run), "--device", "cpu", *words]
    case.may_change = (r".*/(scores\.json|rankings\.npz)",)
    case.incomplete = lambda out: [] if "queries have a match" in out and "nan" not in out else ["no scores"]


def embed(case: Case, run: Path, images: Path, ending: str | None = None) -> None:
    out = case.folder / f"out{ending or case.pick(('.npz', '.parquet'))}"
    case.words = ["embed", str(run), str(images), str(out), "--device", "cpu"]

    def incomplete(text: str) -> list[str]:
        from reidlib.search.features import read_features

        features = read_features(out)
        wrong = [] if np.isfinite(features.features).all() else ["features that are no numbers"]
        return wrong + [f"{len(features)} features"] * (not text.startswith(f"{len(features)} image"))

    case.incomplete = incomplete


def search(case: Case, query: Path, gallery: Path, run: Path | None = None, *words: str) -> None:
    out = case.folder / "out"
    case.words = ["search", str(query), str(gallery), "--out", str(out), "--device", "cpu", *words]
    case.words += ["--run", str(run)] if run else []

    def incomplete(text: str) -> list[str]:
        with (out / "ranked.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = list(csv.DictReader(stream))
        finite = all(np.isfinite(float(row["distance"])) for row in rows)
        return [] if rows and finite and "written to" in text else ["ranked lists that are no lists"]

    case.incomplete = incomplete


# ---- damage ----


def rewrite(path: Path, data: bytes) -> None:
    """Write a file anew: the links to its old content keep it."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def damage(case: Case, data: bytes) -> bytes:
    """Bytes with a damage as copies and downloads have it."""
    rng, size = case.rng, max(1, len(data))
    start = rng.randrange(size)
    damages = {
        "empty": lambda: b"",
        "cut off": lambda: data[:start],
        "without its beginning": lambda: data[start:],
        "bits flipped": lambda: bytes(
            byte ^ (1 << rng.randrange(8)) if rng.random() < 20 / size else byte for byte in data
        ),
        "a block of zeros": lambda: data[:start] + bytes(min(4096, size - start)) + data[start + 4096 :],
        "a block twice": lambda: data[:start] + data[max(0, start - 500) :],
        "a web page": lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
        "a pointer of git-lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "random bytes": lambda: rng.randbytes(2000),
        "line ends converted": lambda: data.replace(b"\n", b"\r\n"),
        "a zip": lambda: _zip_outside(),
    }
    name = rng.choice(list(damages))
    case.notes.append(name)
    return damages[name]()


def _zip_outside() -> bytes:
    """An archive whose members lead out of the folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in (f"../{PAYLOAD}", f"/tmp/{PAYLOAD}", "data.pkl", "features.npy"):
            archive.writestr(name, b"x")
    return buffer.getvalue()


class Payload:
    """An object whose unpickling makes a file."""

    def __init__(self, folder: Path):
        self.path = folder / PAYLOAD

    def __reduce__(self):
        return open, (str(self.path), "w")


JUNK = (
    None,
    [],
    {},
    "",
    "x",
    -1,
    0,
    1,
    10**30,
    1.5,
    1e308,
    True,
    float("nan"),
    ["a", 1],
    {"a": {}},
    "\u0000é",
    "a" * 9000,
)


def spoil_json(case: Case, file: Path) -> None:
    """Damage a JSON file: an entry replaced, removed or added, or the text itself."""
    text = file.read_text(encoding="utf-8")
    content, rng = json.loads(text), case.rng
    way = rng.choice(["replace", "replace", "replace", "remove", "text", "list", "deep", "rename"])
    if way in ("replace", "remove", "rename"):
        content = copy.deepcopy(content)
        place, key = content, rng.choice(list(content))
        while isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.75:
            place = place[key]
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if way == "replace":
            junk = rng.choice(JUNK)
            case.notes.append(f"{file.name}: {key} is {str(junk)[:20]!r}")
            place[key] = junk
        else:
            case.notes.append(f"{file.name}: {key} {way}d")
            old = place.pop(key)
            if way == "rename" and isinstance(place, dict):
                place[f"{key}_"] = old
        text = json.dumps(content)
    elif way == "list":
        text = json.dumps([content])
        case.notes.append(f"{file.name} in a list")
    elif way == "deep":
        text = "[" * 100_000
        case.notes.append(f"{file.name} deeply nested")
    data = text.encode()
    rewrite(file, damage(case, data) if way == "text" else data)


def odd_image(case: Case, path: Path) -> None:
    """Put something odd or broken in the place of an image."""
    rng = case.rng
    pixels = np.full((128, 64, 3), 99, np.uint8)
    with contextlib.suppress(OSError), Image.open(path) as image:  # it may be damaged already
        pixels = np.asarray(image.convert("RGB"))

    def save(image: Image.Image, form: str, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    picture = Image.fromarray(pixels)
    bad = {
        "cut off": lambda: path.read_bytes()[: rng.randrange(10, 900)],
        "empty": lambda: b"",
        "text": lambda: b"hello\n",
        "zeros": lambda: bytes(3000),
        "too many pixels": lambda: save(Image.new("1", (60_000, 60_000)), "PNG"),
        "float": lambda: save(Image.fromarray(pixels[..., 0].astype(np.float32)), "TIFF"),
        "a pickle": lambda: pickle.dumps(Payload(case.folder)),
        "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    }
    odd = {
        "png": lambda: save(picture, "PNG"),
        "16 bits": lambda: save(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        "alpha": lambda: save(picture.convert("RGBA"), "PNG"),
        "palette": lambda: save(picture.convert("P"), "GIF"),
        "one bit": lambda: save(picture.convert("1"), "PNG"),
        "cmyk": lambda: save(picture.convert("CMYK"), "JPEG"),
        "one pixel": lambda: save(Image.new("RGB", (1, 1)), "BMP"),
        "a line": lambda: save(Image.new("RGB", (3000, 1)), "PNG"),
        "damaged exif": lambda: save(
            picture, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + rng.randbytes(40)
        ),
        "animation": lambda: save(picture, "GIF", save_all=True, append_images=[picture.rotate(9)]),
        "webp": lambda: save(picture, "WEBP"),
        "bits flipped": lambda: bytes(
            byte ^ 1 << rng.randrange(8) if index > 600 and rng.random() < 0.01 else byte
            for index, byte in enumerate(path.read_bytes())
        ),
        "other chunk": lambda: save(picture, "PNG")[:60] + rng.randbytes(30) + save(picture, "PNG")[60:],
    }
    name = rng.choice([*bad, *odd])
    data = (bad | odd)[name]()
    case.notes.append(f"image {name}")
    case.refused |= name in bad
    rewrite(path, data)


ODD_NAMES = (
    "a\nb", "\udcff\udcfe", "é", "e\u0301", " x ", "-rf", "x" * 240, "nan", "-1", "0", "007", "7.0", "CON", "a;b",
    "a,b", '"', "#", "%s%n", "{x}", "$(id)", "~", "\u202e\u0000"[:1], "‮", "😀", "1" * 40, "=1+1", "'", "\\", "..a",
)  # fmt: skip


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder that are neither links nor damaged."""
    endings = (".jpg", ".jpeg", ".png", ".bmp")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in endings
        and path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
    )


def odd_entry(case: Case, folder: Path) -> None:
    """Add something that is no image to a folder of images, or take something away."""
    rng = case.rng
    images = images_in(folder)
    if not images:
        images = [folder / "0001_c1s1_000001_00.jpg"]
        shutil.copy(next((case.seeds.folder / "loose").iterdir()), images[0])
    path = rng.choice(images)
    name = rng.choice(
        ["folder", "dangling", "loop", "fifo", "foreign", "misnamed", "odd", "gone", "hidden", "unreadable",
         "unreadable folder", "link to folder", "huge id", "socket", "device", "twice"]
    )  # fmt: skip
    case.notes.append(f"{folder.name}: {name}")
    if name == "folder":
        path.unlink(missing_ok=True)
        path.mkdir()
    elif name == "dangling":
        path.unlink(missing_ok=True)
        path.symlink_to("nothing")
    elif name == "loop":
        path.unlink(missing_ok=True)
        path.symlink_to(path.name)
    elif name == "fifo":
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    elif name == "device":
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/zero")
    elif name == "socket":
        import socket

        place = os.open(folder, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as endpoint:  # a short path, because a socket's has 107 bytes
            endpoint.bind(f"/proc/self/fd/{place}/s.jpg")
        os.close(place)
    elif name == "foreign":
        (folder / rng.choice(("notes.txt", "Thumbs.db", "._x.jpg", "desktop.ini", "a.zip"))).write_bytes(b"x")
    elif name == "misnamed":
        shutil.copy(path, folder / f"holiday{rng.randrange(99)}.jpg")
    elif name == "odd":
        odd = rng.choice(ODD_NAMES).replace("\0", "").replace("/", "")
        shutil.copy(path, folder / os.fsdecode(os.fsencode(odd + path.name)[:250]))
    elif name == "huge id":
        shutil.copy(
            path, folder / f"{'9' * rng.choice((5, 18, 19, 40))}_c{rng.choice((1, 10**17, 10**30))}s1_0_0.jpg"
        )
    elif name == "hidden":
        shutil.copy(path, folder / f".{path.name}")
    elif name == "twice":
        os.link(path, folder / f"{path.stem}_copy.jpg")
    elif name == "link to folder":
        (folder / "linked").symlink_to(folder)
    elif name == "unreadable":
        case.as_nobody = True
        rewrite(path, path.read_bytes())
        path.chmod(0)
    elif name == "unreadable folder":
        case.as_nobody = True
        folder.chmod(0o311)
    elif name == "gone":
        for one in images:
            one.unlink()


def bad_path(case: Case) -> str:
    """A path that leads nowhere, or to something else than it should."""
    folder, rng = case.folder, case.rng
    name = rng.choice(
        ["absent", "empty", "file", "dangling", "loop", "long name", "long path", "below a file", "bytes", "line",
         "nobody's home", "null", "fifo", "empty folder", "unreadable", "root", "nul", "sealed"]
    )  # fmt: skip
    case.notes.append(f"path {name}")
    path = folder / f"bad{len(case.notes)}"
    if name == "file":
        path.write_text("x")
    elif name == "dangling":
        path.symlink_to("nothing")
    elif name == "loop":
        path.symlink_to(path.name)
    elif name == "fifo":
        os.mkfifo(path)
    elif name == "empty folder":
        path.mkdir()
    elif name in ("unreadable", "sealed"):
        case.as_nobody = True
        path.mkdir()
        (path / "0001_c1s1_000001_00.jpg").write_text("x")
        path.chmod(0 if name == "unreadable" else 0o555)
    elif name == "below a file":
        path.write_text("x")
        return str(path / "below")
    others = {
        "empty": "",
        "long name": str(folder / ("x" * 300)),
        "long path": str(folder) + "/x" * 3000,
        "bytes": str(folder / "a\udcffb"),
        "line": str(folder / "a\nb"),
        "nobody's home": "~nosuchuser/x",
        "null": "/dev/null",
        "root": "/proc/self/nothing",
        "nul": str(folder / "a\0b"),
    }
    return others.get(name, str(path))


# ---- kinds ----

NUMBERS = (
    "-1",
    "0",
    "1.5",
    "1e3",
    "nan",
    "inf",
    "",
    "two",
    "٣",
    "9" * 30,
    "0x10",
    "1_000",
    " 5",
    "²",
    "9" * 5000,
)
VALUES = {
    "model": ("", "jlm", "JLML", "jlml ", "pyramid,parts=3", "résnet", "jlml\nx", "\udcff", "x" * 5000, "None"),
    "benchmark": (
        "market", "Market1501", "", ",", "cuhk03,", "cuhk03,boxes", "cuhk03,boxes=red", "cuhk03,split=old",
        "cuhk03,trial=20", "viper,trial=-1", "synthetic,x=1", "csv,=", "folder,same_camera=yes", "grid,trial=1.0",
        "market1501,distractors=1", "market1501,distractors=true", "synthetic,synthetic", "cuhk01,test_persons=0",
        "viper,partitions=", "viper,partitions=absent.json", "viper,trial=" + "9" * 5000, "folder,folds=1",
        "csv,trial=99", "folder,trial=3", "cuhk01,test_persons=970", "csv,partitions=/dev/null", "synthetic\0",
    ),
    "device": ("gpu", "cuda:99", "cpu:1", "", "meta", "tpu", "CPU", "mps", "cpu\n", "cuda:-1", "xpu", "cpu:99999999999"),
    "profile": ("Smoke", "fast", "", "paper", "smok", "None", "smoke,quick", "é"),
    "share": ("nan", "2", "-1", "0", "1", "1e-400", "inf", "x", "", "0,001", "1e-9", "5%"),
    "number": NUMBERS,
    "seed": (*NUMBERS, "2147483648"),
    "validation persons": (*NUMBERS, "1", "9", "10", "11", "12", "13", "1000000"),  # of twelve
    "size": ("quik", "", "Smoke", "smoke,quick", "None", "1", "é"),
    "folder option": ("x", "=", "x=y", "=y", "viper=", "viper", "viper=absent", "viper,=x", "market1501=/dev/null", "viper\0=x"),
}  # fmt: skip


def _base(case: Case, command: str) -> list[tuple[str, str]]:
    """The words of a valid command, each with what it is."""
    folder = case.folder
    plain = lambda *words: [("word", word) for word in words]  # noqa: E731
    device = [*plain("--device"), ("device", "cpu")]
    if command == "check":
        return [*plain("check"), ("benchmark", "synthetic"), ("path", str(case.give("rendered")))]
    if command == "train":
        data = [*plain("--data-root"), ("path", str(case.give("rendered")))]
        return [
            *plain("train"), ("model", "jlml"), *plain("--profile"), ("profile", "smoke"), *data, *device,
            *plain("--runs"), ("path", str(folder / "runs")), *plain("--seed"), ("seed", "3"),
            *plain("--validate"), ("validation persons", "4"),
        ]  # fmt: skip
    if command == "pretrain":
        data = str(case.give("rendered"))
        words = plain("--profile", "smoke", "--data-root", data, "--pretrain")
        return [*plain("train"), ("model", "jlml"), *words, ("folder option", f"market1501={data}"), *device]
    if command == "evaluate":
        data = [*plain("--data-root"), ("path", str(case.give("rendered")))]
        return [*plain("evaluate"), ("path", str(case.run())), *data, *device]
    if command == "embed":
        run, people = case.run(), case.give("people")
        return [
            *plain("embed"), ("path", str(run)), ("path", str(people)), ("path", str(folder / "o.npz")), *device
        ]  # fmt: skip
    if command == "search":
        run, people, loose = case.run(), case.give("people"), case.give("loose")
        words = [
            *plain("search"),
            ("path", str(loose)),
            ("path", str(people)),
            *plain("--run"),
            ("path", str(run)),
        ]
        words += [*plain("--out"), ("path", str(folder / "out")), *plain("--top"), ("number", "3"), *device]
        more = [*plain("--false-match-rate"), ("share", "0.1"), *plain("--sheet"), ("number", "2")]
        return [*words, *more, *plain("--calibrate"), ("path", str(people))]
    if command == "search features":
        query, gallery = case.give("q.npz"), case.give("g.parquet")
        words = [*plain("search"), ("path", str(query)), ("path", str(gallery)), *plain("--out")]
        return [*words, ("path", str(folder / "out")), *plain("--top"), ("number", "3"), *device]
    if command == "render":
        return [*plain("render"), ("size", "smoke"), ("path", str(folder / "new")), *plain("--seed"), ("seed", "2"), *device]  # fmt: skip
    raise AssertionError(command)


def command_lines(case: Case) -> None:
    rng = case.rng
    if rng.random() < 0.12:
        return _reproduce(case)
    commands = (
        "check",
        "train",
        "pretrain",
        "evaluate",
        "embed",
        "search",
        "search",
        "search features",
        "render",
    )
    command = rng.choice(commands)
    words = _base(case, command)
    for _ in range(rng.choice((1, 1, 2))):
        way = rng.choice(["value", "value", "value", "value", "unknown", "misspelt", "drop", "extra", "home"])
        places = [index for index, (role, _) in enumerate(words) if role != "word"]
        if way == "value" and places:
            index = rng.choice(places)
            role = words[index][0]
            value = bad_path(case) if role == "path" else rng.choice(VALUES[role])
            case.notes.append(f"{role} {value[:40]!r}")
            words[index] = ("word", value)
        elif way == "unknown":
            words.insert(
                rng.randrange(len(words) + 1),
                ("word", rng.choice(("--nothing", "-x", "--", "--=", "-1", "--no-train"))),
            )
        elif way == "misspelt":
            options = [index for index, (_, word) in enumerate(words) if word.startswith("--")]
            if options:
                index = rng.choice(options)
                words[index] = (
                    "word",
                    rng.choice((words[index][1][:-1] + "z", words[index][1][:4], "-" + words[index][1])),
                )
        elif way == "drop":
            del words[rng.randrange(len(words))]
        elif way == "extra":
            words.insert(
                rng.randrange(len(words) + 1), ("word", rng.choice(("", "x", "é", "\udcff", "%s", "None")))
            )
        elif way == "home":
            case.environment["REIDLIB_HOME"] = bad_path(case).replace("\0", "") or " "
        case.notes.append(way)
    case.words = [word for _, word in words]
    case.may_change = (r"(home/runs|runs)/.*", r"home/checked/.*")


def _reproduce(case: Case) -> None:
    """A report is long, so that each of these must be refused before it begins."""
    rng = case.rng
    folder = case.folder
    (folder / "file").write_text("x")
    bad = rng.choice([
        ["--profile", rng.choice(VALUES["profile"])], ["--seeds", rng.choice(("0", "-1", "x", "1.5", "nan"))],
        ["--jobs", rng.choice(("0", "-1", "x", "1.5"))], ["--trials", rng.choice(("0", "-1", "x"))],
        ["77"], ["abc"], ["-5"], ["00.ipynb2"], ["--device", "gpu"], ["--device", "cuda:99"], ["--device", ""],
        ["--benchmark", rng.choice(VALUES["benchmark"][:8])], ["--data-root", str(folder / "absent")],
        ["--benchmark", "market1501", "--data-root", str(folder / "file")],
        ["--out", str(folder / "file")], ["--out", str(folder / "file" / "x")], ["--out", str(folder / ("x" * 300))],
        ["--folder", rng.choice(VALUES["folder option"][:8])], ["--folder", f"viper={folder / 'absent'}"],
        ["--no-train", "--runs", str(folder / "absent")], ["--scheduler", "nonsense"], ["--scheduler", ""],
        ["--nothing"], ["--seed", "1"], ["--out", "a\0b"], ["--runs", "a\0b"],
    ])  # fmt: skip
    case.notes.append(f"reproduce {bad}"[:60])
    case.words = ["reproduce", "00", "--profile", "smoke", *bad]
    case.refused = True


def settings(case: Case) -> None:
    rng = case.rng
    way = rng.choice(
        [
            "options",
            "options",
            "config.json",
            "config.json",
            "run.json",
            "scores.json",
            "partitions",
            "rendering.json",
        ]
    )
    if way == "options":
        seed = rng.choice(["people", "viper", "cuhk01", "cuhk03", "grid", "rendered"])
        names = {"people": ("folder", "csv"), "rendered": ("synthetic", "market1501", "dukemtmc")}.get(
            seed, (seed,)
        )
        keys = ("trial", "boxes", "split", "partitions", "same_camera", "test_persons", "distractors", "testing", "folds", "trials", "root", "")  # fmt: skip
        texts = ("", "true", "True", "no", "1", "0", "-1", "1.0", "nan", "é", "labelled", "detected", "new", "classic", "x=y", "٣", "9" * 40, "\udcff", "/dev/null", "a\0b", "absent.json", "list.csv")  # fmt: skip
        name = ",".join(
            [
                rng.choice(names),
                *(f"{rng.choice(keys)}={rng.choice(texts)}" for _ in range(rng.choice((1, 1, 2, 3)))),
            ]
        )
        case.notes.append(name[:60])
        root = case.give(seed)
        if rng.random() < 0.3:
            train(case, "--benchmark", name, "--data-root", str(root))
        else:
            check(case, name, root)
        return
    if way == "partitions":
        root = case.give("viper")
        file = case.folder / "partitions.json"
        content = {"format": 1, "benchmark": "viper", "test": [[1, 2]], "num_images": 8, "sha256": "x"}
        file.write_text(json.dumps(content))
        spoil_json(case, file)
        return check(case, f"viper,partitions={file}", root)
    if way == "rendering.json":
        root = case.give("rendered")
        spoil_json(case, root / "rendering.json")
        if rng.random() < 0.3:
            case.words = ["render", "smoke", str(root), "--device", "cpu"]
            return None
        return rng.choice(
            [lambda: check(case, "synthetic", root), lambda: train(case, "--data-root", str(root))]
        )()
    run = case.run()
    spoil_json(case, run / way)
    _use_run(case, run)
    return None


def _use_run(case: Case, run: Path) -> None:
    """A command that uses a run."""
    way = case.rng.choice(["evaluate", "evaluate", "embed", "search", "train"])
    if way == "evaluate":
        evaluate(case, run, "--data-root", str(case.give("rendered")))
    elif way == "embed":
        embed(case, run, case.give("loose"))
    elif way == "search":
        search(case, case.give("loose"), case.give("people"), run)
    else:
        train(case, "--data-root", str(case.give("rendered")))
        case.refused = False  # the run with its scores is what the command asks for


def folders(case: Case) -> None:
    rng = case.rng
    if rng.random() < 0.5:
        root = case.give("rendered")
        for _ in range(rng.choice((1, 1, 2))):
            way = rng.choice(
                [
                    "image",
                    "image",
                    "entry",
                    "entry",
                    "split gone",
                    "split file",
                    "renamed",
                    "nested",
                    "archive",
                ]
            )
            split = root / rng.choice(FOLDERS)
            if not split.is_dir():
                continue
            images = images_in(split)
            if way == "image" and images:
                odd_image(case, rng.choice(images))
            elif way == "entry":
                odd_entry(case, split)
            elif way == "split gone":
                shutil.rmtree(split)
            elif way == "split file":
                shutil.rmtree(split)
                split.write_text("x")
            elif way == "renamed":
                split.rename(split.with_name(split.name.upper()))
            elif way == "nested":
                (root / "Market").mkdir(exist_ok=True)
                split.rename(root / "Market" / split.name)
            elif way == "archive":
                shutil.rmtree(split)
                (root / f"{split.name}.zip").write_bytes(_zip_outside())
            case.notes.append(f"{split.name} {way}")
        command = rng.choice(["check", "check", "train", "evaluate"])
        name = rng.choice(("synthetic", "market1501", "dukemtmc", "folder"))
        if command == "check":
            check(case, name, root)
        elif command == "train":
            train(case, "--benchmark", name, "--data-root", str(root))
        else:
            evaluate(case, case.run(), "--data-root", str(root))
        # An image that only another benchmark's folder has is not read, so that it need not be refused.
        case.refused &= command != "evaluate" and name in ("synthetic", "market1501")
        return
    source = rng.choice(("people", "people", "loose", "viper", "cuhk01", "grid"))
    root = case.give(source)
    places = [root, *(path for path in root.rglob("*") if path.is_dir())]
    changes = rng.choice((1, 1, 2))
    for _ in range(changes):
        place = rng.choice([path for path in places if path.is_dir()])
        images = images_in(place)
        way = rng.choice(["image", "entry", "person", "deep", "cycle"])
        if way == "image" and images:
            odd_image(case, rng.choice(images))
        elif way == "person":
            name = rng.choice(ODD_NAMES).replace("\0", "").replace("/", "") or "x"
            odd = place / os.fsdecode(os.fsencode(name)[:250])
            if images and not odd.exists():
                odd.mkdir()
                shutil.copy(images[0], odd / "1.jpg")
            case.notes.append(f"person {name!r}"[:40])
        elif way == "deep":
            deep = place.joinpath(*("d" * rng.choice((1, 3, 40))))
            deep.mkdir(parents=True, exist_ok=True)
            if images:
                shutil.copy(images[0], deep / "1.jpg")
            case.notes.append("deep")
        elif way == "cycle":
            (place / "cycle").symlink_to(root)
            case.notes.append("cycle")
        else:
            odd_entry(case, place)
    case.refused &= changes == 1  # another change may take the damaged image away
    if source in ("viper", "cuhk01", "grid"):
        return check(case, source, root)
    _own(case, root, "folder")
    return None


def _own(case: Case, root: Path, name: str) -> None:
    """A command on own images."""
    way = case.rng.choice(["check", "check", "train", "embed", "embed", "search", "search", "calibrate"])
    if way == "check":
        check(case, name, root)
    elif way == "train":
        train(case, "--benchmark", case.pick((name, f"{name},same_camera=true")), "--data-root", str(root))
    elif way == "embed":
        embed(case, case.run(), root)
    elif way == "search":
        pair = [root, case.give("loose", "other")]
        case.rng.shuffle(pair)
        search(case, *pair, case.run())
    else:
        other = case.give("loose", "other")
        search(case, other, other, case.run(), "--calibrate", str(root), "--false-match-rate", "0.1")


def lists(case: Case) -> None:
    rng = case.rng
    people = case.give("people")
    file = people / "list.csv"
    with file.open(newline="") as stream:
        names, *rows = list(csv.reader(stream))
    separator, quote, end, encoding, tail, head = ",", csv.QUOTE_MINIMAL, "\r\n", "utf-8", "", ""
    changes = rng.choice((1, 1, 2, 3))
    for _ in range(changes):
        way = rng.choice(
            ["cell", "cell", "cell", "cell", "person", "person", "path", "path", "column", "separator", "encoding",
             "quote", "ends", "ragged", "head", "tail", "nothing", "split", "huge", "twice"]
        )  # fmt: skip
        case.notes.append(way)
        row, column = rng.randrange(len(rows)), rng.randrange(len(names))
        if way in ("cell", "person"):
            column = column if way == "cell" else min(1, len(names) - 1)
            odd = rng.choice(
                (
                    *ODD_NAMES,
                    "",
                    " ",
                    "\0",
                    "1e5",
                    "1.0",
                    "-1.0",
                    "None",
                    "NaN",
                    "\ufeff",
                    "\u00a0",
                    "½",
                    "Ａ",
                )
            )
            for index in (row, *range(row, min(row + rng.choice((0, 5)), len(rows)))):
                rows[index][column % len(rows[index])] = odd
            case.notes.append(repr(odd)[:20])
        elif way == "path":
            rows[row][0] = rng.choice(
                ("absent.jpg", "/etc/passwd", "../x.jpg", "..", ".", "list.csv", "C:\\x.jpg", "file:///x.jpg", "0001",
                 "a\0b.jpg", "x" * 5000, "~/x.jpg", "\\\\host\\x.jpg", "https://x/y.jpg", rows[row][0].upper(), "//")
            )  # fmt: skip
            case.refused = changes == 1
        elif way == "column":
            what = rng.choice(("drop", "rename", "double", "add", "swap"))
            if what == "drop" and len(names) > 1:
                del names[column]
                rows = [[cell for index, cell in enumerate(cells) if index != column] for cells in rows]
            elif what == "rename":
                names[column] = rng.choice(("Path ", "persn", "id", "", "filename", "PERSON", "path", "相机"))
            elif what == "double":
                names, rows = (
                    [*names, names[column]],
                    [[*cells, cells[column % len(cells)]] for cells in rows],
                )
            elif what == "add":
                names, rows = (
                    [*names, "split"],
                    [[*cells, rng.choice(("train", "query", "gallery", "x", ""))] for cells in rows],
                )
            else:
                rng.shuffle(names)
        elif way == "separator":
            separator = rng.choice(";\t|: ")
        elif way == "encoding":
            encoding = rng.choice(
                (
                    "utf-16",
                    "utf-16-le",
                    "utf-32",
                    "latin-1",
                    "cp1252",
                    "utf-8-sig",
                    "utf-7",
                    "cp500",
                    "gb18030",
                )
            )
            rows[row][1 % len(rows[row])] = "Zoë"
        elif way == "quote":
            rows[row][column % len(rows[row])] += rng.choice(('"', '""', '"a', "'"))
            quote = rng.choice((csv.QUOTE_NONE, csv.QUOTE_ALL))
        elif way == "ends":
            end = rng.choice(("\n", "\r", "\r\r\n", "\n\n", "\x0b", "\u2028"))
        elif way == "ragged":
            rows[row] = rng.choice((rows[row][:1], [*rows[row], "x"], [*rows[row], ""], []))
            rows = [cells for cells in rows if cells] or [["x"]]
        elif way == "head":
            head = rng.choice(("sep=;\n", "sep=,\n", "# comment\n", "\n\n", "\ufeff", "\0", "path\n"))
        elif way == "tail":
            tail = rng.choice(('"', "\0", "x", "," * 50, "\x1a", "\n" * 3, '"\n' * 9))
        elif way == "nothing":
            rows = rows[: rng.choice((0, 1, 2))] or [["x"]]
        elif way == "split":
            names, rows = (
                [*names, "split"],
                [[*cells, "train" if index % 2 else "query"] for index, cells in enumerate(rows)],
            )
        elif way == "huge":
            rows[row][column % len(rows[row])] = "x" * rng.choice((300, 5000, 140_000, 1_000_000))
        elif way == "twice":
            rows.append(rows[row])
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, quoting=quote, lineterminator=end, escapechar=None if quote != csv.QUOTE_NONE else "\\", quotechar='"')  # fmt: skip
    writer.writerows([names, *rows])
    data = (head + stream.getvalue() + tail).encode(
        encoding, "surrogateescape" if "utf-8" in encoding else "replace"
    )
    way = rng.choice(["text"] * 8 + ["damaged", "folder", "unreadable", "renamed"])
    if way == "damaged":
        data = damage(case, data)
    rewrite(file, data)
    if way == "unreadable":
        case.as_nobody = True
        file.chmod(0)
    elif way == "folder":
        file.unlink()
        file.mkdir()
    elif way == "renamed":
        file = file.rename(file.with_suffix(rng.choice((".CSV", ".txt", ".tsv", ".csv.gz"))))
    _own(case, file, "csv")


def _arrays(case: Case, file: Path) -> None:
    """Write a file of features with something wrong in its arrays."""
    rng = case.rng
    with np.load(file) as content:
        arrays = dict(content)
    features = arrays["features"].copy()
    name = rng.choice(("names", "persons", "cameras"))
    information = json.loads(str(arrays["information"]))
    key = rng.choice(list(information))
    odd = np.array([Payload(case.folder)] * len(features), dtype=object)
    ways = {
        "float64": lambda: {"features": features.astype(np.float64)},
        "float16": lambda: {"features": features.astype(np.float16)},
        "whole numbers": lambda: {"features": features.astype(np.int32)},
        "big-endian": lambda: {"features": features.astype(">f4")},
        "one axis": lambda: {"features": features.ravel()},
        "three axes": lambda: {"features": features[..., None]},
        "no rows": lambda: {"features": features[:0]},
        "no columns": lambda: {"features": features[:, :0]},
        "fewer rows": lambda: {"features": features[:-1]},
        "fewer columns": lambda: {"features": features[:, :-1]},
        "zeros": lambda: {"features": features * 0},
        "huge": lambda: {"features": features * 1e30},
        "huge squares": lambda: {"features": features * np.float32(3e38)},
        "complex": lambda: {"features": features.astype(complex)},
        "texts": lambda: {"features": features.astype(str)},
        "fewer names": lambda: {name: arrays[name][:-1]},
        "names of bytes": lambda: {name: arrays[name].astype(bytes)},
        "names of numbers": lambda: {name: np.arange(len(features))},
        "names of no number": lambda: {name: np.full(len(features), np.nan)},
        "names in two axes": lambda: {name: arrays[name][:, None]},
        "one name": lambda: {name: np.array("x")},
        "odd names": lambda: {name: np.array([rng.choice(ODD_NAMES).replace("\0", "") for _ in features])},
        "no information": lambda: {"information": np.array("")},
        "information of a list": lambda: {"information": np.array("[1]")},
        "information of null": lambda: {"information": np.array("null")},
        "odd information": lambda: {"information": np.array(json.dumps({**information, key: rng.choice(JUNK)}))},
        "odd root": lambda: {"information": np.array(json.dumps({**information, "root": rng.choice(JUNK)}))},
        "information without": lambda: {
            "information": np.array(json.dumps({k: v for k, v in information.items() if k != key}))
        },
    }  # fmt: skip
    must = {
        "by columns": lambda: {"features": np.asfortranarray(features)},
        "not a number": lambda: {"features": np.where(np.arange(features.size).reshape(features.shape) == 7, np.nan, features).astype(np.float32)},
        "infinite": lambda: {"features": np.where(np.arange(features.size).reshape(features.shape) == 7, np.inf, features).astype(np.float32)},
        "a pickle as names": lambda: {name: odd},
        "a pickle as features": lambda: {"features": odd},
        "a pickle as information": lambda: {"information": odd[:1]},
    }  # fmt: skip
    way = rng.choice([*ways, *must])
    case.notes.append(f"features: {way} ({name}, {key})")
    case.refused |= way in must
    arrays |= (ways | must)[way]()
    if rng.random() < 0.1:
        gone = rng.choice(list(arrays))
        del arrays[gone]
        case.notes.append(f"without {gone}")
    file.unlink()
    with file.open("wb") as stream:
        (np.savez_compressed if rng.random() < 0.1 else np.savez)(stream, **arrays)


def _columns(case: Case, file: Path) -> None:
    """Write a parquet file of features with something wrong in its columns."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = case.rng
    table = parquet.read_table(file)
    name = rng.choice(("name", "person", "camera"))
    place = table.column_names.index(name)
    rows, count = table.column("feature").to_pylist(), len(table)
    text = json.loads(table.schema.metadata[b"reidlib"])

    def replaced(column: str, values) -> pa.Table:
        return table.set_column(table.column_names.index(column), column, values)

    ways = {
        "without a column": lambda: table.drop_columns([rng.choice(table.column_names)]),
        "ragged": lambda: replaced("feature", pa.array([row[: 3 if index == 2 else None] for index, row in enumerate(rows)], pa.list_(pa.float32()))),
        "a missing feature": lambda: replaced("feature", pa.array([None if index == 2 else row for index, row in enumerate(rows)], pa.list_(pa.float32()))),
        "a missing number": lambda: replaced("feature", pa.array([[None, *row[1:]] if index == 2 else row for index, row in enumerate(rows)], pa.list_(pa.float32()))),
        "float64": lambda: replaced("feature", pa.array(rows, pa.list_(pa.float64()))),
        "texts": lambda: replaced("feature", pa.array([str(row) for row in rows])),
        "missing names": lambda: replaced(name, pa.array([None] * count, pa.string())),
        "names of numbers": lambda: replaced(name, pa.array(range(count))),
        "odd names": lambda: replaced(name, pa.array([rng.choice([n for n in ODD_NAMES if n.isprintable()]) for _ in rows])),
        "without information": lambda: table.replace_schema_metadata({}),
        "information of bytes": lambda: table.replace_schema_metadata({b"reidlib": b"\xff\xfe"}),
        "odd information": lambda: table.replace_schema_metadata({b"reidlib": json.dumps({**text, rng.choice(list(text)): rng.choice(JUNK)})}),
        "no rows": lambda: table.slice(0, 0),
        "a column twice": lambda: table.append_column(name, table.column(place)),
        "a fixed list": lambda: replaced("feature", pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(rows), pa.float32()), len(rows[0]))),
    }  # fmt: skip
    must = {
        "not a number": lambda: replaced("feature", pa.array([[float("nan"), *row[1:]] if index == 2 else row for index, row in enumerate(rows)], pa.list_(pa.float32()))),
    }  # fmt: skip
    way = rng.choice([*ways, *must])
    case.notes.append(f"parquet: {way} ({name})")
    case.refused |= way in must
    file.unlink()
    parquet.write_table((ways | must)[way](), file)


def features(case: Case) -> None:
    rng = case.rng
    query, gallery = case.give("q.npz"), case.give(rng.choice(("g.parquet", "g.npz")))
    bad = rng.choice((query, gallery))
    way = rng.choice(
        ["arrays", "arrays", "arrays", "bytes", "bytes", "ending", "pickle", "folder", "other run", "short"]
    )
    if way == "arrays":
        (_columns if bad.suffix == ".parquet" else _arrays)(case, bad)
    elif way == "bytes":
        case.notes.append(bad.name)
        rewrite(bad, damage(case, bad.read_bytes()))
    elif way == "short" and bad.suffix == ".npz":
        content = bad.read_bytes()
        rows = re.search(rb"'shape': \(\d+, \d+\), } *", content)
        longer = b"'shape': (99999, 9999), }".ljust(len(rows[0]))  # features are the first array with columns
        rewrite(bad, content.replace(rows[0], longer, 1))
        case.refused = True
        case.notes.append(f"{bad.name} shorter than its header says")
    elif way == "ending":
        swapped = bad.with_name(f"bad{rng.choice(('.npz', '.parquet', '.npy', '.PARQUET', '.csv', ''))}")
        bad.rename(swapped)
        query, gallery = (swapped if path == bad else path for path in (query, gallery))
        case.notes.append(f"{bad.name} as {swapped.name}")
    elif way == "pickle":
        rewrite(bad, pickle.dumps(Payload(case.folder)))
        case.refused = True
        case.notes.append(f"{bad.name} a pickle")
    elif way == "folder":
        bad.unlink()
        bad.mkdir()
        case.notes.append(f"{bad.name} a folder")
    run = None
    if way == "other run" or rng.random() < 0.2:
        run = case.run()
        if way == "other run":
            spoil_weights(case, run / "weights.pt")
    words = [
        ("--top", "3"),
        ("--sheet", "0"),
        ("--calibrate", str(bad)),
        ("--same-camera",),
        ("--false-match-rate", "0.01"),
    ]
    chosen = [word for words in rng.sample(words, rng.choice((0, 1, 2))) for word in words]
    search(case, query, gallery, run, *chosen)


def spoil_weights(case: Case, file: Path) -> None:
    """Damage a file of tensors."""
    rng = case.rng
    try:
        content = torch.load(file, weights_only=True)
    except Exception:  # it is damaged already
        content = {"x": torch.zeros(3)}
    keys = list(content)
    key = rng.choice(keys)
    tensor = content[key]

    def saved(thing) -> bytes:
        buffer = io.BytesIO()
        torch.save(thing, buffer)
        return buffer.getvalue()

    def changed(value: object) -> bytes:
        return saved({**content, key: value})

    ways = {
        "damage": lambda: damage(case, file.read_bytes()),
        "without a layer": lambda: saved({name: value for name, value in content.items() if name != key}),
        "with another layer": lambda: saved({**content, "other.weight": torch.zeros(3)}),
        "other prefix": lambda: saved({f"module.{name}": value for name, value in content.items()}),
        "other shape": lambda: changed(torch.zeros(2, 3)),
        "half precision": lambda: saved({name: value.half() if torch.is_tensor(value) and value.is_floating_point() else value for name, value in content.items()}),
        "a text": lambda: changed("x"),
        "nothing": lambda: changed(None),
        "other classes": lambda: saved({name: value[:3] if torch.is_tensor(value) and name.startswith("classifiers") and value.ndim else value for name, value in content.items()}),
        "huge": lambda: changed(tensor * 1e38 if torch.is_tensor(tensor) and tensor.is_floating_point() else 0),
        "complex": lambda: changed(torch.zeros_like(tensor, dtype=torch.complex64) if torch.is_tensor(tensor) else 0),
        "keys of numbers": lambda: saved(dict(enumerate(content.values()))),
        "another form": lambda: _numpy_bytes(np.zeros(3)),
        "nested": lambda: saved({"state_dict": content, "epoch": 3}),
    }  # fmt: skip
    must = {
        "a list": lambda: saved(list(content)),
        "a tensor": lambda: saved(torch.zeros(3)),
        "a number": lambda: saved(3),
        "empty": lambda: saved({}),
        "a pickle": lambda: pickle.dumps(Payload(case.folder)),
        "a pickle in an archive": lambda: saved({**content, "x": Payload(case.folder)}),
        "a module": lambda: saved(torch.nn.Linear(2, 2)),
        "an old pickle": lambda: pickle.dumps({"x": Payload(case.folder)}, protocol=0),
    }
    way = rng.choice([*ways, *must])
    case.notes.append(f"{file.name}: {way} ({key})")
    case.refused |= way in must and file.name == "weights.pt"
    rewrite(file, (ways | must)[way]())


def _numpy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


_TRAINED = (r"home/runs/[^/]+/(weights\.pt|checkpoint\.pt|\w+\.npz|history\.jsonl|run\.json)",)


def runs(case: Case) -> None:
    rng = case.rng
    if rng.random() < 0.4:  # a training that continues
        case.give("unfinished", "home/runs")
        run = next((case.folder / "home" / "runs").glob("jlml-*"))
        for _ in range(rng.choice((1, 1, 2))):
            way = rng.choice(
                [
                    "checkpoint",
                    "checkpoint",
                    "checkpoint",
                    "history",
                    "config",
                    "folder",
                    "sealed",
                    "failure",
                    "gone",
                ]
            )
            case.notes.append(f"unfinished: {way}")
            if way == "checkpoint" and (run / "checkpoint.pt").is_file():
                spoil_weights(case, run / "checkpoint.pt")
            elif way == "history":
                rewrite(run / "history.jsonl", damage(case, (run / "history.jsonl").read_bytes()))
            elif way == "config":
                spoil_json(case, run / "config.json")
                break
            elif way == "folder":
                (run / rng.choice(("weights.pt", "run.json", "scores.json", "steps.npz.d"))).mkdir(
                    exist_ok=True
                )
                case.may_remain = _TRAINED  # it is refused when it is written, and the training continues
            elif way == "sealed":
                case.as_nobody = True
                run.chmod(0o555)
            elif way == "failure":
                (run / "failure.txt").write_bytes(b"\xff\xfe")
            elif way == "gone":
                (run / rng.choice(("history.jsonl", "config.json"))).unlink(missing_ok=True)
        train(case, "--data-root", str(case.give("rendered")))
        return
    run = case.run()
    way = rng.choice(["weights", "weights", "weights", "small", "gone", "folder", "unreadable"])
    if way == "weights":
        spoil_weights(case, run / "weights.pt")
    elif way == "small":
        file = run / rng.choice(
            ("scores.json", "rankings.npz", "steps.npz", "history.jsonl", "run.json", "config.json")
        )
        case.notes.append(file.name)
        rewrite(file, damage(case, file.read_bytes()))
    elif way == "gone":
        file = rng.choice(sorted(run.iterdir()))
        file.unlink()
        case.notes.append(f"without {file.name}")
    elif way == "folder":
        file = rng.choice(sorted(run.iterdir()))
        file.unlink()
        file.mkdir()
        case.may_remain = _TRAINED
        case.notes.append(f"{file.name} a folder")
    else:
        file = rng.choice(sorted(run.iterdir()))
        rewrite(file, file.read_bytes())
        file.chmod(0)
        case.as_nobody = True
        case.notes.append(f"{file.name} unreadable")
    _use_run(case, run)


def archives(case: Case) -> None:
    rng = case.rng
    seed = rng.choice(("cuhk03", "cuhk03", "cuhk03", "cuhk03 new", "grid", "grid"))
    root = case.give(seed.split(" ")[0])
    file = {
        "cuhk03": root / "cuhk-03.mat",
        "cuhk03 new": root / "cuhk03_new_protocol_config_labeled.mat",
        "grid": root / "features_and_partitions.mat",
    }[seed]
    way = rng.choice(
        [
            "bytes",
            "bytes",
            "bytes",
            "content",
            "content",
            "content",
            "zip",
            "folder",
            "gone",
            "unreadable",
            "pickle",
        ]
    )
    case.notes.append(f"{file.name}: {way}")
    if way == "bytes":
        rewrite(file, damage(case, file.read_bytes()))
    elif way == "content" and seed == "cuhk03":
        _hdf(case, file)
    elif way == "content":
        _matlab(case, file)
    elif way == "zip":
        file.unlink()
        file.with_suffix(".zip").write_bytes(_zip_outside())
    elif way == "folder":
        file.unlink()
        file.mkdir()
    elif way == "gone":
        file.unlink()
    elif way == "unreadable":
        rewrite(file, file.read_bytes())
        file.chmod(0)
        case.as_nobody = True
    elif way == "pickle":
        rewrite(file, pickle.dumps(Payload(case.folder)))
    options = {
        "cuhk03": ("", ",boxes=detected", ",trial=2"),
        "cuhk03 new": (",split=new", ",split=new", ",split=new,boxes=detected"),
        "grid": ("", ",trial=1"),
    }[seed]
    name = root.name + rng.choice(options)
    given = rng.choice((root, root, root, file))
    if rng.random() < 0.8:
        check(case, name, given)
    else:
        train(case, "--benchmark", name, "--data-root", str(given))


def _hdf(case: Case, file: Path) -> None:
    """Change the content of an HDF5 archive."""
    rng = case.rng
    way = rng.choice(["key", "shape", "type", "group", "numbers", "link", "image", "object", "outside"])
    case.notes.append(f"archive: {way}")
    rewrite(file, file.read_bytes())
    with h5py.File(file, "r+") as archive:
        key = rng.choice(("labeled", "detected", "testsets"))
        cells = archive[key]
        inner = archive[cells[()].ravel()[0]]
        if way == "key":
            del archive[key]
        elif way == "group":
            del archive[key]
            archive.create_group(key)
        elif way == "type":
            del archive[key]
            archive[key] = rng.choice((np.zeros((1, 5)), np.array(b"text"), np.zeros((1, 5), np.uint8)))
        elif way == "shape":
            references = cells[()]
            del archive[key]
            archive.create_dataset(key, data=references.ravel()[: rng.choice((1, 3))])
        elif way == "numbers" and key == "testsets":
            inner[...] = rng.choice((0, -1, 1e30, 1.5, float("nan"), float("inf")))
        elif way == "link":
            del archive[key]
            archive[key] = h5py.SoftLink("/nothing")
        elif way == "outside":
            del archive[key]
            archive[key] = h5py.ExternalLink("/etc/passwd", "/x")
        elif way == "image" and key != "testsets":
            references = inner[()]
            other = rng.choice((np.zeros((2, 2), np.uint8), np.zeros((3, 4, 5), np.float64), np.zeros((4, 5, 6), np.uint8), np.zeros((3, 0, 4), np.uint8), np.zeros((3, 70_000, 1), np.uint8)))  # fmt: skip
            archive["#refs#/other"] = other
            references[0, 0] = archive["#refs#/other"].ref
            inner[...] = references
        elif way == "object":
            references = cells[()]
            references.ravel()[0] = h5py.Reference()
            cells[...] = references


def _matlab(case: Case, file: Path) -> None:
    """Change the content of a MATLAB file of version 5."""
    rng = case.rng
    content = {name: value for name, value in scipy.io.loadmat(file).items() if not name.startswith("__")}
    name = rng.choice(list(content))
    junk = rng.choice((None, 0, np.zeros(0), np.full(3, np.nan), np.full((9, 1), 1e30), "text", -1, {"a": 1}, np.full((11, 1), 10**6), np.array([[1j]]), np.array([["a"], ["b"]], dtype=object)))  # fmt: skip
    case.notes.append(f"{name} is {str(junk)[:20]!r}")
    if junk is None:
        del content[name]
    else:
        content[name] = junk
    file.unlink()
    scipy.io.savemat(file, content or {"x": 1})


PARAMETERS = (
    ("20_train_jlml", "multi_loss", "false"), ("20_train_jlml", "multi_loss", "maybe"), ("20_train_jlml", "parts", "4.0"),
    ("20_train_jlml", "parts", "four"), ("20_train_jlml", "sparsity", "nan"), ("20_train_jlml", "seeds", "0"),
    ("20_train_jlml", "may_train", "no"), ("20_train_jlml", "profil", "smoke"), ("20_train_jlml", "parts", "-1"),
    ("10_data_inspection", "data_root", "12345"), ("10_data_inspection", "device", "gpu"), ("10_data_inspection", "profile", "7"),
    ("50_ranking_browser", "top", "5.0"), ("50_ranking_browser", "browse", "false"), ("50_ranking_browser", "run", "123"),
    ("50_ranking_browser", "top", "0"), ("42_benchmarks", "folders", "x"), ("42_benchmarks", "trials", "-1"),
    ("51_part_attention", "pairs", "x"), ("90_claims", "benchmark", "True"), ("00_start_here", "out", "5"),
    ("50_ranking_browser", "model", "jlm"), ("51_part_attention", "orders", "1.5"), ("90_claims", "seeds", "None"),
)  # fmt: skip


def notebooks(case: Case) -> None:
    """A notebook by papermill, as a user calls it."""
    name, parameter, value = case.pick(PARAMETERS)
    case.give("home/runs")
    shutil.copytree(
        case.seeds.folder / "rendered",
        case.folder / "home" / "data" / "synthetic-smoke",
        copy_function=os.link,
    )
    case.notes.append(f"{name}: {parameter}={value}")
    executed = case.folder / "executed.ipynb"
    parameters = {"profile": "smoke", "device": "cpu", "out": str(case.folder / "out"), parameter: value}
    words = [word for pair in parameters.items() for word in ("-p", *pair)]
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    case.command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebook),
        str(executed),
        "--log-level",
        "ERROR",
        *words,
    ]


def notebook_faults(case: Case, status: int | str, err: str) -> list[str]:
    """What is wrong with the way a notebook ended: its result, or InputError in one line."""
    if isinstance(status, str):
        return [status]
    executed = json.loads((case.folder / "executed.ipynb").read_text())
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    errors = [output for output in outputs if output["output_type"] == "error"]
    if status == 0:
        results = [
            *case.folder.glob("*/result.json"),
            *case.folder.glob("*/*/result.json"),
            *case.folder.glob("home/**/result.json"),
        ]
        return ["errors in the notebook"] * bool(errors) + ["no result.json"] * (not results)
    if not errors:
        return [f"status {status}: {err[-300:]}"]
    wrong = (
        [] if errors[0]["ename"] == "InputError" else [f"{errors[0]['ename']}: {errors[0]['evalue'][:200]}"]
    )
    text = errors[0]["evalue"]
    return (
        wrong + ["more than one line"] * ("\n" in text) + ["no rule, value and mend"] * (text.count("; ") < 2)
    )


_KINDS = {
    "command lines": command_lines,
    "settings": settings,
    "folders": folders,
    "lists": lists,
    "features": features,
    "runs": runs,
    "archives": archives,
    "notebooks": notebooks,
}
