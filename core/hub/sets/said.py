"""The sentences of core.hub.answers for a dataset: the same failures, other things to try."""

from __future__ import annotations

from core.errors import DataError
from core.hub.answers import HubRequest, Search, TooSlow, host_of, sentence, sentence_of_search
from core.messages import Message

_OF_A_SET = {
    "hub.bad_token", "hub.cannot_write", "hub.disabled", "hub.disk_full", "hub.disk_full_by_others",
    "hub.disk_full_midway",
    "hub.missing", "hub.no_network", "hub.not_a_hub", "hub.offline_mode", "hub.refused", "hub_search.bad_words",
    "hub_search.no_network", "hub_search.not_a_hub", "hub_search.offline_mode", "hub_search.refused",
    "hub_search.server_trouble",
    "hub_search.slow",
}  # fmt: skip


def of_set(message: Message) -> Message:
    """A sentence about a model, about a data set; as it is where it says neither."""
    if message.key not in _OF_A_SET:
        return message
    room, _, name = message.key.partition(".")
    return Message(key=f"hub_set.search_{name}" if room == "hub_search" else f"hub_set.{name}", params=message.params)


def refusal(error: Exception, asked: HubRequest) -> DataError:
    if isinstance(error, TooSlow):
        return DataError("hub_set.slow", repo=asked.repo, host=host_of(asked.endpoint))
    return DataError(of_set(sentence(error, asked).message))


def refusal_of_search(error: Exception, asked: Search) -> DataError:
    return DataError(of_set(sentence_of_search(error, asked).message))
