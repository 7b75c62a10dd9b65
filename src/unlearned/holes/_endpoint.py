"""A writer behind an address that speaks OpenAI's chat protocol: a service, or a server of vLLM or llama.cpp.

What was answered once is kept in a transcript and never asked again, so that an interrupted search goes on where it was and costs nothing twice.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearned.data.fingerprints import of_json
from unlearned.engine.files import write_text
from unlearned.errors import Fault, InputError, writing
from unlearned.holes._instruct import Message

_AGAIN = frozenset({408, 409, 425, 429})
_FOR_THE_ASKED = frozenset({400, 413, 422})
"""Refusals that may be for what was asked, such as a text longer than the model's context."""


class _RefusedError(Exception):
    """The server will not answer this, however often it is asked."""


class Endpoint:
    """Asks for one answer after the other, at temperature 0.

    Args:
        model: as the server calls it.
        url: base address, up to and including `/v1`; None: the environment variable OPENAI_BASE_URL. The key is read from OPENAI_API_KEY, if it is set.
        transcript: a JSONL file that is read at the start and written after each answer; None: nothing is kept.
        per_minute: most requests in a minute.
        attempts: for each answer. What times out, breaks off, is no JSON of the protocol, or is refused for the moment is asked again, after 1, 2, 4, ... s.
        timeout: of a request, in seconds.
        wait: how to wait.
        field: what messages call it.

    Raises:
        InputError: if there is no address, or the transcript cannot be read.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        transcript: Path | None = None,
        *,
        per_minute: float = 600,
        attempts: int = 5,
        timeout: float = 120,
        wait: Any = time.sleep,
        field: str = "audits.knowledge-holes.endpoint",
    ) -> None:
        base = url or os.environ.get("OPENAI_BASE_URL")
        if not base:
            raise InputError(Fault(field, "no address was given.", "Set OPENAI_BASE_URL to the server's base address, such as http://localhost:8000/v1."))
        if not base.startswith(("http://", "https://")):
            raise InputError(Fault(field, f"{base!r} is no address of the web.", "Give one that begins with http:// or https://."))
        self._url, self._model, self._field = f"{base.rstrip('/')}/chat/completions", model, field
        self._transcript, self._attempts, self._timeout, self._wait = transcript, attempts, timeout, wait
        self._between, self._last = 60 / per_minute, float("-inf")
        self._kept = {} if transcript is None else _read(transcript, field)
        self.requests = 0
        """Sent so far, repeated ones included."""
        self.tokens = 0
        """Of prompts and answers, as the server counted them: what a service charges for."""
        self.failed = 0
        """Answers that could not be had."""
        self.label = f"{model} at an endpoint"

    def write(self, conversations: Sequence[Sequence[Message]]) -> list[str | None]:
        """One answer each; None where every attempt failed, or where the server refuses what it was asked, though it has answered something else.

        Raises:
            InputError: if the server refuses for good: an unknown model, a wrong key, or all that it is asked.
        """
        return [self._one(conversation) for conversation in conversations]

    def _one(self, conversation: Sequence[Message]) -> str | None:
        asked = {"model": self._model, "messages": [dict(message) for message in conversation], "temperature": 0}
        key = of_json(asked)
        if key not in self._kept:
            answer = self._ask(asked)
            if answer is None:
                self.failed += 1
                return None
            self._kept[key] = answer
            if self._transcript is not None:
                with writing(self._field, self._transcript):
                    self._transcript.parent.mkdir(parents=True, exist_ok=True)
                    with self._transcript.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n")
        return self._kept[key]

    def _ask(self, asked: dict[str, Any]) -> str | None:
        for attempt in range(self._attempts):
            if attempt:
                self._wait(2.0 ** (attempt - 1))
            pause = self._last + self._between - time.monotonic()
            if pause > 0:
                self._wait(pause)
            self._last = time.monotonic()
            self.requests += 1
            try:
                answer = self._send(asked)
            except _RefusedError:
                return None
            if answer is not None:
                return answer
        return None

    def _send(self, asked: dict[str, Any]) -> str | None:
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        request = urllib.request.Request(self._url, json.dumps(asked).encode(), headers)  # noqa: S310  # http or https, as was checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310
                found = json.loads(response.read())
            answer = found["choices"][0]["message"]["content"]
            usage = found.get("usage") or {}
            self.tokens += int(usage.get("total_tokens") or 0)
        except urllib.error.HTTPError as error:
            if error.code in _FOR_THE_ASKED and self._kept:
                raise _RefusedError from error
            if error.code < 500 and error.code not in _AGAIN:
                what = f"the server refuses ({error.code} {error.reason})."
                raise InputError(Fault(self._field, what, "Check the name of the model, the address and the key.")) from error
            return None
        except (OSError, http.client.HTTPException):  # no connection, a timeout, or one that breaks
            return None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):  # an answer that is not of the protocol
            return None
        return answer if isinstance(answer, str) else None


def _read(path: Path, field: str) -> dict[str, str]:
    """A transcript. A last line that an interruption cut off is removed."""
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(field, f"the transcript {str(path)!r} cannot be read.", "Remove it, or name another cache.")) from error
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_text(path, "".join(lines), field)
    kept: dict[str, str] = {}
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            kept[entry["key"]] = entry["answer"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(Fault(field, f"the transcript {str(path)!r} is damaged in line {number + 1}.", "Remove it, or name another cache.")) from error
    return kept
