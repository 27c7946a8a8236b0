import hashlib
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import ModelError
from ktrdr.models.directory import SUMS_FILE, ModelDirectory, version_name

FILES = {
    "model.safetensors": b"weights" * 100,
    "metadata.json": b"{}",
    "strategy.yaml": b"name: momentum",
    "evaluation.parquet": b"PAR1",
    "report.html": b"<html>",
}
NAME = "momentum/EURUSD_1h_v1"


@pytest.fixture
def directory(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path / "models")


def _names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_a_published_version_has_its_files_and_their_hashes(directory: ModelDirectory) -> None:
    staged = directory.stage(FILES, owner="me")
    path = directory.publish(staged, NAME)

    assert path == directory.root / "momentum" / "EURUSD_1h_v1"
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert staged.files["metadata.json"].sha256 == hashlib.sha256(b"{}").hexdigest()
    assert directory.verify(NAME, staged.files) == []
    assert _names(directory.root / ".staging") == []


def test_the_hashes_can_be_checked_with_coreutils(directory: ModelDirectory) -> None:
    path = directory.publish(directory.stage(FILES, owner="me"), NAME)
    check = subprocess.run(
        ["sha256sum", "-c", SUMS_FILE], cwd=path, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0
    assert check.stdout.count(": OK") == len(FILES)


def test_staged_files_are_no_version_until_they_are_published(directory: ModelDirectory) -> None:
    staged = directory.stage(FILES, owner="me")
    assert _names(directory.root) == [".staging"]
    directory.discard(staged)
    assert _names(directory.root / ".staging") == []


def test_a_changed_a_missing_and_an_extra_file_are_found(directory: ModelDirectory) -> None:
    staged = directory.stage(FILES, owner="me")
    path = directory.publish(staged, NAME)
    weights = bytearray(FILES["model.safetensors"])
    weights[17] ^= 1
    (path / "model.safetensors").write_bytes(weights)
    (path / "metadata.json").unlink()
    (path / "more.txt").write_text("hello")

    findings = {finding.file: finding.problem for finding in directory.verify(NAME, staged.files)}

    assert set(findings) == {"model.safetensors", "metadata.json", "more.txt"}
    assert "other content" in findings["model.safetensors"]
    assert findings["metadata.json"] == "is missing"
    assert findings["more.txt"] == "is not part of the model"


def test_hashes_that_were_rewritten_to_fit_a_changed_file_do_not_help(directory: ModelDirectory) -> None:
    staged = directory.stage(FILES, owner="me")
    path = directory.publish(staged, NAME)
    (path / "metadata.json").write_bytes(b"[]")
    sums = (path / SUMS_FILE).read_text()
    old, new = hashlib.sha256(b"{}").hexdigest(), hashlib.sha256(b"[]").hexdigest()
    (path / SUMS_FILE).write_text(sums.replace(old, new))

    assert {finding.file for finding in directory.verify(NAME, staged.files)} == {"metadata.json", SUMS_FILE}


def test_a_file_that_became_a_link_to_the_same_content_is_found(
    directory: ModelDirectory, tmp_path: Path
) -> None:
    staged = directory.stage(FILES, owner="me")
    path = directory.publish(staged, NAME)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(FILES["report.html"])
    (path / "report.html").unlink()
    (path / "report.html").symlink_to(elsewhere)
    assert [str(finding) for finding in directory.verify(NAME, staged.files)] == [
        "report.html: is not a file"
    ]


def test_a_version_that_is_gone_is_found(directory: ModelDirectory) -> None:
    staged = directory.stage(FILES, owner="me")
    directory.discard(staged)
    assert [str(finding) for finding in directory.verify(NAME, staged.files)] == [
        f"{NAME}: the directory is missing"
    ]


def test_the_same_model_left_by_a_crash_before_the_commit_are_replaced(directory: ModelDirectory) -> None:
    directory.publish(directory.stage({**FILES, "report.html": b"of yesterday"}, owner="dead"), NAME)
    staged = directory.stage(FILES, owner="me")
    directory.publish(staged, NAME)
    assert directory.verify(NAME, staged.files) == []
    assert _names(directory.root) == [".staging", "momentum"]
    assert _names(directory.root / ".staging") == []


def test_other_files_in_the_way_of_a_version_are_kept_aside(directory: ModelDirectory) -> None:
    directory.publish(directory.stage({"model.safetensors": b"precious"}, owner="dead"), NAME)
    os.utime(directory.path(NAME), (0, 0))
    staged = directory.stage(FILES, owner="me")
    directory.publish(staged, NAME)

    assert directory.verify(NAME, staged.files) == []
    assert directory.replaced(datetime(1990, 1, 1, tzinfo=UTC)) == []  # its age counts from here
    (kept,) = (directory.root / ".replaced").iterdir()
    assert kept.name.startswith("momentum.EURUSD_1h_v1~")
    assert (kept / "model.safetensors").read_bytes() == b"precious"


def test_a_version_can_be_taken_back_but_not_another_process_s(directory: ModelDirectory) -> None:
    mine, other = directory.stage(FILES, owner="me"), directory.stage(FILES, owner="other")
    path = directory.publish(mine, NAME)
    directory.take_back(mine, NAME)
    assert not path.exists()

    directory.publish(other, NAME)
    directory.take_back(mine, NAME)
    assert path.exists()


def test_what_was_never_published_need_not_be_taken_back(directory: ModelDirectory) -> None:
    staged = directory.stage(FILES, owner="me")
    directory.take_back(staged, NAME)
    assert staged.path.exists()


def test_latest_leads_to_the_version_and_moves_on(directory: ModelDirectory) -> None:
    for version in (1, 2):
        name = version_name("momentum", "EURUSD", "1h", version)
        directory.publish(directory.stage(FILES, owner="me"), name)
        directory.point_latest("momentum", "EURUSD", "1h", version, owner="me")
    link = directory.root / "momentum" / "EURUSD_1h_latest"
    assert link.readlink() == Path("EURUSD_1h_v2")
    assert (link / "metadata.json").read_bytes() == b"{}"
    assert _names(directory.root / ".staging") == []


def test_a_directory_in_the_place_of_latest_is_not_replaced(directory: ModelDirectory) -> None:
    directory.publish(directory.stage(FILES, owner="me"), NAME)
    (directory.root / "momentum" / "EURUSD_1h_latest").mkdir()
    with pytest.raises(ModelError, match="is not a link"):
        directory.point_latest("momentum", "EURUSD", "1h", 1, owner="me")


def test_what_dead_processes_staged_is_removed_and_the_rest_stays(directory: ModelDirectory) -> None:
    directory.stage(FILES, owner="dead")
    alive = directory.stage(FILES, owner="alive")
    assert directory.remove_leftovers(lambda owner: owner != "alive") == 1
    assert list((directory.root / ".staging").iterdir()) == [alive.path]


def test_there_is_nothing_to_remove_where_nothing_was_written(directory: ModelDirectory) -> None:
    assert directory.remove_leftovers(lambda _owner: True) == 0
    assert not directory.root.exists()


BAD_PARTS = ["..", ".", "", "a/b", "/etc", ".hidden", "a\x00b", "a\nb", "ä", "a" * 129, "a b", "-x"]


@pytest.mark.parametrize("part", BAD_PARTS)
def test_a_part_of_a_name_that_could_lead_elsewhere_is_refused(directory: ModelDirectory, part: str) -> None:
    for parts in ((part, "EURUSD", "1h"), ("momentum", part, "1h"), ("momentum", "EURUSD", part)):
        with pytest.raises(ModelError):
            version_name(*parts, 1)
    with pytest.raises(ModelError):
        directory.path(f"{part}/EURUSD_1h_v1")
    with pytest.raises(ModelError):
        directory.stage({part: b""}, owner="me")


@given(st.text(max_size=40))
def test_a_path_is_two_levels_below_the_root_or_refused(name: str) -> None:
    directory = ModelDirectory(Path("/models"))
    try:
        path = directory.path(name)
    except ModelError:
        return
    assert Path(os.path.normpath(path)) == path
    assert path.parent.parent == directory.root


def test_a_strategy_that_is_a_link_is_refused_and_nothing_is_written_through_it(
    directory: ModelDirectory, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    directory.root.mkdir()
    (directory.root / "momentum").symlink_to(outside)
    with pytest.raises(ModelError, match="is a link"):
        directory.publish(directory.stage(FILES, owner="me"), NAME)
    assert list(outside.iterdir()) == []


def test_a_version_that_is_a_link_is_moved_away_not_followed(
    directory: ModelDirectory, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (directory.root / "momentum").mkdir(parents=True)
    (directory.root / NAME).symlink_to(outside)
    directory.publish(directory.stage(FILES, owner="me"), NAME)
    assert not (directory.root / NAME).is_symlink()
    assert list(outside.iterdir()) == []


def test_the_sums_file_cannot_come_from_a_bundle(directory: ModelDirectory) -> None:
    with pytest.raises(ModelError):
        directory.stage({SUMS_FILE: b""}, owner="me")


def test_a_models_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(ModelError, match="cannot be written") as error:
        ModelDirectory(tmp_path / "models").stage(FILES, owner="me")
    assert "KTRDR_MODELS_DIR" in (error.value.fix or "")
