"""A list of named checks, all of which run whatever the others do."""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any, Callable

CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Adds a function to the checks; its docstring is its name."""
    CHECKS.append(function)
    return function


def equal(got: Any, wanted: Any, what: str = "value") -> None:
    """Fails unless both are the same."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def true(holds: Any, what: str) -> None:
    """Fails unless it holds."""
    if not holds:
        raise AssertionError(what)


def raises(kind: type[BaseException], call: Callable[[], Any]) -> Any:
    """The error of this kind that the call must end with."""
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, got {result!r}")


def eventually(limit: float, what: Callable[[], bool], message: str) -> None:
    """Waits until it holds, at most `limit` seconds."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        if what():
            return
        time.sleep(0.02)
    raise AssertionError(message)


def main() -> None:
    """Runs all checks and exits with 1 when one fails."""
    failed = 0
    for function in CHECKS:
        name = (function.__doc__ or function.__name__).strip()
        started = time.monotonic()
        try:
            function()
        except Exception:  # noqa: BLE001 - every failure is reported, none stops the others
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok      {name} ({time.monotonic() - started:.2f} s)", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed or not CHECKS else 0)
