"""Hooks of Schemathesis: requests that reach existing objects, and a check of the codes of failures."""

import os
import re
from collections.abc import Callable
from typing import Any

import schemathesis  # type: ignore

AGENT = os.environ["INNKEEPER_AGENT"]

hook: Callable[[Any], Any] = schemathesis.hook
check: Callable[[Any], Any] = schemathesis.check


@hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Half of the requests about a valid name concern the agent that exists. A stream that follows its source has no end."""
    name = (case.path_parameters or {}).get("name")
    if isinstance(name, str) and re.fullmatch("[a-z0-9]+", name) and len(name) % 2 == 1:
        case.path_parameters["name"] = AGENT
    if isinstance(case.query, dict):
        case.query.pop("follow", None)


@check
def documented_code(_context: Any, response: Any, case: Any) -> bool | None:
    """The code of a failure is one of those that the document lists for the call."""
    # Without the method, there is no call.
    if response.status_code < 400 or response.status_code == 405 or "json" not in (response.headers.get("content-type") or [""])[0]:
        return None
    body = response.json()
    if not isinstance(body, dict) or "code" not in body:
        return None
    documented = case.operation.definition.raw["x-innkeeper-codes"]
    assert body["code"] in documented, f"{body['code']} is not among the documented codes: {body.get('message')}"
    return None
