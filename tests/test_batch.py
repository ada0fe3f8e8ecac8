"""``tcmr batch``: what a corpus is, the manifest, workers that die, runs that are killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Thread

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.batch import run, worker
from lib.batch.films import Film, find_films
from lib.batch.manifest import Record, open_manifest, read_records
from lib.batch.processes import ProcessWorker
from lib.batch.run import BatchOptions, report, run_batch
from lib.batch.schedule import work_through
from lib.batch.worker import Worker
from lib.commands import batch as command
from lib.demo.options import DemoOptions
from lib.demo.pipeline import run_demo
from lib.motion.exporters import EXPORTERS
from lib.utils.errors import UserError
from lib.utils.files import only_process
from lib.utils.paths import DOWNLOADS
from lib.video.video_file import VideoFile
from lib.video.writer import VideoWriter
from tests.batch_tools import Errand, Errands, attempts

REPOSITORY = Path(__file__).resolve().parents[1]
RECORD = Record(film="a.mp4", status="done", size=1, mtime_ns=2, options="d", folder="a.mp4", files={"x": 3})


def wait_until(true: Callable[[], object], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


# --------------------------------------------------------------------------------
# The corpus


def test_films_of_a_folder(tmp_path):
    wanted = ["a.mp4", "a.MOV", "sub/a.mp4", "sub/deep er/b.mkv"]
    for name in [*wanted, "a.txt", ".hidden.mp4", ".cache/c.mp4", "out/a.mp4/tcmr_a_output.mp4", "sub/mp4"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    films = find_films(tmp_path, tmp_path / "out")
    assert [film.name for film in films] == sorted(wanted)
    assert [film.folder for film in films] == sorted(wanted)
    assert all(film.path == tmp_path / film.name for film in films)


def test_films_of_a_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"# films\n\nb.mp4\n sub/../a.mp4 \na.mp4\n../other/c.mp4\n{tmp_path}/sub/d.any\n")
    films = find_films(path, tmp_path)
    outside = (tmp_path.parent / "other" / "c.mp4").as_posix()
    assert [film.name for film in films] == sorted(["a.mp4", "b.mp4", "sub/d.any", outside[1:]])
    assert {film.path for film in films} >= {Path(outside), tmp_path / "sub" / "d.any"}


def test_no_films_are_a_mistake(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "nul.txt").write_text("a.mp4\nb\0.mp4\n")
    (tmp_path / "twice.txt").write_text("x/a.mp4\n/x/a.mp4\n")
    for name, said in [
        ("absent", "does not exist"),
        ("film.mp4", "is no text"),
        ("empty", "holds no videos; expected files that end in .3gp"),
        ("empty.txt", "holds no videos; expected one path per line"),
        ("nul.txt", "line 2 holds a NUL character"),
        ("twice.txt", "line 2: the results of /x/a.mp4 would replace those of .*named x/a.mp4"),
    ]:
        with pytest.raises(UserError, match=said):
            find_films(tmp_path / name, tmp_path / "out")


PART = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=100).filter(
    lambda text: text not in (".", "..")
)


@given(st.lists(PART, min_size=1, max_size=2), st.lists(PART, min_size=1, max_size=2))
def test_no_two_films_share_a_folder(one, other):
    folders = [Film("/".join(parts), Path("x")).folder for parts in (one, other)]
    assert (folders[0] == folders[1]) == (one == other)
    for folder in folders:
        assert folder.isprintable()
        assert all(len(os.fsencode(part)) <= 200 for part in PurePosixPath(folder).parts)


# --------------------------------------------------------------------------------
# The manifest


def test_records_survive_a_torn_line(tmp_path):
    """Wherever a kill cuts the file, what was complete is there, and so is what is appended afterwards."""
    records = [replace(RECORD, film=name, finished=float(i)) for i, name in enumerate("abc")]
    with open_manifest(tmp_path) as manifest:
        for record in records:
            manifest.append(record)
    content = manifest.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    added = replace(RECORD, film="added")
    for cut in range(0, len(content) + 1, 7):
        manifest.path.write_bytes(content[:cut])
        with open_manifest(tmp_path) as manifest:
            manifest.append(added)
        complete = sum(end <= cut + 1 for end in ends)  # the line break alone may be missing
        assert list(read_records(tmp_path).values()) == [*records[:complete], added]


def test_the_newest_record_of_all_manifests_counts(tmp_path):
    for part, time_ in (("-1-of-2", 5.0), ("", 7.0), ("-2-of-2", 6.0)):
        with open_manifest(tmp_path, part) as manifest:
            manifest.append(replace(RECORD, finished=time_, reason=part))
    assert read_records(tmp_path) == {"a.mp4": replace(RECORD, finished=7.0)}


@pytest.mark.parametrize(
    "line", ["[]", "{}", "7", "\\", '{"film": 3}', "[" * 100_000, json.dumps(vars(RECORD) | {"files": 3})]
)
def test_foreign_lines_are_told(tmp_path, caplog, line):
    (tmp_path / "manifest.jsonl").write_text(f"{line}\n{json.dumps(vars(RECORD))}\n")
    assert read_records(tmp_path) == {"a.mp4": RECORD}
    assert caplog.messages == [f"{tmp_path}/manifest.jsonl, line 1 is no record of a film and is left out"]


def test_one_run_at_a_time_writes_a_manifest(tmp_path):
    with (
        open_manifest(tmp_path),
        open_manifest(tmp_path, "-1-of-2"),
        pytest.raises(UserError, match=r"another run works for .*manifest\.jsonl; wait"),
        open_manifest(tmp_path),
    ):
        pass
    assert not any(tmp_path.iterdir())  # nothing became of any film
    with open_manifest(tmp_path) as manifest:
        manifest.append(RECORD)
    with open_manifest(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]


def test_failures_are_reported_by_reason():
    def failed(film: str, reason: str) -> Record:
        return replace(RECORD, film=film, status="failed", reason=reason)

    text = report(
        [
            replace(RECORD, frames=30, people=2, duration=3600.0),
            failed("x/a.mp4", "a (3 frames): nobody was found; expected people"),
            failed("b.mp4", "b (12 frames): nobody was found; expected people"),
            failed("x/c.mp4", "x/c.mp4: no such video file"),
        ]
    )
    assert text.splitlines() == [
        "1 videos done: 1 hours, 30 frames, 2 people",
        "3 failed:",
        "      2  ... (N frames): nobody was found (x/a.mp4, ...)",
        "      1  ...: no such video file (x/c.mp4)",
    ]


# --------------------------------------------------------------------------------
# Workers that die


class Obedient:
    """A worker in this process. A job is (name, deaths): it dies that many times first."""

    alive = 0

    def __init__(self, tried: Counter[str]) -> None:
        self._tried = tried
        self._stopped = False
        Obedient.alive += 1

    def submit(self, method: str, *args) -> Future:
        assert not self._stopped
        future: Future = Future()
        if method == "load":
            future.set_result(None)
            return future
        ((name, deaths),) = args
        self._tried[name] += 1
        if self._tried[name] <= deaths:
            future.set_exception(RuntimeError(f"{name} died"))
        else:
            future.set_result(name)
        return future

    def stop(self) -> None:
        assert not self._stopped
        self._stopped = True
        Obedient.alive -= 1


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(1, 4), st.integers(0, 3))
def test_every_job_ends_once(deaths, workers, retries):
    Obedient.alive, tried = 0, Counter[str]()
    jobs = [(str(i), n) for i, n in enumerate(deaths)]
    ends = list(work_through(jobs, lambda _: Obedient(tried), workers, retries))
    assert sorted(job for job, _, _ in ends) == jobs
    assert Obedient.alive == 0
    for (name, n), result, tries in ends:
        assert tries == tried[name] == min(n, retries) + 1
        assert result == (name if n <= retries else f"{name} died")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=1, include_dashboard=False)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(params=["processes", "ray"])
def start(request, tmp_path) -> Iterator[Callable]:
    """Starts workers that run errands, on either engine."""
    make = partial(Errands, tmp_path)
    if request.param == "processes":
        yield lambda _: ProcessWorker(make)
        return
    address = request.getfixturevalue("ray_cluster")
    from lib.batch.cluster import ActorWorker, connected

    with connected(address, 1) as resources:
        assert resources["CPU"] == 2
        yield lambda _: ActorWorker(make, 1, 0)


def test_what_a_dead_worker_did_is_done_again(start, tmp_path):
    """One dies once by itself, one always, one is killed from outside; one has a fault of its own."""
    errands = [
        Errand("poison", deaths=9),
        Errand("once", deaths=1),
        Errand("faulty", fault="ValueError"),
        Errand("long", waits=True),
        *(Errand(f"e{i}") for i in range(4)),
    ]

    def kill() -> None:
        wait_until(lambda: attempts(tmp_path, "long"))
        os.kill(attempts(tmp_path, "long")[0], signal.SIGKILL)
        (tmp_path / "go").touch()

    killer = Thread(target=kill)
    killer.start()
    ends = {job.name: (result, tries) for job, result, tries in work_through(errands, start, 2, retries=1)}
    killer.join()
    assert ends.pop("long") == ("LONG", 2)
    assert ends.pop("once") == ("ONCE", 2)
    assert ends.pop("faulty") == ("ValueError: a fault", 2)
    reason, tries = ends.pop("poison")
    assert tries == 2
    assert "SIGKILL" in reason or "actor died" in reason
    assert ends == {f"e{i}": (f"E{i}", 1) for i in range(4)}
    counts = {errand.name: len(attempts(tmp_path, errand.name)) for errand in errands}
    assert counts == {"poison": 2, "once": 2, "faulty": 2, "long": 2} | {f"e{i}": 1 for i in range(4)}


def test_a_mistake_of_the_users_ends_the_run(start, tmp_path):
    with pytest.raises(UserError, match="a fault"):
        list(work_through([Errand("a", fault="UserError")], start, 1, retries=2))
    (tmp_path / "unusable").touch()
    with pytest.raises(UserError, match="no weights"):
        list(work_through([Errand("b")], start, 1, retries=2))
    assert attempts(tmp_path, "b") == []


def test_workers_end_with_their_parent(tmp_path):
    code = (
        "from functools import partial; from pathlib import Path\n"
        "from lib.batch.processes import ProcessWorker; from tests.batch_tools import Errand, Errands\n"
        f"worker = ProcessWorker(partial(Errands, Path({str(tmp_path)!r})))\n"
        "worker.submit('load'); worker.submit('run', Errand('long', waits=True)).result()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    try:
        wait_until(lambda: attempts(tmp_path, "long"))
        (process,) = attempts(tmp_path, "long")
        assert runs(process)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not runs(process))


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


# --------------------------------------------------------------------------------
# The whole command


class Here:
    """A worker in this process."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._worker = make()

    def submit(self, method: str, *args) -> Future:
        future: Future = Future()
        future.set_result(getattr(self._worker, method)(*args))
        return future

    def stop(self) -> None: ...


