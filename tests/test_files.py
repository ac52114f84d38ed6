"""Writing: whole or not at all, never through a link, and nothing is left of what failed or was killed."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning import files, pictures
from gan_lightning.errors import UserError


def writers():
    """Whoever writes: (name, what writes it)."""
    weights = {"w": torch.zeros(100_000)}
    picture = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)
    array = np.zeros(100_000)
    frames = [
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (64, 64, 3), np.uint8))
        for k in range(3)
    ]
    return {
        "last.ckpt": lambda path: files.write_whole(path, lambda file: torch.save(weights, file), durable=True),
        "image.png": lambda path: pictures.save(picture, path),
        "film.gif": lambda path: pictures.save_film(frames, path, 100),
        "array.npy": lambda path: files.write_whole(path, lambda file: np.save(file, array)),
        "arrays.npz": lambda path: files.write_whole(path, lambda file: np.savez_compressed(file, a=np.random.rand(5000))),
        "text.md": lambda path: files.write_text(path, "x" * 5000),
    }  # fmt: skip


@pytest.mark.parametrize("name", writers())
def test_a_full_disk_names_the_file_and_leaves_the_last_good_one(name, full_disk, tmp_path):
    path, write = tmp_path / name, writers()[name]
    write(path)
    good = path.read_bytes()
    full_disk(3000)
    with pytest.raises(OSError) as error:
        write(path)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert path.read_bytes() == good
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_what_is_appended_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "signals.jsonl"
    files.append_text(path, "one\n")
    files.append_text(path, "two\n")
    assert path.read_text() == "one\ntwo\n"
    limit = (
        "import resource, signal, sys; from gan_lightning.files import append_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "try: append_text(sys.argv[1], 'x' * 100)\n"
        "except OSError as error: print(error.filename)"
    )
    out = subprocess.run(
        [sys.executable, "-c", limit, str(path)], capture_output=True, text=True
    ).stdout
    assert out.strip() == str(path)
    assert path.read_text() == "one\ntwo\n"


def test_nothing_is_appended_through_a_link_a_second_name_or_a_pipe(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine\n")
    link, twin, pipe, dangling = (tmp_path / name for name in ("link", "twin", "pipe", "dangling"))
    link.symlink_to(secret)
    os.link(secret, twin)
    os.mkfifo(pipe)
    dangling.symlink_to(tmp_path / "made")
    for path in (link, twin, pipe, dangling):
        files.append_text(path, "more\n")
        assert path.is_file() and not path.is_symlink() and path.read_text().endswith("more\n")
    assert secret.read_text() == "mine\n" and twin.read_text() == "mine\nmore\n"
    assert not (tmp_path / "made").exists()


def test_nothing_is_written_whole_through_a_link(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for name, write in writers().items():
        (tmp_path / name).symlink_to(secret)
        write(tmp_path / name)
        assert not (tmp_path / name).is_symlink() and secret.read_text() == "mine"


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="images is a link"):
        files.no_links(tmp_path, "checkpoints", "images")
    files.no_links(tmp_path, "checkpoints", "elsewhere")


def test_only_what_dead_processes_left_is_cleared(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host, dead, alive = files._HOST, gone.pid, os.getppid()
    left = [f".last.ckpt.{host}-{dead}-ab12.partial", f".x.{host}-{os.getpid()}-ab12.partial"]
    kept = [
        f".last.ckpt.{host}-{alive}-ab12.partial",
        ".last.ckpt.elsewhere-1-ab12.partial",
        "mine.tmp",
        "photo.jpg",
    ]
    for name in left + kept:
        (tmp_path / name).write_text("x")
    old = tmp_path / ".last.ckpt.elsewhere-2-ab12.partial"
    old.write_text("x")
    os.utime(old, (time.time() - 7200,) * 2)
    files.clear_abandoned(tmp_path, tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_is_being_written_is_discarded_by_a_process_that_ends_at_once(tmp_path):
    def write(file):
        file.write(b"half")
        assert len(list(tmp_path.iterdir())) == 1
        files.discard_unfinished()
        assert not list(tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(Path(tmp_path) / "a", write)
    assert not list(tmp_path.iterdir())
