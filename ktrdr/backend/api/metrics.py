"""`/metrics`: what Prometheus reads."""

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.auditing import route_of
from ktrdr.backend.records import AgentStatus
from ktrdr.backend.store import OperationStore

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class HttpMetrics:
    """Middleware that counts requests, and how long they take to be answered.

    Args:
        app: what is wrapped.
        registry: where it is counted.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        of = ("method", "route", "status")
        self._requests = Counter("ktrdr_http_requests", "Requests answered.", of, registry=registry)
        self._seconds = Histogram(
            "ktrdr_http_request_seconds",
            "From a request to the beginning of its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._open = Gauge(
            "ktrdr_http_requests_in_progress", "Requests in progress, watchers included.", registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        def count(status: int) -> None:
            method, route = _labels(scope)
            self._requests.labels(method, route, status).inc()
            self._seconds.labels(method, route).observe(time.perf_counter() - began)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        with self._open.track_inprogress():
            try:
                await self._app(scope, receive, counted)
            except Exception:
                count(HTTPStatus.INTERNAL_SERVER_ERROR)
                raise


class StoreMetrics(Collector):
    """Operations by state and agents by status, as the database has them when it is asked."""

    def __init__(self, store: OperationStore) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the figures."""
        operations = GaugeMetricFamily("ktrdr_operations", "Operations in each state.", labels=("state",))
        for state, count in self._store.count_by_state().items():
            operations.add_metric((state.value,), count)
        yield operations
        known = self._store.agents()
        agents = GaugeMetricFamily("ktrdr_agents", "Host agents in each status.", labels=("status",))
        for status in AgentStatus:
            agents.add_metric((status.value,), sum(agent.status is status for agent in known))
        yield agents
        there = [agent for agent in known if agent.status.can_be_reached]
        slots = GaugeMetricFamily("ktrdr_agent_slots", "Slots of the agents that are there.", labels=("use",))
        busy = sum(agent.slots_busy for agent in there)
        slots.add_metric(("busy",), busy)
        slots.add_metric(("free",), max(sum(agent.slots_total for agent in there) - busy, 0))
        yield slots

    def describe(self) -> list[Any]:
        """Return nothing: the database is not asked before it has to be."""
        return []


def metrics_registry(store: OperationStore) -> CollectorRegistry:
    """Return a registry with what the database and the operating system tell."""
    registry = CollectorRegistry()
    registry.register(StoreMetrics(store))
    ProcessCollector(registry=registry)
    return registry


def metrics_router(registry: CollectorRegistry, access: Access) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["installation"], dependencies=[Depends(access.reading())])

    @router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    def metrics() -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _labels(scope: Scope) -> tuple[str, str]:
    """Return method and route: of both there are few, whatever clients send."""
    return scope["method"] if scope["method"] in _METHODS else "other", route_of(scope)
