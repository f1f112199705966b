"""One process builds; a folder that cannot be written is refused with what helps; text survives any name."""

import ast
import contextlib
import errno
import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from strategies import FILE_NAMES

import reidlib
from reidlib import files
from reidlib.errors import InputError
from reidlib.files import build_once, exclusive_lock, hidden_file, safe_name, short_name, write_error
from reidlib.text import ESCAPE, printable_streams

ENCODINGS = ("ascii", "cp1252", "cp437", "latin-1", "shift_jis", "gb18030", "utf-8", "utf-16", "utf-32-be")


def test_of_several_processes_one_builds(tmp_path):
    program = """
import sys, time
from pathlib import Path
from reidlib.files import build_once
folder = Path(sys.argv[1])
def find():
    return (folder / "made").read_text() if (folder / "made").is_file() else None
def build():
    (folder / f"builder-{sys.argv[2]}").touch()
    time.sleep(0.5)
    (folder / "made").write_text("it")
    return "it"
print(build_once(folder / "locks" / "made.lock", find, build))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(3)
    ]
    assert [process.communicate(timeout=600)[0].strip() for process in processes] == ["it"] * 3
    assert len(list(tmp_path.glob("builder-*"))) == 1


def test_an_existing_result_needs_no_lock(tmp_path):
    assert build_once(tmp_path / "absent" / "lock", lambda: 7, lambda: pytest.fail("built again")) == 7
    assert list(tmp_path.iterdir()) == []


def test_a_waiting_process_is_informed(tmp_path):
    calls, is_held, release = [], threading.Event(), threading.Event()

    def hold():
        with exclusive_lock(tmp_path / "lock"):
            is_held.set()
            release.wait(600)

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_held.wait(600)

    def waiting():
        calls.append("waits")
        release.set()

    with exclusive_lock(tmp_path / "lock", on_wait=waiting):
        pass
    holder.join()
    assert calls == ["waits"]


def test_a_failed_build_lets_the_next_one_try(tmp_path):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        build_once(tmp_path / "lock", lambda: None, fail)
    held = []
    assert build_once(tmp_path / "lock", lambda: None, lambda: 3, on_wait=lambda: held.append(True)) == 3
    assert not held


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        build_once(tmp_path / "file" / "lock", lambda: None, lambda: 1)
    refusal = InputError("the folder can be written", "a file", "name another")
    with pytest.raises(InputError, match="name another"):
        build_once(tmp_path / "file" / "lock", lambda: None, lambda: 1, make_error=lambda error: refusal)


# --- text that an encoding lacks ----------------------------------------------------------------------------


def printed(text: str, encoding: str, errors: str) -> bytes:
    """Return the bytes that a print to standard output gives, inside the block."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, newline="")
    with contextlib.redirect_stdout(stream), printable_streams():
        print(text)
    assert stream.errors == errors  # as before the block
    stream.flush()
    return stream.buffer.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(name=FILE_NAMES)
@example(name="J\udcfcrgen 张伟 é …")
@example(name="¥")
def test_a_stream_shows_any_name_in_any_encoding(encoding, name):
    text = f"✓ {name}"
    shown = printed(text, encoding, "strict").decode(encoding)  # valid in this encoding
    # As it is read back: Shift JIS has one byte for the yen sign and the backslash.
    possible = [c.encode(encoding).decode(encoding) for c in text if encodable(c, encoding)]
    characters = iter(shown)
    assert all(character in characters for character in possible)  # all that can be shown, in its order
    assert printed(text, encoding, "replace").decode(encoding)  # whoever chose a handler keeps it


def encodable(character: str, encoding: str) -> bool:
    try:
        return bool(character.encode(encoding))
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"J\\xfc \\xe9 \\u5f20 \\U0001f600\n"),
        ("cp1252", b"J\\xfc \xe9 \\u5f20 \\U0001f600\n"),
        ("utf-8", b"J\\xfc \xc3\xa9 \xe5\xbc\xa0 \xf0\x9f\x98\x80\n"),
    ],
)
def test_what_an_encoding_lacks_is_escaped(encoding, expected):
    assert printed("J\udcfc é 张 \U0001f600", encoding, "strict") == expected
    # In the C locale Python writes the bytes of file names as they are, and fails at all else.
    assert printed("J\udcfc é 张 \U0001f600", encoding, "surrogateescape") == expected.replace(
        b"\\xfc", b"\xfc"
    )


