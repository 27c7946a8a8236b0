import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.errors import DatabaseUnavailableError, ModelNotFoundError, OperationNotFoundError
from ktrdr.events import StrategyDocument
from tests.unit.backend_cases import World, settings_in, started, wish


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=database_url) as world:
        yield world


def _of(name: str) -> StrategyDocument:
    return wish().strategy.model_copy(update={"name": name})


async def _model(world: World, strategy: str = "momentum", symbol: str = "EURUSD") -> str:
    run = await world.running(strategy=_of(strategy), symbol=symbol)
    await world.agent.finish(run, symbol=symbol)
    await world.pass_time()
    name = world.get(run).model
    assert name is not None
    return name


def test_reading_operations_needs_neither_torch_nor_pandas_nor_alembic() -> None:
    script = (
        "import sys; import ktrdr.backend.store;"
        "heavy = {'torch', 'pandas', 'numpy', 'alembic', 'obstore', 'plotly'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or None)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


# --- operations


async def test_operations_are_listed_newest_first_and_by_page(world: World) -> None:
    ids = [await world.submit() for _ in range(5)]
    newest_first = list(reversed(ids))
    assert [op.operation_id for op in world.store.list_operations()] == newest_first
    first = world.store.list_operations(limit=2)
    assert [op.operation_id for op in first] == newest_first[:2]
    rest = world.store.list_operations(before=first[-1].operation_id)
    assert [op.operation_id for op in rest] == newest_first[2:]


async def test_pages_lose_nothing_of_what_was_submitted_at_the_same_moment(world: World) -> None:
    ids = {(await world.backend.submit(wish())).operation.operation_id for _ in range(5)}
    assert len({op.created_at for op in world.store.list_operations()}) == 1
    seen: list[str] = []
    while page := world.store.list_operations(limit=2, before=seen[-1] if seen else None):
        seen += [op.operation_id for op in page]
    assert len(seen) == 5
    assert set(seen) == ids


async def test_operations_are_listed_by_state_and_strategy(world: World) -> None:
    await _model(world)
    queued = await world.submit()
    other = await world.submit(strategy=_of("other"))
    assert [op.operation_id for op in world.store.list_operations(state=State.QUEUED)] == [other, queued]
    assert [op.operation_id for op in world.store.list_operations(strategy="other")] == [other]
    assert world.store.list_operations(state=State.FAILED) == []


async def test_a_page_after_nothing_is_an_error(world: World) -> None:
    with pytest.raises(OperationNotFoundError):
        world.store.list_operations(before="op-nobody-knows")


async def test_an_operation_is_found_by_its_beginning_or_its_end(world: World) -> None:
    operation_id = await world.submit()
    for text in (operation_id, operation_id[:20], operation_id[-8:], operation_id[-3:]):
        assert world.store.find(text).operation_id == operation_id


async def test_what_several_ids_begin_with_is_answered_with_them(world: World) -> None:
    ids = [await world.submit() for _ in range(2)]
    with pytest.raises(OperationNotFoundError) as error:
        world.store.find("op-")
    assert all(operation_id in error.value.message for operation_id in ids)
    assert "Give more" in (error.value.fix or "")


async def test_an_id_with_a_typing_error_is_answered_with_the_nearest(world: World) -> None:
    operation_id = await world.submit()
    typed = f"{operation_id[:-3]}_{operation_id[-2:]}"
    with pytest.raises(OperationNotFoundError, match=f"Did you mean '{operation_id}'"):
        world.store.find(typed)


@pytest.mark.parametrize("text", ["", "%", "_", "op-%", "\0", "\0x", "'; DROP TABLE operations; --"])
async def test_what_is_no_id_finds_nothing(world: World, text: str) -> None:
    await world.submit()
    with pytest.raises(OperationNotFoundError):
        world.store.find(text)
    assert len(world.store.list_operations()) == 1


# --- models


async def test_models_are_listed_newest_first_by_strategy_and_by_page(world: World) -> None:
    names = [await _model(world), await _model(world, "other"), await _model(world)]
    assert [model.name for model in world.store.models.list_models()] == names[::-1]
    assert [model.name for model in world.store.models.list_models(limit=1)] == names[2:]
    assert [model.name for model in world.store.models.list_models(before=names[1])] == names[:1]
    assert [model.name for model in world.store.models.list_models(strategy="other")] == names[1:2]
    assert world.store.models.trained_strategies() == {"momentum": 2, "other": 1}
    with pytest.raises(ModelNotFoundError):
        world.store.models.list_models(before="momentum/EURUSD_1h_v9")


async def test_a_model_is_found_by_name_by_latest_and_by_strategy(world: World) -> None:
    await _model(world)
    await _model(world)
    find = world.store.models.find
    assert find("momentum/EURUSD_1h_v1").version == 1
    assert find("momentum/EURUSD_1h_latest").version == 2
    assert find("momentum").version == 2
    assert find("momentum/").version == 2


async def test_a_strategy_with_several_models_is_answered_with_the_newest_of_each(world: World) -> None:
    await _model(world)
    await _model(world, symbol="GBPUSD")
    with pytest.raises(ModelNotFoundError, match="EURUSD_1h_v1, momentum/GBPUSD_1h_v1"):
        world.store.models.find("momentum")
    assert world.store.models.find("momentum/GBPUSD_1h_latest").symbol == "GBPUSD"


async def test_a_model_that_is_not_there_is_answered_with_what_is(world: World) -> None:
    with pytest.raises(ModelNotFoundError, match="nor any other"):
        world.store.models.find("momentum")
    await _model(world)
    with pytest.raises(ModelNotFoundError, match="Did you mean 'momentum'"):
        world.store.models.find("momentun/EURUSD_1h_v1")
    with pytest.raises(ModelNotFoundError, match="momentum/EURUSD_1h_v1"):
        world.store.models.find("momentum/EURUSD_1h_v7")


async def test_the_model_of_an_operation_is_known(world: World) -> None:
    name = await _model(world)
    model = world.store.models.find(name)
    assert world.store.models.of_operation(model.operation_id) == model
    assert world.store.models.of_operation("op-nobody-knows") is None


# --- opening


def test_whether_there_is_a_database_can_be_asked_without_making_one(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert not OperationStore.exists(settings)
    with pytest.raises(DatabaseUnavailableError):
        OperationStore.open(settings, create=False)
    assert list(tmp_path.iterdir()) == []
    with OperationStore.open(settings) as store:
        assert store.list_operations() == []
    assert OperationStore.exists(settings)
    with OperationStore.open(settings, create=False):
        pass
