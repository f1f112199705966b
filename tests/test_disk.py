"""``reidlib disk`` lists all that is in the home; ``reidlib clean`` removes what may go and nobody uses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reidlib import files
from reidlib.cli import disk, main
from reidlib.data.synthetic.render import render
from reidlib.experiments.rows import PROFILES
from reidlib.files import exclusive_lock, write_atomically
from reidlib.training.runs import configuration_hash

DIGEST, OTHER = "0123456789ab", "ba9876543210"
RUN, UNFINISHED = f"runs/jlml-quick-{DIGEST}", f"runs/pyramid-quick-{OTHER}"
CHECKPOINT = f"{RUN}/checkpoint.pt"
IMAGES, FEATURES, LOST = f"cache/{'1' * 32}", f"features/{'2' * 32}", f"features/{'3' * 32}"
RENDERED, EXTRACTED = "data/synthetic-smoke", f"data/cuhk03-{DIGEST}"
PARTIAL = "data/.synthetic-quick.partial-a1b2"
RECORD, EXPLORED, REPORT = f"checked/{'4' * 16}", "explored/20_train_jlml", "quick"
# All entries by kind, with their files.
HOME = {
    "runs": {
        RUN: [
            *("config.json", "run.json", "weights.pt", "conditions/occlusion-0.4.json"),
            *("across/viper,trial=3-0123456789abcdef.json", "metrics/XQDA.json"),
        ]
    },
    "unfinished": {UNFINISHED: ["config.json", "checkpoint.pt", "history.jsonl", "failure.txt"]},
    "checkpoints": {CHECKPOINT: [""]},
    "images": {IMAGES: [".npy"]},
    "features": {FEATURES: [".npy", ".json"], LOST: [".npy", ".json"]},
    "records": {RECORD: [".json"]},
    "rendered": {RENDERED: ["rendering.json", "factors.csv", "query/1.jpg"]},
    "extracted": {EXTRACTED: ["labelled.json", "labelled/1.png"]},
    "explored": {EXPLORED: ["result.json", "figure.png"]},
    "partial": {PARTIAL: ["query/1.jpg"], ".index.html.7.0123abcd.partial": [""]},
    "reports": {REPORT: ["index.html", "20_train_jlml/status.json", "tasks/jlml.log"]},
}
DAY = 86400
OTHERS = (
    "it holds foreign files, or has changed since it was listed; "
    "move foreign files to another place, or give the command again"
)
BY_DEFAULT = {CHECKPOINT, IMAGES, LOST, REPORT, *HOME["partial"]}


def path_of(entry, name):
    return f"{entry}{'' if not name or name.startswith('.') else '/'}{name}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with each kind, unchanged for 40 days."""
    home = tmp_path / "home"
    monkeypatch.setenv("REIDLIB_HOME", str(home))
    for entries in HOME.values():
        for entry, names in entries.items():
            for name in names:
                file = home / path_of(entry, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(bytes(5000))
    for feature, digest in ((FEATURES, DIGEST), (LOST, "c" * 12)):
        (home / f"{feature}.json").write_text(json.dumps({"key": f"{digest}-{'e' * 12} 8x8", "blocks": []}))
    for lock in (f"runs/.{DIGEST}", f"runs/.{OTHER}", IMAGES, FEATURES, "data/.synthetic-smoke", "quick/"):
        (home / f"{lock}.lock").touch()
    for path in home.rglob("*"):
        os.utime(path, (time.time() - 40 * DAY,) * 2)
    return home


def present(home):
    """The files in a home, without locks."""
    return {
        str(p.relative_to(home))
        for p in home.rglob("*")
        if (p.is_symlink() or not p.is_dir()) and not p.name.endswith(".lock")
    }


def files_of(*entries):
    return {
        path_of(entry, name)
        for own in HOME.values()
        for entry in own.keys() & {*entries}
        for name in own[entry]
    }


def run(capsys, *words):
    """Run a command; return its status, what it printed, and its messages."""
    status = main([str(word) for word in words])
    printed, messages = capsys.readouterr()
    return status, printed, messages.splitlines()


def used_blocks(folder):
    output = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True, check=True).stdout
    folders = sum(512 * path.stat().st_blocks for path in (folder, *folder.rglob("*")) if path.is_dir())
    return int(output.split()[0]) - folders