@given(name=FILE_NAMES)
@example(name="J\udcfcrgen \ud800")
def test_text_and_json_hold_any_name(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("any name")
    files.write_json(folder / "a.json", {name: [name]})
    assert files.read_json(folder / "a.json") == {name: [name]}
    files.write_text(folder / "a.txt", name)
    assert (folder / "a.txt").read_bytes() == name.encode("utf-8", ESCAPE)


@given(name=FILE_NAMES)
@example(name="x" * 249 + ".jpg")
@example(name="é" * 127)
def test_a_file_of_any_name_is_written(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("any name")
    files.write_text(folder / name, "text")
    assert os.listdir(folder) == [name]  # noqa: PTH208 - Path.iterdir drops nothing, but makes paths
    with exclusive_lock(hidden_file(folder / name, "lock")):
        pass


@given(name=FILE_NAMES, other=FILE_NAMES)
def test_shortened_names_fit_and_differ(name, other):
    for text in (name, 3 * name):
        assert len(os.fsencode(hidden_file(Path(text), "12345678.partial").name)) <= 255
        assert len(safe_name(text).encode()) <= 120
    if 3 * name != 3 * other:
        assert short_name(3 * name, 60) != short_name(3 * other, 60)


def test_existing_names_stay():
    assert safe_name("cuhk03,boxes=detected,trial=3") == "cuhk03,boxes=detected,trial=3"
    assert hidden_file(Path("a/synthetic-quick"), "lock") == Path("a/.synthetic-quick.lock")


def test_every_file_of_text_names_its_encoding():
    """ruff's rule PLW1514 knows only calls on what it sees to be a path; this one knows names of methods."""
    for source, expected in (
        ("a.read_text()", True),
        ("a.open('w')", True),
        ("subprocess.run(a, text=True)", True),
        ("a.read_text(encoding='utf-8')", False),
        ("a.open('wb')", False),
    ):
        assert _is_text(ast.parse(source, mode="eval").body) == expected, source
    nameless = []
    for path in Path(reidlib.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_text(call):
                nameless.append(f"{path.name}:{call.lineno} {ast.unparse(call)}")
    assert nameless == []


def _is_text(call: ast.Call) -> bool:
    """Return whether a call reads or writes text and names no encoding."""
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    owner, _, name = ast.unparse(call.func).rpartition(".")
    if "encoding" in keywords or owner.rpartition(".")[2] in (
        "Image",
        "ImageStore",
        "Run",
        "archive",
        "os",
        "self",
    ):
        return False
    if name in ("run", "Popen", "check_output"):
        return bool(keywords.keys() & {"text", "universal_newlines"})
    modes = "".join([*map(ast.unparse, call.args), keywords.get("mode", "")])
    is_binary = re.search("""['"][rwax+]*b""", modes)
    return name in ("read_text", "write_text") or (name in ("open", "fdopen") and not is_binary)


# --- what helps where nothing can be written ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "inside", "mend"),
    [
        (errno.EROFS, True, "set REIDLIB_HOME to a folder you can write to"),
        (errno.EACCES, True, "set REIDLIB_HOME to a folder you can write to"),
        (errno.ENOTDIR, True, "set REIDLIB_HOME to a folder you can write to"),
        (errno.EACCES, False, "choose a folder you can write to"),
        (errno.ENOSPC, True, "free some disk space"),
        (errno.EDQUOT, False, "free some disk space"),
        (errno.ENAMETOOLONG, True, "choose shorter names"),
        (errno.ENAMETOOLONG, False, "choose shorter names"),
    ],
)
def test_the_mend_is_one_that_helps(tmp_path, monkeypatch, number, inside, mend):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    path = tmp_path / ("home/data" if inside else "other") / "file"
    assert write_error(path, OSError(number, os.strerror(number))).mend.startswith(mend)


@pytest.mark.skipif(os.name != "posix", reason="asks for processes by signal 0")
def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from reidlib.files import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda partial: (partial.touch(), os._exit(1)))"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.json"], check=False)
    (tmp_path / ".b.json.123.partial").touch()  # of a process that another machine may have
    assert len(list(tmp_path.iterdir())) == 2
    alive = files.hidden_file(tmp_path / "c.json", f"{os.getppid()}{files._PARTIAL}")
    alive.touch()
    files.write_json(tmp_path / "b.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"b.json", ".b.json.123.partial", alive.name}


def test_what_another_user_was_writing_is_left(tmp_path, monkeypatch):
    partial = hidden_file(tmp_path / "a.json", f"{2**22 + 1}{files._PARTIAL}")  # of no process
    partial.touch()

    def refuse(path, **_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    with monkeypatch.context() as patch:  # as in a folder of which each user removes only his own files
        patch.setattr(Path, "unlink", refuse)
        files.write_json(tmp_path / "b.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"b.json", partial.name}


def test_the_former_name_of_the_module_is_an_alias():
    from reidlib import locations

    assert locations is files


def test_a_process_holds_one_home_at_a_time(tmp_path, monkeypatch):
    """Also if a home is made only later, or removed and made again."""
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    assert files.use_home()
    for number in range(20):
        build_once(tmp_path / "home" / "lock", lambda: None, lambda: 1)
        (status,) = files._HOME_LOCK
        assert status == ((tmp_path / "home").stat().st_dev, (tmp_path / "home").stat().st_ino)
        (tmp_path / "home").rename(tmp_path / f"home{number}")
    assert files.use_home(alone=True)  # there is none


def test_use_of_a_home_is_shared_or_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path))
    program = "import sys; from reidlib import files; print(files.use_home(alone=sys.argv[1] == 'alone'))"

    def other(how):
        command = [sys.executable, "-c", program, how]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert files.use_home()
    assert (other("shared"), other("alone")) == ("True", "False")
    assert files.use_home(alone=True) and other("alone") == "False"
    assert files.use_home() and other("shared") == "True"
    os.close(files._HOME_LOCK.popitem()[1])
    assert other("alone") == "True"
