"""The errors of core.hub.hub_errors as sentences about a dataset: the same failures, with other advice."""

from __future__ import annotations

from core.errors import DataError
from core.hub.hub_errors import HubRequest, Search, TooSlow, host_of, hub_error, search_error
from core.messages import Message

_DATASET_KEYS = {
    "hub.bad_token", "hub.cannot_write", "hub.disabled", "hub.disk_full", "hub.disk_full_by_others",
    "hub.disk_full_midway",
    "hub.missing", "hub.no_network", "hub.not_a_hub", "hub.offline_mode", "hub.refused", "hub_search.bad_words",
    "hub_search.no_network", "hub_search.not_a_hub", "hub_search.offline_mode", "hub_search.refused",
    "hub_search.server_trouble",
    "hub_search.slow",
}  # fmt: skip


def dataset_message(message: Message) -> Message:
    """Replace a message about a model by the one about a dataset; others stay as they are."""
    if message.key not in _DATASET_KEYS:
        return message
    room, _, name = message.key.partition(".")
    return Message(key=f"hub_set.search_{name}" if room == "hub_search" else f"hub_set.{name}", params=message.params)


def dataset_error(error: Exception, request: HubRequest) -> DataError:
    """Return an error of the hub as a DataError with one sentence."""
    if isinstance(error, TooSlow):
        return DataError("hub_set.slow", repo=request.repo, host=host_of(request.endpoint))
    return DataError(dataset_message(hub_error(error, request).message))


def dataset_search_error(error: Exception, request: Search) -> DataError:
    """Return the error of a search on the hub as a DataError with one sentence."""
    return DataError(dataset_message(search_error(error, request).message))
