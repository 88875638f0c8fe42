"""Messages to the webhook that WINE_WEBHOOK names: of a flow that failed or crashed, and of an alarm.

The body is JSON: flow, run, state, message, link, and all of it as `text`, which Slack, Mattermost and
Discord's Slack endpoint show as it is.
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
    """Post what became of a run, as a hook of a flow."""
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
    """Post a message to the webhook, if there is one. Whatever goes wrong here is logged, never raised.

    The address may hold a secret, so no line names it.
    """
    try:
        address = load_settings().webhook.get_secret_value()
        if address:
            httpx.post(address, json=dict(message), timeout=PATIENCE_SECONDS).raise_for_status()
    except Exception as error:  # a run that failed has failed, whoever hears of it
        try:
            logger: Any = get_run_logger()
        except MissingContextError:  # the run is over, as after a crash
            logger = get_logger("wine.notification")
        logger.warning("the message could not be sent to WINE_WEBHOOK: %s", type(error).__name__)
