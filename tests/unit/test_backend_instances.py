import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ktrdr.backend.instances import Instances
from ktrdr.errors import DatabaseUnavailableError


@pytest.fixture
def instances(tmp_path: Path) -> Instances:
    return Instances(tmp_path / "instances")


def test_an_instance_is_alive_from_registration_to_release(instances: Instances) -> None:
    assert not instances.is_alive("me")
    lock = instances.register("me")
    assert instances.is_alive("me")
    lock.release()
    assert not instances.is_alive("me")
    lock.release()


def test_one_s_own_lock_is_seen_as_alive_by_others_and_by_oneself(
    instances: Instances, tmp_path: Path
) -> None:
    lock = instances.register("me")
    assert Instances(tmp_path / "instances").is_alive("me")
    lock.release()


@pytest.mark.fault
def test_a_killed_process_is_dead_at_once_even_if_its_child_lives(
    instances: Instances, tmp_path: Path
) -> None:
    script = (
        "import subprocess, sys, time; from pathlib import Path;"
        "from ktrdr.backend.instances import Instances;"
        f"lock = Instances(Path({str(tmp_path / 'instances')!r})).register('other');"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], close_fds=False);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert instances.is_alive("other")
    process.stdout.close()
    process.kill()
    process.wait()
    assert not instances.is_alive("other")
    os.kill(child, signal.SIGKILL)


def test_lock_files_of_the_dead_are_removed_and_those_of_the_living_are_not(
    instances: Instances, tmp_path: Path
) -> None:
    lock = instances.register("alive")
    (tmp_path / "instances" / "dead.lock").write_text("4711\n")
    assert instances.remove_stale() == ["dead"]
    assert instances.is_alive("alive")
    assert [path.name for path in (tmp_path / "instances").iterdir()] == ["alive.lock"]
    lock.release()


def test_registering_while_others_clean_up_always_ends_with_a_lock_that_is_seen(instances: Instances) -> None:
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            instances.remove_stale()

    cleaners = [threading.Thread(target=clean) for _ in range(3)]
    for cleaner in cleaners:
        cleaner.start()
    try:
        for number in range(200):
            lock = instances.register(f"instance-{number}")
            assert instances.is_alive(f"instance-{number}")
            lock.release()
    finally:
        stop.set()
        for cleaner in cleaners:
            cleaner.join()


def test_asking_from_several_threads_at_once_takes_nobody_for_alive(
    instances: Instances, tmp_path: Path
) -> None:
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / "dead.lock").write_text("")
    seen: list[bool] = []
    threads = [
        threading.Thread(target=lambda: seen.extend(instances.is_alive("dead") for _ in range(100)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False] * 400


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "instances").write_text("")
    with pytest.raises(DatabaseUnavailableError, match="cannot be written"):
        Instances(tmp_path / "instances").register("me")
