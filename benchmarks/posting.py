"""How many trainings are accepted in a second, against bare FastAPI and SQLAlchemy that insert one row."""

import asyncio
import statistics

from benchmarks.broker import Processes
from benchmarks.databases import ENGINES, empty_database
from benchmarks.http_backend import WISH, http_backend, plain_backend
from benchmarks.http_load import Answers, Load, answered
from benchmarks.measure import Result, spread

_CLIENTS = 16
_SECONDS = 4.0
_ROUNDS = 6


def measure() -> list[Result]:
    return [asyncio.run(_measure(engine)) for engine in ENGINES]


async def _measure(engine: str) -> Result:
    with Processes() as processes:
        home, plain_home = processes.directory / "home", processes.directory / "plain"
        with empty_database(engine, home) as database, empty_database(engine, plain_home) as plain_database:
            backend = await http_backend(processes, database, home)
            plain = await plain_backend(processes, plain_database)
            ours, theirs = await _in_turn(
                processes,
                Load(backend.url, "POST", "/api/v1/trainings", _CLIENTS, _SECONDS, backend.token, WISH),
                Load(plain.url, "POST", "/rows", _CLIENTS, _SECONDS, None, WISH),
            )
            processes.end(backend.pid)
            processes.end(plain.pid)
    seconds, plain_seconds = (statistics.median(1 / each.per_s for each in those) for those in (ours, theirs))
    return Result(
        f"POST /trainings, {_CLIENTS} clients, {engine}: seconds for each",
        seconds,
        "FastAPI and SQLAlchemy, one row as durable",
        plain_seconds,
        "≤ 2 x",
        seconds <= 2 * plain_seconds,
        f"{1 / seconds:.0f} per s, {_spread(ours)}; bare {1 / plain_seconds:.0f} per s, {_spread(theirs)}",
    )


async def _in_turn(processes: Processes, *loads: Load) -> list[list[Answers]]:
    found: list[list[Answers]] = [[] for _ in loads]
    for number in range(1 + _ROUNDS):
        for load, answers in zip(loads, found, strict=True):
            (each,) = await answered(processes, load)
            assert each.refused == 0
            if number:  # the first is for what is done once
                answers.append(each)
    return found


def _spread(answers: list[Answers]) -> str:
    return spread([seconds for each in answers for seconds in each.seconds])
