"""The registered model versions."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, func, or_, select, text

from ktrdr.backend.database import Database
from ktrdr.backend.records import ModelRecord
from ktrdr.backend.rows import model_record
from ktrdr.backend.statements import NEWEST_VERSION
from ktrdr.backend.tables import models
from ktrdr.errors import ModelNotFoundError
from ktrdr.registry import nearest_name

_LATEST = "_latest"
_PAGE = 200
_LOCK_VERSIONS = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class ModelCatalog:
    """Finds models by what people call them; reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_models(
        self, *, strategy: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[ModelRecord]:
        """Return versions, newest first.

        Args:
            strategy: only of this strategy.
            limit: at most so many.
            before: the name of the last one of the previous page.

        Raises:
            ModelNotFoundError: there is no model called ``before``.
        """
        query = select(models).order_by(models.c.created_at.desc(), models.c.id.desc()).limit(limit)
        if strategy is not None:
            query = query.where(models.c.strategy == strategy)
        with self._database.read() as connection:
            if before is not None:
                last = connection.execute(select(models).where(models.c.path == before)).one_or_none()
                if last is None:
                    raise ModelNotFoundError(f"There is no model '{before}'.")
                query = query.where(
                    or_(
                        models.c.created_at < last.created_at,
                        and_(models.c.created_at == last.created_at, models.c.id < last.id),
                    )
                )
            return [model_record(row) for row in connection.execute(query)]

    def all_models(self) -> Iterator[ModelRecord]:
        """Yield every version, newest first."""
        page = self.list_models(limit=_PAGE)
        while page:
            yield from page
            page = self.list_models(limit=_PAGE, before=page[-1].name)

    def find(self, text: str) -> ModelRecord:
        """Return a version by its name; the newest by a name in ``_latest``, or by the strategy alone.

        Raises:
            ModelNotFoundError: names what there is instead.
        """
        strategy, _, version = text.strip("/").partition("/")
        with self._database.read() as connection:
            found = [model_record(row) for row in connection.execute(_newest_of(strategy))]
            named = [
                model for model in found if version in ("", f"{model.symbol}_{model.timeframe}{_LATEST}")
            ]
            if len(named) == 1:
                return named[0]
            row = connection.execute(
                select(models).where(models.c.path == f"{strategy}/{version}")
            ).one_or_none()
            if row is not None:
                return model_record(row)
            raise _not_found(connection, text, named or found)

    def of_operation(self, operation_id: str) -> ModelRecord | None:
        """Return the model that an operation made."""
        with self._database.read() as connection:
            row = connection.execute(
                select(models).where(models.c.operation_id == operation_id)
            ).one_or_none()
            return model_record(row) if row is not None else None

    def trained_strategies(self) -> dict[str, int]:
        """Return how many versions each strategy has."""
        query = select(models.c.strategy, func.count().label("versions")).group_by(models.c.strategy)
        with self._database.read() as connection:
            return {row.strategy: row.versions for row in connection.execute(query)}

    def newest_versions(self) -> list[ModelRecord]:
        """Return the newest version of each strategy, symbol and timeframe."""
        with self._database.read() as connection:
            return [model_record(row) for row in connection.execute(_newest_of(None))]

    def next_version(self, strategy: str, symbol: str, timeframe: str) -> int:
        """Return the number that the next version would get now."""
        with self._database.read() as connection:
            return next_version(connection, strategy, symbol, timeframe)


def next_version(connection: Connection, strategy: str, symbol: str, timeframe: str) -> int:
    """Return the number of the next version; stays so once `lock_versions` was called in the transaction."""
    of = {"strategy": strategy, "symbol": symbol, "timeframe": timeframe}
    newest: int | None = connection.execute(NEWEST_VERSION, of).scalar_one()
    return (newest or 0) + 1


def lock_versions(connection: Connection, strategy: str, symbol: str, timeframe: str) -> None:
    """Let nobody else register versions of a name until the end of this write transaction."""
    # On SQLite the write transaction itself is that lock.
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_VERSIONS, {"name": f"ktrdr model {strategy}/{symbol}/{timeframe}"})


def is_registered(connection: Connection, name: str) -> bool:
    """Return whether there is a version of that name."""
    return connection.execute(select(models.c.id).where(models.c.path == name)).first() is not None


def _newest_of(strategy: str | None) -> Select[Any]:
    newest = select(
        models.c.strategy, models.c.symbol, models.c.timeframe, func.max(models.c.version).label("version")
    )
    newest = newest.group_by(models.c.strategy, models.c.symbol, models.c.timeframe)
    if strategy is not None:
        newest = newest.where(models.c.strategy == strategy)
    top = newest.subquery()
    same = (top.c[name] == models.c[name] for name in ("strategy", "symbol", "timeframe", "version"))
    return (
        select(models).join(top, and_(*same)).order_by(models.c.strategy, models.c.symbol, models.c.timeframe)
    )


def _not_found(connection: Connection, text: str, candidates: Sequence[ModelRecord]) -> ModelNotFoundError:
    if candidates:
        names = ", ".join(model.name for model in candidates)
        return ModelNotFoundError(
            f"'{text}' is not one model; the newest are {names}.", fix="Name one of them."
        )
    strategies = list(connection.execute(select(models.c.strategy).distinct()).scalars())
    if not strategies:
        return ModelNotFoundError(
            f"There is no model '{text}', nor any other.", fix="Train one: ktrdr train."
        )
    nearest = nearest_name(text.partition("/")[0], strategies)
    meant = f" Did you mean '{nearest}'?" if nearest else ""
    return ModelNotFoundError(
        f"There is no model '{text}'.{meant}", fix="See what there is: ktrdr models list."
    )
