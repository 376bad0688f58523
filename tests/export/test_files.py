"""What is written appears whole or not at all, and nothing is left beside it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_rnnkit as rk
from keras_rnnkit.export.atomic_writes import atomic_write

ROOT = Path(__file__).parents[2]
WRITER = """
import sys, time
from pathlib import Path
sys.argv = [""]
sys.path.insert(0, {folder!r})
from atomic_writes import atomic_write
with atomic_write({path!r}, folder={as_folder}) as new:
    {write}
    print("writing", flush=True)
    time.sleep(100)
"""


def writer(path, as_folder=False):
    """A process that is writing."""
    write = "new.mkdir(); (new / 'part').touch()" if as_folder else "new.touch()"
    folder = str(ROOT / "keras_rnnkit" / "export")  # the file alone needs no TensorFlow
    code = WRITER.format(
        folder=folder, path=str(path), as_folder=as_folder, write=write
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, text="new"):
    with atomic_write(path) as new:
        new.write_text(text)


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_what_a_killed_export_left_goes_at_the_next_one(tmp_path):
    alive = writer(tmp_path / "alive")
    killed = [writer(tmp_path / "killed"), writer(tmp_path / "killed", as_folder=True)]
    for process in killed:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert len(names(tmp_path)) == 3
    write(tmp_path / "m")
    # That of the living one stays, whose name is its own.
    assert len(names(tmp_path)) == 2
    assert list(tmp_path.glob(".export-*/new"))
    alive.kill()
    alive.wait()
    alive.stdout.close()
    write(tmp_path / "m", "newer")
    assert names(tmp_path) == ["m"]
    assert (tmp_path / "m").read_text() == "newer"


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_an_export_killed_between_old_and_new_gives_the_old_one_back(tmp_path):
    work = tmp_path / ".export-abcdefgh"
    (work / "old" / "saved").mkdir(parents=True)
    (work / "old" / "saved" / "saved_model.pb").touch()
    (work / "new").mkdir()
    write(tmp_path / "m")
    assert names(tmp_path) == ["m", "saved"]
    assert names(tmp_path / "saved") == ["saved_model.pb"]


def test_what_is_not_of_an_export_stays(tmp_path):
    (tmp_path / ".export-mine").mkdir()
    (tmp_path / ".export-abcdefgh").mkdir()
    (tmp_path / ".export-abcdefgh" / "thesis.tex").touch()
    (tmp_path / ".export-abcdefgi").touch()
    before = names(tmp_path)
    write(tmp_path / "m")
    assert names(tmp_path) == sorted([*before, "m"])


def test_an_error_leaves_what_was_there(tmp_path):
    write(tmp_path / "m", "old")

    def fail():
        with atomic_write(tmp_path / "m") as new:
            new.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == ["m"]
    assert (tmp_path / "m").read_text() == "old"


def test_many_write_into_one_folder_at_once(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "keras_rnnkit" / "export")!r})
from atomic_writes import atomic_write
for number in range(200):
    with atomic_write({str(tmp_path)!r} + f"/{{sys.argv[1]}}-{{number % 3}}") as new:
        new.write_text(sys.argv[1])
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(4)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert names(tmp_path) == sorted(f"{n}-{m}" for n in range(4) for m in range(3))
    for path in tmp_path.iterdir():
        assert path.read_text() == path.name[0]


def model():
    return keras.Sequential([keras.Input((4, 3)), rk.LSTM(2)])


def test_the_folder_around_a_file_must_exist(tmp_path):
    (tmp_path / "text").write_text("")
    for export in rk.export_tflite, rk.export_saved_model:
        with pytest.raises(FileNotFoundError, match="there is no folder `.*mistyped`"):
            export(model(), tmp_path / "mistyped" / "m")
        with pytest.raises(NotADirectoryError, match="there is no folder `.*text`"):
            export(model(), tmp_path / "text" / "m")
    assert names(tmp_path) == ["text"]


def test_a_file_takes_no_folders_place_nor_a_folder_a_files(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("kept")
    with pytest.raises(IsADirectoryError, match="must be a file to write; .*folder`"):
        rk.export_tflite(model(), tmp_path / "folder")
    with pytest.raises(NotADirectoryError, match="must be a folder to write; .*file`"):
        rk.export_saved_model(model(), tmp_path / "file")
    with pytest.raises(FileExistsError, match=r"or a SavedModel.*\['thesis.tex'\]"):
        rk.export_saved_model(model(), tmp_path / "folder")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "kept"
    assert (tmp_path / "file").read_text() == "kept"


def test_a_saved_model_takes_the_place_of_one(tmp_path):
    (tmp_path / "saved").mkdir()
    for _ in range(2):  # an empty folder, and then a SavedModel
        rk.export_saved_model(model(), tmp_path / "saved")
        assert "saved_model.pb" in names(tmp_path / "saved")
    assert names(tmp_path) == ["saved"]
