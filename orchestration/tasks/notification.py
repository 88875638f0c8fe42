"""Notifications to the webhook of WINE_WEBHOOK, about failed or crashed flows and alarms.

The body is JSON: flow, run, state, message, link, and all of it as `text`, which Slack, Mattermost and Discord's Slack
endpoint show.
"""

from collections.abc import Mapping
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import MissingContextError
from prefect.flows import Flow
from prefect.logging import get_logger
from prefect.settings import get_current_settings

from settings import load_settings

PATIENCE_SECONDS = 10.0


def notify_webhook(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Post the end state of a run; a hook of a flow."""
    message = state.message or ""
    pages = get_current_settings().ui_url
    post_webhook(
        {
            "text": f"{flow.name}, run {flow_run.name}: {state.name}. {message}".strip(),
            "flow": flow.name,
            "run": flow_run.name,
            "run_id": str(flow_run.id),
            "state": state.name or "",
            "message": message,
            "link": f"{pages}/runs/flow-run/{flow_run.id}" if pages else "",
        }
    )


def post_webhook(message: Mapping[str, Any]) -> None:
    """Post a message to the webhook, if there is one. Errors are logged, never raised.

    The address may contain a secret, so it is never logged.
    """
    try:
        address = load_settings().webhook.get_secret_value()
        if address:
            httpx.post(address, json=dict(message), timeout=PATIENCE_SECONDS).raise_for_status()
    except Exception as error:  # a failed notification must not change the run's state
        try:
            logger: Any = get_run_logger()
        except MissingContextError:  # no run context, as after a crash
            logger = get_logger("wine.notification")
        logger.warning("the message could not be sent to WINE_WEBHOOK: %s", type(error).__name__)