@pytest.fixture
def batch(monkeypatch, one_thread) -> Callable[..., list[Record]]:
    """Runs a batch without other processes."""
    monkeypatch.setattr(run, "ProcessWorker", Here)
    return lambda corpus, options, **own: run_batch(
        corpus, options, BatchOptions(**{"engine": "processes", "workers": 1} | own)
    )


def test_mistakes_are_told_before_the_work(tmp_path, capsys):
    (tmp_path / "a.mp4").touch()
    for argv, said in [
        (["--shard", "0/3"], "the part and the number of parts"),
        (["--shard", "4/3"], "the part and the number of parts"),
        (["--workers", "0"], "a number, 1 or more"),
        (["--retries", "-1"], "a number, 0 or more"),
        (["--gpus-per-worker", "2"], "a part of a GPU"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            command.main([str(tmp_path), *argv])
        assert said in capsys.readouterr().err
    out = ["--output_folder", str(tmp_path / "out")]
    for argv, said in [
        (["--view", "top"], r"--view: no video is drawn; expected --render"),
        (["--model", "absent.pth.tar"], "absent.pth.tar does not exist"),
        (["--engine", "processes", "--address", "auto"], "--address needs Ray"),
    ]:
        with pytest.raises(UserError, match=said):
            command.main([str(tmp_path), *argv, *out])
    assert not [*(tmp_path / "out").glob("*")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Two clips of one name with a person, and one file that is no film."""
    if not (DOWNLOADS / "demo.mp4").is_file():
        pytest.skip("open assets are not fetched")
    folder = tmp_path_factory.mktemp("corpus")
    source = VideoFile(DOWNLOADS / "demo.mp4")
    timed = [pair for pair, _ in zip(source.timed(), range(14))]
    for name, first, end in (("a.mp4", 0, 8), ("sub/a.mp4", 4, 14)):
        (folder / name).parent.mkdir(exist_ok=True)
        with VideoWriter(folder / name, source.info.fps) as writer:
            for moment, frame in timed[first:end]:
                small = cv2.resize(frame, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
                writer.write(small, moment - timed[first][0])
    (folder / "broken.avi").write_bytes(b"RIFF")
    return folder


PLUGIN = """
from tcmr.motion.exporters import EXPORTERS

@EXPORTERS.register("frames")
def export(scene, body, folder):
    (folder / "frames.txt").write_text(str(scene.n_frames))
    return [folder / "frames.txt"]
"""


@pytest.fixture
def plugin(tmp_path) -> Iterator[Path]:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    yield path
    EXPORTERS.pop("frames", None)


def test_a_killed_run_goes_on_and_gives_what_single_runs_give(
    corpus, tmp_path, capsys, ray_cluster, one_thread, plugin
):
    """Killed while it works in processes; it goes on with two actors on two nodes. Plugins get there, too."""
    out = tmp_path / "out"
    arguments = [str(corpus), "--output_folder", str(out), "--detector", "full", "--export", "json,frames"]
    arguments += ["--plugin", str(plugin)]
    killed = subprocess.Popen(
        [sys.executable, "-m", "lib", "batch", *arguments, "--engine", "processes", "--workers", "1"],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: read_records(out))
    killed.kill()
    killed.wait()
    before = read_records(out)
    assert "sub/a.mp4" in before  # the largest is first

    with pytest.raises(SystemExit, match="1"):
        command.main([*arguments, "--engine", "ray", "--address", ray_cluster])
    said = capsys.readouterr().out
    assert "2 videos done" in said
    assert "1 failed:\n      1  ...: cannot be opened" in said
    lines = [json.loads(line)["film"] for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert sorted(lines) == ["a.mp4", "broken.avi", "sub/a.mp4"]  # nothing twice
    records = read_records(out)
    assert all(records[name] == record for name, record in before.items())
    for name, frames in (("a.mp4", 8), ("sub/a.mp4", 10)):
        alone = tmp_path / "alone" / name
        (single, *_) = run_demo(
            DemoOptions(
                vid_file=str(corpus / name),
                output_folder=str(alone),
                detector="full",
                render=False,
                export=("json", "frames"),
            )
        )
        for file in ("tcmr_output.npz", "scene.json", "frames.txt"):
            assert (out / name / file).read_bytes() == (single.parent / file).read_bytes()
        assert records[name].frames == frames
        assert records[name].files == {path.name: path.stat().st_size for path in (out / name).iterdir()}


def test_only_what_changed_is_done_again(corpus, tmp_path, batch, caplog):
    caplog.set_level("INFO")

    def done(retry_failed=False, **changed) -> tuple[str, list[Record]]:
        caplog.clear()
        records = batch(films, replace(options, **changed), retry_failed=retry_failed)
        said = next(text for text in caplog.messages if "to do:" in text)
        return said, sorted(records, key=lambda record: record.film)

    films, out = tmp_path / "films", tmp_path / "out"
    shutil.copytree(corpus, films)
    options = DemoOptions(output_folder=str(out), detector="full", render=False, export=("bvh",))
    said, first = done()
    assert said == "3 videos, 0 need nothing, to do: 3 new"
    manifest = (out / "manifest.jsonl").read_bytes()
    assert done() == ("3 videos, 3 need nothing, to do: 0", first)
    assert (out / "manifest.jsonl").read_bytes() == manifest

    os.utime(films / "a.mp4", ns=(1, 1))
    (out / "sub" / "a.mp4" / "tcmr_output.npz").unlink()
    said, again = done(device="cpu")  # where it is done makes no difference
    assert said == "3 videos, 1 need nothing, to do: 1 of changed videos, 1 whose results are gone"
    assert {r.film: r.files for r in again} == {r.film: r.files for r in first}

    assert (out / "a.mp4" / "person_1.bvh").is_file()
    (out / "a.mp4" / "notes.txt").touch()
    said, _ = done(export=())
    assert said == "3 videos, 0 need nothing, to do: 3 with other options or weights than before"
    assert {path.name for path in (out / "a.mp4").iterdir()} == {"tcmr_output.npz", "notes.txt"}
    said, records = done(retry_failed=True, export=())
    assert said == "3 videos, 2 need nothing, to do: 1 that failed before"
    assert [record.status for record in records] == ["done", "failed", "done"]


def test_films_of_another_run_are_left_to_it(tmp_path, batch, monkeypatch, caplog):
    monkeypatch.setattr(worker, "load_engine", lambda options: options)
    (tmp_path / "a.avi").write_bytes(b"RIFF")
    options = DemoOptions(output_folder=str(tmp_path / "out"), detector="full", render=False)
    with only_process(tmp_path / "out" / "a.avi"):
        assert batch(tmp_path, options) == []
    assert caplog.messages == ["a.avi is left to another run that works on it"]
    assert [record.status for record in batch(tmp_path, options)] == ["failed"]


def test_another_corpus_replaces_no_results(tmp_path, batch, monkeypatch):
    monkeypatch.setattr(worker, "load_engine", lambda options: options)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.avi").write_bytes(b"RIFF")
    (tmp_path / "link").symlink_to("one")
    options = DemoOptions(output_folder=str(tmp_path / "out"), detector="full", render=False)
    assert (
        len({record.finished for name in ("one", "link") for record in batch(tmp_path / name, options)}) == 1
    )
    with pytest.raises(UserError, match=r"results of another folder.* give another --output_folder"):
        batch(tmp_path / "other", options)
    manifest = tmp_path / "out" / "manifest.jsonl"
    old = json.loads(manifest.read_text())
    del old["corpus"]  # of a version that did not tell
    manifest.write_text(json.dumps(old) + "\n")
    assert batch(tmp_path / "other", options)[0].finished > old["finished"]


def test_a_full_disk_ends_the_run(tmp_path, batch, monkeypatch):
    """It is no fault of the film's, so that no film is recorded as failed."""

    def full(*_) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise UserError("cannot write x (No space left on device)") from error

    monkeypatch.setattr(worker, "load_engine", lambda options: options)
    monkeypatch.setattr(worker, "recover", full)
    monkeypatch.setattr(worker, "open_source", lambda options: None)
    (tmp_path / "a.avi").touch()
    with pytest.raises(UserError, match="No space left"):
        batch(tmp_path, DemoOptions(output_folder=str(tmp_path / "out"), detector="full", render=False))
    assert read_records(tmp_path / "out") == {}


def test_shards_share_the_films_out(tmp_path, batch, monkeypatch):
    monkeypatch.setattr(worker, "load_engine", lambda options: options)
    for i in range(5):
        (tmp_path / f"{i}.avi").write_bytes(b"RIFF")
    options = DemoOptions(output_folder=str(tmp_path / "out"), detector="full", render=False)
    shares = [{record.film for record in batch(tmp_path, options, shard=(i, 2))} for i in (1, 2)]
    assert sorted(map(len, shares)) == [2, 3]
    assert shares[0] | shares[1] == {f"{i}.avi" for i in range(5)}
    assert len(batch(tmp_path, options)) == 5  # nothing is left to do for a run that is not shared
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("own", "device", "devices"),
    [
        ({"workers": 4}, "auto", ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        ({"workers": 2, "gpus_per_worker": 0.5}, "auto", ["cuda:0", "cuda:0"]),
        ({"workers": 8, "gpus_per_worker": 1.0}, "cuda", ["cuda:0", "cuda:1"]),
        ({"workers": 2, "gpus_per_worker": 0.0}, "auto", ["cpu", "cpu"]),
        ({"workers": 2}, "cpu", ["cpu", "cpu"]),
    ],
)
def test_workers_share_the_gpus(tmp_path, batch, monkeypatch, own, device, devices):
    """Two are pretended to be there."""
    used: list[str] = []
    monkeypatch.setattr(run.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(worker, "load_engine", lambda options: used.append(options.device) or options)
    for i in range(6):
        (tmp_path / f"{i}.avi").write_bytes(b"RIFF")
    options = DemoOptions(output_folder=str(tmp_path / "out"), detector="full", render=False, device=device)
    batch(tmp_path, options, **own)
    assert used == devices


def test_the_array_job_is_a_command_line(tmp_path):
    """What the SLURM example runs is understood, with its share of the videos."""
    said = subprocess.run(
        ["bash", REPOSITORY / "scripts" / "slurm_batch.sh", "my films", "out", "--export", "bvh"],
        env=os.environ
        | {"TCMR": "printf %s\\n", "SLURM_CPUS_PER_TASK": "16"}
        | {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "100"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said.pop(0) == "batch"
    args = command.parse_args(said)
    assert (args.corpus, args.output_folder, args.shard, args.workers) == ("my films", "out", (3, 100), 16)
    assert args.export == ["bvh"]
