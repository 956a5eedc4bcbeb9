"""Requests in OpenAI's format: /v1/chat/completions and /v1/completions. Keys that are unknown are ignored, as other
servers do; known ones that would change the answer and are not supported are refused."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from core.chat.answer import MAX_NEW_TOKENS, MAX_ROWS, ApiSampling
from core.data.conversation import Turn
from core.files import JsonObject

MAX_ANSWERS = MAX_ROWS // 2  # to one request
DEFAULT_TOKENS = 1024  # of an answer, if a request names no limit
NEUTRAL: dict[str, tuple[object, ...]] = {  # settings that are not supported, with the values that change nothing
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "auto", "none"),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "functions": (None, []),
    "function_call": (None, "none"),
}


class ApiError(Exception):
    """An error with an HTTP status, which the client gets in OpenAI's format."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None):
        """Keep the parts of the error. status: HTTP status. code, param: OpenAI's error code, and the request's field
        that is wrong; None for none."""
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> JsonObject:
        """Return the error as a JSON object in OpenAI's format; its type is server_error from status 500 on."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    include_usage: bool = False


class FunctionCall(BaseModel):
    name: str
    arguments: str | JsonObject = "{}"


class Call(BaseModel):
    id: str | None = None
    function: FunctionCall


class TextPart(BaseModel):
    type: Literal["text", "input_text"]
    text: str


class ChatTurn(BaseModel):
    """A message of a chat request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None

    def turn(self) -> Turn:
        """Return the message in the notation of the chat template. Raises ApiError for arguments that are no JSON
        object."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        more = {
            "reasoning": self.reasoning_content,
            "tool_calls": [_call_turn(call) for call in self.tool_calls or ()],
            "tool_call_id": self.tool_call_id,
            "name": self.name,
        }
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": text} | {name: value for name, value in more.items() if value}


def _call_turn(call: Call) -> JsonObject:
    """Return a tool call as name, arguments (an object) and its id, if it has one. Raises ApiError for other
    arguments."""
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = ""
    if not isinstance(arguments, dict):
        raise ApiError(400, "The arguments of a tool call are no JSON object.", param="messages")
    return {"name": call.function.name, "arguments": arguments} | ({"id": call.id} if call.id else {})


class Body(BaseModel, ABC):
    """The fields that both kinds of requests have."""

    model: str = Field(max_length=300)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    n: int = Field(1, ge=1, le=MAX_ANSWERS)

    @model_validator(mode="before")
    @classmethod
    def _is_supported(cls, body: Any) -> Any:
        """Return the body without fields that are null. Raises ApiError for settings that would change the answer and
        are not supported."""
        if isinstance(body, dict):
            for name, neutral in NEUTRAL.items():
                if body.get(name) not in neutral:
                    raise ApiError(400, f"{name} is not supported here. Leave it out.", "unsupported_value", name)
            return {name: value for name, value in body.items() if value is not None}
        return body

    @abstractmethod
    def questions(self) -> list[list[Turn]]:
        """Return the conversations, each to be answered once."""

    @property
    def sampling(self) -> ApiSampling:
        """Return the settings for generating the answer. Without a temperature it is greedy; without a seed a new
        random one is used. max_tokens is DEFAULT_TOKENS if missing, and MAX_NEW_TOKENS at most."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return ApiSampling(
            do_sample=self.temperature is not None,
            temperature=0.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            max_new_tokens=min(self.max_tokens or DEFAULT_TOKENS, MAX_NEW_TOKENS),
            seed=(secrets.randbits(32) if self.seed is None else self.seed) % 2**32,
            stop=tuple(filter(None, stops)),
        )


class ChatBody(Body):
    """A body for /v1/chat/completions."""

    messages: list[ChatTurn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[JsonObject] | None = None
    tool_choice: str | None = None

    @model_validator(mode="after")
    def _newer_name(self) -> Self:
        """Take max_completion_tokens, the newer name, for max_tokens."""
        self.max_tokens = self.max_completion_tokens or self.max_tokens
        return self

    @property
    def sampling(self) -> ApiSampling:
        """The sampling with the number of top logprobs, None without any, and the tools, none if tool_choice is
        "none"."""
        tools = [] if self.tool_choice == "none" else self.tools or []
        top = (self.top_logprobs or 0) if self.logprobs else None
        return super().sampling.model_copy(update={"top_logprobs": top, "tools": tools})

    def questions(self) -> list[list[Turn]]:
        """Return the conversation n times."""
        return [[each.turn() for each in self.messages]] * self.n


class TextBody(Body):
    """A body for /v1/completions: texts to continue, without a template."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_ANSWERS)]
    logprobs: int | None = Field(None, ge=0, le=5)

    @property
    def sampling(self) -> ApiSampling:
        """The settings of the answer, with the number of top log probabilities (None without any), and without the chat
        template."""
        return super().sampling.model_copy(update={"top_logprobs": self.logprobs, "without_template": True})

    def questions(self) -> list[list[Turn]]:
        """Return each prompt n times. Raises ApiError for too many answers."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if len(prompts) * self.n > MAX_ANSWERS:
            raise ApiError(400, f"{len(prompts)} prompts with n {self.n}: at most {MAX_ANSWERS} answers.", param="n")
        return [[{"role": "user", "content": prompt}] for prompt in prompts for _ in range(self.n)]


def parse(kind: type[Body], content: bytes) -> Body:
    """Return the body of a request. Raises ApiError that names the first place that is wrong."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON in UTF-8.") from None
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, _named(first["loc"]))) or "body"
        raise ApiError(400, f"{place}: {first['msg']}", param=place) from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.") from None


def _named(place: Sequence[str | int]) -> list[str | int]:
    """Return the keys and indices of a place without pydantic's names of types, as in stop.list[str].0."""
    return [part for part in place if isinstance(part, int) or part.replace("_", "").isalpha()]