def test_everything_is_of_its_kind(home):
    stock = disk.take_stock(home)
    assert {(entry.kind, entry.name): entry.sizes.keys() for entry in stock} == {
        (kind, entry): files_of(entry) for kind, entries in HOME.items() for entry in entries
    }
    assert all(39.9 < entry.age < 40.1 for entry in stock)
    remarks = {entry.name: entry.remark for entry in stock if entry.remark}
    assert remarks == {UNFINISHED: "failed", LOST: f"of no run in {home / 'runs'}"}


def test_disk_lists_kinds_and_entries(home, capsys):
    status, printed, messages = run(capsys, "disk")
    assert (status, messages) == (0, [])
    rows = {line.split()[0]: line for line in printed.splitlines()[2:]}
    assert rows.keys() == HOME.keys()
    assert re.search(r"runs +1 +6 +0\.0 MiB +40 days +finished .*; `reidlib train`", rows["runs"])
    assert "decoded images; whatever needs it next" in rows["images"]
    assert printed.splitlines()[1].endswith("  unchanged  what it is; what makes it again")
    status, printed, _ = run(capsys, "disk", "features", home / RUN)
    assert status == 0
    entries = [line.split("days")[1].strip() for line in printed.splitlines()[2:]]
    assert entries == [RUN, FEATURES, f"{LOST}, of no run in {home / 'runs'}"]


def test_sizes_are_of_allocated_blocks_and_a_hard_link_counts_once(home):
    (home / f"{IMAGES}.npy").write_bytes(b"")
    os.truncate(home / f"{IMAGES}.npy", 2**24)  # a hole
    os.link(home / RUN / "weights.pt", home / UNFINISHED / "weights.pt")
    total = sum(entry.size for entry in disk.take_stock(home))
    assert total == used_blocks(home)
    assert 0 < total < 2**24


def test_without_names_only_what_is_made_again_goes(home, capsys):
    before = present(home)
    status, printed, messages = run(capsys, "clean")
    assert (status, messages) == (0, []) and present(home) == before
    assert {line.split()[0] for line in printed.splitlines()[2:]} == {
        "checkpoints", "images", "features", "partial", "reports"
    }  # fmt: skip
    assert "may go" in printed and f"features, of no run in {home / 'runs'}" in printed
    status, printed, messages = run(capsys, "clean", "--yes")
    assert (status, messages) == (0, []) and "removed" in printed
    assert present(home) == before - files_of(*BY_DEFAULT)
    assert not (home / REPORT).exists()
    status, printed, messages = run(capsys, "clean", "--yes")
    assert (status, messages, printed) == (0, [], f"removed from {home}: 0.0 MiB\n")


@pytest.mark.parametrize("kind", disk.REMOVABLE)
def test_a_named_kind_goes_alone(home, capsys, kind):
    before = present(home)
    assert run(capsys, "clean", kind, "--yes")[::2] == (0, [])
    also = [CHECKPOINT] if kind == "runs" else []
    assert present(home) == before - files_of(*HOME[kind], *also)


def test_named_entries_go_alone(home, capsys):
    before = present(home)
    assert run(capsys, "clean", Path(UNFINISHED).name, home / LOST, EXPLORED, "--yes")[0] == 0
    assert present(home) == before - files_of(UNFINISHED, LOST, EXPLORED)


def test_an_age_keeps_what_has_changed_since(home, capsys):
    before = present(home)
    os.utime(home / RENDERED / "query" / "1.jpg")
    os.utime(home / f"{IMAGES}.npy", (time.time() - 6 * DAY,) * 2)
    assert run(capsys, "clean", "images", "rendered", "extracted", "--older", "7", "--yes")[0] == 0
    assert present(home) == before - files_of(EXTRACTED)
    os.utime(home / REPORT / "index.html", (time.time() - 20 * DAY,) * 2)
    assert run(capsys, "clean", "--older", "7", "--yes")[0] == 0
    assert present(home) >= files_of(REPORT, IMAGES)
    assert not present(home) & files_of(CHECKPOINT, LOST)


def test_another_name_is_refused_with_the_nearest(home, capsys):
    before = present(home)
    for word, value in (("image", "did you mean images?"), (RUN[:-1] + "c", RUN), ("summary", "runs, ")):
        with_error = run(capsys, "clean", word, "--yes")
        assert with_error[0] == 2 and value in with_error[2][0] and len(with_error[2]) == 1
    assert run(capsys, "clean", "../home", "--yes")[0] == 2
    assert present(home) == before


FOREIGN = (
    "notes.txt",
    "mine/a/b.txt",
    "runs/mine/config.json",
    "cache/photo.jpg",
    f"checked/{'g' * 16}.json",
    "explored/mine/x",
    f"features/{'5' * 32}.npy",
    "data/market/query/1.jpg",
    "quick2/index.html",
)


