"""Answers in OpenAI's format, whole or as chunks of a stream."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from core.chat.answer import Done, Piece
from core.chat.answer_marks import CALL, MarkReplacer
from core.chat.serving.requests import Body, ChatBody
from core.chat.text_stream import END
from core.files import JsonObject

_CALLS = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>\s*|$)", re.DOTALL)
FINISHED = {"stop": "stop", "length": "length", "loop": "length", "stopped": "stop"}


@dataclass
class ReplyChoice:
    """One answer so far. finish_reason: None while it is written."""

    text: str = ""
    logprobs: list[JsonObject] = field(default_factory=list)
    finish_reason: str | None = None
    before_call: MarkReplacer = field(default_factory=lambda: MarkReplacer({CALL: END + CALL}))
    is_call: bool = False


class Reply:
    """The answers to one request, assembled from pieces. All chunks of a stream have the same id."""

    def __init__(self, body: Body):
        """Begin without text."""
        self._is_chat = isinstance(body, ChatBody)
        self._has_tools = bool(body.sampling.tools)
        self._with_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._with_logprobs = body.sampling.top_logprobs is not None
        self._choices = [ReplyChoice() for _ in body.questions()]
        self._prompts = len({json.dumps(turns) for turns in body.questions()})
        self._prompt_tokens = self._completion_tokens = 0
        self._head = {
            "id": ("chatcmpl-" if self._is_chat else "cmpl-") + secrets.token_hex(12),
            "object": "chat.completion" if self._is_chat else "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }

    @property
    def is_over(self) -> bool:
        """True once every choice has its finish reason."""
        return all(choice.finish_reason for choice in self._choices)

    def add(self, item: Piece | Done) -> None:
        """Add a piece of an answer, or its end with the counts of tokens, to what `response` and `chunks` return."""
        choice = self._choices[item.question]
        if isinstance(item, Piece):
            choice.text += item.text
            choice.logprobs += item.logprobs
        else:
            choice.finish_reason = FINISHED[item.finish_reason]
            self._prompt_tokens += item.prompt_tokens
            self._completion_tokens += item.tokens

    def response(self) -> JsonObject:
        """Return the complete response, for a request without a stream: choices with text or tool calls, and usage."""
        choices = list[JsonObject]()
        for index, choice in enumerate(self._choices):
            text, calls = split_calls(choice.text) if self._has_tools else (choice.text, [])
            reason = "tool_calls" if calls else choice.finish_reason
            content: JsonObject = {"text": text}
            if self._is_chat:
                message: JsonObject = {"role": "assistant", "content": (text or None) if calls else text}
                content = {"message": message | ({"tool_calls": calls} if calls else {})}
            choices.append(
                {"index": index, "finish_reason": reason} | content | self._logprobs(choice.logprobs, is_whole=True)
            )
        return self._head | {"choices": choices, "usage": self._usage()}

    def beginning(self) -> Iterator[JsonObject]:
        """Yield the chunks before any text: in a chat one for each choice, with the assistant's role."""
        if self._is_chat:
            for index in range(len(self._choices)):
                yield self._chunk(index, {"role": "assistant", "content": ""})

    def chunks(self, item: Piece | Done) -> Iterator[JsonObject]:
        """Yield the chunks that an item adds to the stream. A piece gives its text; with tools, text that could belong
        to a tool call is held back. A Done adds its tokens to the usage and gives the rest of the text, all tool calls
        of the choice in one chunk, and last the finish reason."""
        choice, index = self._choices[item.question], item.question
        if isinstance(item, Piece):
            text = choice.before_call.add(item.text) if self._has_tools else item.text
            if self._has_tools:
                text, is_call, call = text.partition(END)
                if choice.is_call:
                    choice.text, text = choice.text + text, ""
                elif is_call:
                    choice.is_call, choice.text = True, call
            if text or item.logprobs:
                yield self._chunk(index, {"content": text}, logprobs=item.logprobs)
            return
        self.add(item)
        reason = choice.finish_reason
        if self._has_tools:
            rest, calls = split_calls(choice.text + choice.before_call.rest())
            if rest:
                yield self._chunk(index, {"content": rest})
            if calls:
                numbered = [{"index": number} | call for number, call in enumerate(calls)]
                yield self._chunk(index, {"tool_calls": numbered})
                reason = "tool_calls"
        yield self._chunk(index, {}, reason)

    def ending(self) -> Iterator[JsonObject]:
        """Yield the chunk with the usage, if it was requested."""
        if self._with_usage:
            yield self._head | {"object": self._chunk_object_name(), "choices": [], "usage": self._usage()}

    def _chunk_object_name(self) -> str:
        """Return the value of the field "object" in each chunk of a streamed reply: "chat.completion.chunk" for a chat,
        "text_completion" for a plain completion."""
        return "chat.completion.chunk" if self._is_chat else "text_completion"

    def _chunk(
        self, index: int, delta: JsonObject, reason: str | None = None, logprobs: tuple[JsonObject, ...] = ()
    ) -> JsonObject:
        """Return one chunk of a stream: a part of choice `index`, or with reason its end."""
        content = {"delta": delta} if self._is_chat else {"text": delta.get("content", "")}
        choice = {"index": index, "finish_reason": reason} | content | self._logprobs(list(logprobs))
        return self._head | {"object": self._chunk_object_name(), "choices": [choice]}

    def _logprobs(self, logprobs: list[JsonObject], is_whole: bool = False) -> JsonObject:
        """Return the log probabilities as the object of the endpoint; null without any requested, and in a chunk
        without a token."""
        if not self._with_logprobs or (not logprobs and not is_whole):
            return {"logprobs": None}
        if self._is_chat:
            return {"logprobs": {"content": logprobs}}
        return {
            "logprobs": {
                "tokens": [one["token"] for one in logprobs],
                "token_logprobs": [one["logprob"] for one in logprobs],
                "top_logprobs": [{top["token"]: top["logprob"] for top in one["top_logprobs"]} for one in logprobs],
            }
        }

    def _usage(self) -> JsonObject:
        """Return the counts of tokens; a prompt that has several answers counts once."""
        prompt = self._prompt_tokens * self._prompts // len(self._choices)
        done = self._completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": done, "total_tokens": prompt + done}


def split_calls(text: str) -> tuple[str, list[JsonObject]]:
    """Return an answer's text before its tool calls, and the calls in OpenAI's format; (text, []) if one is no JSON
    object with a name, as a model may write anything."""
    calls = list[JsonObject]()
    for match in _CALLS.finditer(text):
        try:
            call = json.loads(match[1])
            arguments = call.get("arguments", call.get("parameters", {}))
            function = {"name": str(call["name"]), "arguments": json.dumps(arguments, ensure_ascii=False)}
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
            return text, []
        calls.append({"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": function})
    return (text.partition(CALL)[0].strip() if calls else text), calls