def test_foreign_files_have_a_line_and_stay(home, capsys):
    for path in FOREIGN:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("mine")
    (home / RENDERED / "query" / "mine.txt").write_text("mine")
    before = present(home)
    status, _, messages = run(capsys, "disk")
    assert status == 1
    lines = [line.split(" ")[1] for line in messages]
    names = ("notes.txt", "mine", "runs/mine", "cache/photo.jpg", f"checked/{'g' * 16}.json", "explored/mine",
             f"features/{'5' * 32}.npy", "data/market", "quick2", f"{RENDERED}/query/mine.txt")  # fmt: skip
    assert lines == sorted(str(home / name) for name in names)
    status, _, messages = run(capsys, "clean", *disk.REMOVABLE, "--yes")
    assert status == 1
    assert present(home) == {*FOREIGN, f"{RENDERED}/query/mine.txt"} | files_of(RENDERED)
    assert (
        f"{home / RENDERED}, 1 entry: it holds foreign files, or has changed since it was listed; move"
        in messages[-1]
    )
    assert before >= present(home)


def test_logs_of_trainings_without_a_report_are_reidlibs(home, capsys):
    """`reidlib train all` writes no status.json; others' folders of tasks stay foreign."""
    for profile in PROFILES:
        assert disk._LOG.fullmatch(f"{profile}-viper/tasks/jlml.log")
    for path in ("full-viper/tasks/jlml.log", "smoke/tasks/rendering.progress"):
        (home / path).parent.mkdir(parents=True)
        (home / path).write_text("printed")
    status, printed, messages = run(capsys, "disk", "reports")
    assert (status, messages) == (0, []) and {"smoke", "full-viper"} <= {*printed.split()}
    assert run(capsys, "clean", "--yes")[0] == 0 and (home / "full-viper").exists()  # it is new
    assert run(capsys, "clean", "smoke", "--yes")[0] == 0 and not (home / "smoke").exists()
    (home / "mine" / "tasks").mkdir(parents=True)
    (home / "mine" / "tasks" / "jlml.log").write_text("mine")
    status, _, (message,) = run(capsys, "clean", *disk.REMOVABLE, "--yes")
    assert status == 1 and f"foreign: {home / 'mine'} " in message
    assert present(home) == {"mine/tasks/jlml.log"}


@pytest.mark.parametrize("note", ["20_train_jlml/notes.txt", "20_train_jlml/paper.docx", "tasks/todo.md"])
def test_a_report_with_a_users_notes_stays(home, capsys, note):
    (home / REPORT / note).write_text("mine")
    os.utime(home / REPORT / note, (time.time() - 40 * DAY,) * 2)
    status, _, messages = run(capsys, "clean", "--yes")
    assert status == 1 and str(home / REPORT / note) in messages[0] and OTHERS in messages[1]
    assert present(home) >= {f"{REPORT}/{note}"} | files_of(REPORT)


def test_links_are_not_followed(home, capsys, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(home / "cache", outside / "cache")
    (home / "cache").symlink_to(outside / "cache")
    (home / RUN / "weights.pt").unlink()
    (home / RUN / "weights.pt").symlink_to(outside / "cache" / f"{'1' * 32}.npy")
    (home / "broken").symlink_to(outside / "nothing")
    (home / "loop").symlink_to(home)
    before = present(outside)
    status, _, messages = run(capsys, "clean", *disk.REMOVABLE, "--yes")
    assert status == 1 and present(outside) == before
    assert [line.partition("): ")[2] for line in messages[:4]] == [
        "a link that leads nowhere; it stays", *["a link, not followed; it stays"] * 3
    ]  # fmt: skip
    # The run whose weights are elsewhere stays as a whole.
    assert present(home) == {"broken", "loop", "cache"} | files_of(RUN)
    assert "it holds foreign files" in messages[4] and len(messages) == 5


def test_a_link_that_takes_the_place_of_a_folder_is_not_followed(home, tmp_path):
    (entry,) = (entry for entry in disk.take_stock(home) if entry.kind == "images")
    shutil.move(home / "cache", tmp_path / "cache")
    (home / "cache").symlink_to(tmp_path / "cache")
    with pytest.raises(OSError, match="a link has taken"):
        disk._remove(entry, home)
    assert (tmp_path / "cache" / f"{'1' * 32}.npy").is_file()


def test_a_missing_home_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for name in ("nothing", "file"):
        monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / name))
        for words in (["disk"], ["clean"], ["clean", "--yes"]):
            status, _, (line,) = run(capsys, *words)
            assert status == 1 and line.startswith(f"the home is a folder; got none at {tmp_path / name}; ")
    assert not (tmp_path / "nothing").exists()


def test_what_cannot_be_read_or_removed_has_a_line_and_the_rest_is_done(home, capsys, monkeypatch):
    scan, unlink = os.scandir, Path.unlink

    def scandir(folder):
        if str(folder).endswith("labelled"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    def refuse(path, missing_ok=False):
        if "cache" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok=missing_ok)

    (home / "cache" / f"{'6' * 32}.npy").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        patch.setattr(Path, "unlink", refuse)
        status, _, messages = run(capsys, "clean", "images", "extracted", "records", "--yes")
    assert (
        status == 1 and not present(home) & files_of(RECORD) and present(home) > files_of(EXTRACTED, IMAGES)
    )
    assert {line.partition(str(home))[2] for line in messages} == {
        f"/{EXTRACTED}/labelled (0.0 MiB): cannot be read (Permission denied); it stays",
        "/cache, 2 entries: Permission denied; check the access rights, and give the command again",
        f"/{EXTRACTED}, 1 entry: {OTHERS}",
    }


def test_what_is_removed_meanwhile_is_no_error(home, capsys, monkeypatch):
    take_stock = disk.take_stock

    def and_remove(folder):
        entries = take_stock(folder)
        for name in ("cache", "data", "runs", "features", "checked", "explored"):
            shutil.rmtree(home / name)
        return entries

    monkeypatch.setattr(disk, "take_stock", and_remove)
    assert run(capsys, "clean", *disk.REMOVABLE, "--yes")[::2] == (0, [])
    assert present(home) == set()


@pytest.mark.parametrize("name", [f"{UNFINISHED}/run.json", f"{REPORT}/index.html", f"{RENDERED}/mine.txt"])
def test_what_has_changed_since_the_listing_stays(home, capsys, monkeypatch, name):
    """A training that has finished meanwhile is no unfinished one any more, and a new report is not old."""
    take_stock = disk.take_stock
    monkeypatch.setattr(disk, "take_stock", lambda folder: [take_stock(folder), (home / name).touch()][0])
    before = present(home) | {name}
    kinds = ["unfinished", "reports", "rendered"]
    status, _, (message,) = run(capsys, "clean", *kinds, "--yes")
    assert status == 1 and "has changed since it was listed; move" in message
    gone = {UNFINISHED, REPORT, RENDERED} - {entry for entry in HOME["unfinished"] if name.startswith(entry)}
    gone -= {entry for entry in (REPORT, RENDERED) if name.startswith(f"{entry}/")}
    assert present(home) == before - files_of(*gone)


def test_a_folder_that_vanishes_during_the_listing_is_no_error(home, monkeypatch):
    scan = os.scandir

    def scandir(folder):
        items = list(scan(folder))
        monkeypatch.setattr(os, "scandir", scan)
        shutil.rmtree(home / "data")
        shutil.rmtree(home / "cache")
        return items

    monkeypatch.setattr(os, "scandir", scandir)
    assert not {"rendered", "images"} & {entry.kind for entry in disk.take_stock(home)}


def test_temporary_names_are_partial(home):
    names = []
    for path in (home / "new.json", home / "checked" / "new.json", home / UNFINISHED / "run.json"):
        write_atomically(path, lambda partial: names.append(partial) or partial.touch())
        path.unlink(), names[-1].touch()
    kinds = {path: entry.kind for entry in disk.take_stock(home) for path in entry.sizes}
    assert [kinds[str(name.relative_to(home))] for name in names] == ["partial", "partial", "unfinished"]


def test_features_go_before_what_describes_them(home, monkeypatch):
    (entry,) = (entry for entry in disk.take_stock(home) if entry.name == LOST)
    order, unlink = [], Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, **options: order.append(path.suffix) or unlink(path, **options)
    )
    disk._remove(entry, home)
    assert order == [".npy", ".json"]


def test_a_kill_leaves_nothing_that_looks_complete(home, monkeypatch):
    (entry,) = (entry for entry in disk.take_stock(home) if entry.name == RENDERED)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda folder: (folder / "factors.csv").unlink())
        disk._remove(entry, home)
    (rest,) = (e for e in disk.take_stock(home) if "synthetic-smoke" in e.name)
    assert rest.kind == "partial" and len(rest.sizes) == 2 and not (home / RENDERED).exists()
    assert render("smoke", home / RENDERED, progress=False) == home / RENDERED  # which removes it, too


@pytest.mark.parametrize(
    "lock", [f"{IMAGES}.lock", f"runs/.{OTHER}.lock", "quick/.lock", "quick/20_train_jlml/.lock"]
)
def test_what_another_process_holds_stays(home, capsys, lock):
    before = present(home)
    with exclusive_lock(home / lock):
        status, _, messages = run(capsys, "clean", *disk.REMOVABLE, "--yes")
    assert status == 1
    # Without anything else in use, a training or a report keeps all that it may need.
    stays = {
        f"{IMAGES}.lock": files_of(IMAGES),
        "quick/20_train_jlml/.lock": files_of(REPORT),
        f"runs/.{OTHER}.lock": before - files_of(CHECKPOINT, REPORT),
        "quick/.lock": before - files_of(UNFINISHED, CHECKPOINT),
    }[lock]
    assert present(home) == stays
    assert all(line.startswith("what goes is reidlib's alone, and not in use; got") for line in messages)
    assert run(capsys, "clean", *disk.REMOVABLE, "--yes")[0] == 0


PROGRAM = """
import sys
from pathlib import Path
from reidlib import files
files.build_once(Path(sys.argv[1]), lambda: 1, lambda: 2)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_that_has_used_the_home_keeps_what_it_may_read(home, capsys, tmp_path):
    before = present(home)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "elsewhere" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        status, printed, messages = run(capsys, "clean")
        assert status == 1 and "images" not in printed and "another process uses the home" in messages[0]
        assert run(capsys, "clean", "--yes")[0] == 1
        assert present(home) == before - files_of(CHECKPOINT, REPORT)
        process.stdin.close()
    assert run(capsys, "clean", "--yes")[0] == 0
    assert present(home) == before - files_of(*BY_DEFAULT)


def test_a_process_that_begins_waits_until_all_is_removed(home, tmp_path):
    assert files.use_home(alone=True)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "elsewhere" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(1)
        os.set_blocking(process.stdout.fileno(), False)
        assert process.stdout.buffer.read1(1) in (b"", None)
        os.set_blocking(process.stdout.fileno(), True)
        assert files.use_home()
        assert process.stdout.readline() == "ready\n"
        process.stdin.close()


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=30), max_size=4))
def test_no_name_of_a_file_is_taken_for_another(names):
    """A path is of one kind at most, and of none unless it is in that kind's folder."""
    path = "/".join(names)
    kinds = [kind for kind, pattern in disk._PATTERNS.items() if pattern.fullmatch(path)]
    first = path.partition("/")[0]
    assert not kinds or kinds[0] in ("partial", "reports", "summary") or first in (
        "runs", "cache", "features", "checked", "data", "explored"
    )  # fmt: skip


def test_a_training_keeps_what_it_needs_and_ends_as_without_clean(tmp_path, monkeypatch, capsys):
    """Clean while a real training is stopped in the middle; then it goes on, evaluates and finishes."""
    home = tmp_path / "home"
    monkeypatch.setenv("REIDLIB_HOME", str(home))
    command = [sys.executable, "-m", "reidlib", "train", "jlml", "--profile", "smoke", "--device", "cpu"]
    for where in ([], ["--runs", str(tmp_path / "runs")]):  # the second holds no lock of a run in the home
        process = subprocess.Popen(
            [*command, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        runs = tmp_path / "runs" if where else home / "runs"
        try:
            while not [*runs.glob("*/config.json")] or len([*home.glob("cache/*.npy")]) < 3:
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
            assert not [*runs.glob("*/run.json")]
            before = present(home)
            status, _, messages = run(capsys, "clean", *disk.REMOVABLE, "--yes")
            assert status == 1 and present(home) == before and any(home.glob("cache/*.npy"))
            assert "give the command again when it has ended" in messages[-1]
        finally:
            process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors
        assert "60 of 60 queries have a match" in output
    assert run(capsys, "clean", "--yes")[::2] == (0, [])
    assert not any(home.glob("cache/*.npy")) and any(home.glob("runs/jlml-*/scores.json"))
    (folder,) = home.glob("runs/jlml-*")
    assert folder.name.endswith(configuration_hash(json.loads((folder / "config.json").read_text())))
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0  # all is made again
    assert {entry.kind for entry in disk.take_stock(home)} == {"runs", "rendered", "images", "records"}
