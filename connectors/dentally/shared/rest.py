"""JSON over HTTPS from one origin: what can heal is repeated, nothing secret is shown, and only
whole JSON counts as an answer."""

import io
import json
import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import requests
from fivetran_connector_sdk import Logging
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.exceptions import BaseHTTPError  # type: ignore[attr-defined]

from . import times
from .errors import SourceError, T, TransientError

LONGEST_WAIT = 3_900.0  # seconds: limits reset on the hour; five minutes for clocks that differ
LARGEST_ANSWER = 128 * 1024 * 1024  # bytes after decompression
_LARGE_ANSWER = 8 * 1024 * 1024  # bytes; several at once would take too much memory
_DEADLINE = 10  # a whole exchange may take this many times the silence that is allowed
_ESCAPES = re.compile(r"(?:\\u[dD][89a-fA-F][\da-fA-F]{2})+|\\\\", re.ASCII)
# RFC 6749, 5.2. Any other word in an error may be what was sent.
_CODES = {
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client"),
    *("unsupported_grant_type", "invalid_scope"),
}


@dataclass(frozen=True)
class Retry:
    """``attempts``: repeats after the first try. ``base_delay``, ``longest_delay``: seconds."""

    attempts: int = 3
    base_delay: float = 1.0
    longest_delay: float = 60.0

    def delay(self, attempt: int) -> float:
        """Seconds before repeat ``attempt`` (from 0): ``base_delay * 2**attempt`` up to the
        longest; half of it is random, so that clients do not come back all at once."""
        full = min(self.base_delay * 2.0 ** min(attempt, 64), self.longest_delay)
        return full / 2 + random.uniform(0, full / 2)

    def run(self, what: str, once: Callable[[], T], sleep: Callable[[float], object]) -> T:
        """The result of ``once``, which is called again after a TransientError.

        ``what`` names it in the log; ``sleep`` takes seconds. Raises SourceError when the repeats
        are used up, or when the source asks to wait for more than LONGEST_WAIT.
        """
        for attempt in range(self.attempts + 1):
            try:
                return once()
            except TransientError as error:
                failure = error
            wait = self.delay(attempt) if failure.wait is None else failure.wait
            if wait > LONGEST_WAIT:
                raise SourceError(
                    f"{what}: {failure}. The source asks to wait {wait:.0f} s and a sync waits "
                    f"{LONGEST_WAIT:.0f} s at most: the next one goes on from here"
                )
            if attempt < self.attempts:
                Logging.warning(
                    f"{what}: {failure}; repeat {attempt + 1} of {self.attempts} in {wait:.1f} s"
                )
                sleep(wait)
        raise SourceError(f"{what}: {failure}; gave up after {self.attempts} repeats")


def retry_after(headers: Mapping[str, str], reset_header: str = "") -> float | None:
    """Seconds, more than 0, that a source asks to wait; None if it asks for none.

    ``Retry-After`` holds seconds or an HTTP date (RFC 9110, 10.2.3); the vendor's own
    ``reset_header`` the unix time, in seconds, at which its limit resets.
    """
    seconds, reset = _number(headers.get("Retry-After")), _number(headers.get(reset_header))
    if seconds is None:
        try:
            moment = parsedate_to_datetime(headers.get("Retry-After", ""))
            moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc)
            seconds = (moment - times.now()).total_seconds()
        except (TypeError, ValueError, OverflowError):
            seconds = None if reset is None else reset - times.now().timestamp()
    return seconds if seconds and seconds > 0 else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class Number(float):
    """A JSON number with a fraction or an exponent, and the text that it was: money is exact."""

    __slots__ = ("text",)
    text: str


def _number_or_text(text: str) -> Number | str:
    """``text`` as a number, or itself where it is too large for one."""
    number = Number(text)
    number.text = text
    return number if math.isfinite(number) else text


def parse_json(text: str) -> Any:
    """The values in ``text``, all of which JSON can hold: NaN is a text, and half of a surrogate
    pair, which is no character, U+FFFD. Raises ValueError or RecursionError."""
    return json.loads(
        _ESCAPES.sub(_characters, text) if "\\u" in text else text,
        parse_float=_number_or_text,
        parse_constant=str,
    )


def _characters(found: re.Match[str]) -> str:
    pairs = bytes.fromhex(found[0].replace("\\u", "").replace("\\", ""))
    return json.dumps(pairs.decode("utf-16-be", "replace"))[1:-1] or found[0]


def as_list(value: Any) -> list[Any] | None:
    """A list as it is; the values of an object whose keys are numbers, which is how PHP writes a
    list from which something was taken; None for anything else."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(k.isascii() and k.isdigit() for k in value):
        return [*value.values()]
    return None


def error_code(answer: requests.Response) -> str:
    """The OAuth code of an error in JSON (``invalid_grant``), or ""; never another word of it,
    which may quote what was sent."""
    try:
        code: str = answer.json()["error"]
        return code if code in _CODES else ""
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


@dataclass(repr=False, eq=False)
class RestClient:
    """A session with one origin, usable from several threads.

    ``timeout``: the seconds of silence that end a try. ``auth`` adds the credentials;
    ``unauthorized`` gets a request that met a 401 and how often it did, and says whether there
    are other credentials now. ``rate_limited`` tells which answers beside 429 mean "too many
    requests", ``reset_header`` until when. ``explain`` gives advice on an answer that is final.
    ``parallel``: how many requests a caller may have under way; "too many requests" halves it,
    and a large answer makes it 1.
    ``closed``, when it is set, ends the back-offs that threads are in, with an error; clients that
    need each other share it.
    """

    base_url: str
    timeout: float
    retry: Retry
    headers: Mapping[str, str] = field(default_factory=dict)
    auth: AuthBase | None = None
    unauthorized: Callable[[requests.PreparedRequest, int], bool] = lambda sent, refusals: False
    rate_limited: Callable[[requests.Response], bool] = lambda answer: False
    reset_header: str = ""
    explain: Callable[[requests.Response], str] = lambda answer: ""
    parallel: int = 1
    closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._backing_off, self._limited_at = threading.Lock(), -math.inf
        # Of an answer with damaged headers it would log the whole URL.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._session = requests.Session()
        self._session.adapters = {"http": _Adapter()}  # for https, too
        self._session.headers.update(self.headers)
        # Without an `auth` of ours, requests would take a password from ~/.netrc.
        self._session.auth = self.auth or (lambda request: request)

    def get(
        self,
        link: str,
        params: Mapping[str, Any] | None = None,
        read: Callable[[Any], Any] = lambda answer: answer,
    ) -> Any:
        """What ``read`` makes of the JSON at ``link``: a path below ``base_url``, or an absolute
        URL of the same origin. ``read`` may raise TransientError, so that the request is retried.
        Raises SourceError."""
        return self._request("GET", link, read, params=params)

    def post(self, link: str, **content: Any) -> Any:
        """The JSON answer to ``content``: ``data=`` or ``json=``, as requests takes them. Raises
        SourceError."""
        return self._request("POST", link, lambda answer: answer, **content)

    def _request(self, method: str, link: str, read: Callable[[Any], Any], **content: Any) -> Any:
        url = link if "://" in link else self.base_url + link
        what = f"{method} {url.partition('?')[0]}"
        if _origin(url) != _origin(self.base_url):
            raise SourceError(f"{what} is not below {self.base_url}: it gets no request")
        return self.retry.run(
            what, lambda: read(self._once(what, method, url, content)), self._sleep
        )

    def _sleep(self, seconds: float) -> None:
        """Waits; no other thread sends a request meanwhile."""
        end = time.monotonic() + seconds
        with self._backing_off:
            if self.closed.wait(max(0.0, end - time.monotonic())):
                raise SourceError("the sync has ended, and with it the repeats")

    def _once(self, what: str, method: str, url: str, content: Mapping[str, Any]) -> Any:
        with self._backing_off:
            sent = time.monotonic()
        answer, refusals = self._exchange(what, method, url, content), 0
        while answer.status_code == 401:
            refusals += 1
            if not self.unauthorized(answer.request, refusals):
                break
            answer = self._exchange(what, method, url, content)
        status, media_type = answer.status_code, answer.headers.get("Content-Type", "no type")
        reason = f"status {status}" + ("" if status < 300 else f" {error_code(answer)}".rstrip())
        if status == 429 or self.rate_limited(answer):
            if sent > self._limited_at:  # once for all that met the limit together
                self._limited_at, self.parallel = time.monotonic(), max(1, self.parallel // 2)
            wait = retry_after(answer.headers, self.reset_header)
            raise TransientError(f"{reason}, too many requests", wait)
        if status == 408 or status >= 500:
            raise TransientError(reason, retry_after(answer.headers))
        if 300 <= status < 400:
            reason += ", a redirect, which is not followed"
        if not 200 <= status < 300:
            refusal = SourceError(f"{what}: {reason}. {self.explain(answer)}".rstrip(". "))
            refusal.status = status
            raise refusal
        try:
            return parse_json(answer.content.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            # Headers that were cut look whole; they are likely to tell no length.
            if "json" in media_type if answer.content else "Content-Length" not in answer.headers:
                raise TransientError(f"{reason}, but the JSON is cut or damaged") from None
            advice = self.explain(answer)
        raise SourceError(f"{what}: {reason}, but no JSON ({media_type}). {advice}".rstrip(". "))

    def _exchange(
        self, what: str, method: str, url: str, content: Mapping[str, Any]
    ) -> requests.Response:
        body = bytearray()
        content = {"timeout": self.timeout, "allow_redirects": False, **content}
        try:
            with self._session.request(method, url, stream=True, **content) as answer:
                while chunk := answer.raw.read1(65_536, decode_content=True):
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        raise SourceError(f"{what}: more than {LARGEST_ANSWER} bytes in an answer")
        except requests.Timeout:
            raise TransientError(f"no answer within {self.timeout:g} s") from None
        except (OSError, BaseHTTPError) as error:  # those of requests are OSErrors
            of_tls = isinstance(error, requests.exceptions.SSLError)  # any text holds the URL
            if of_tls and re.search("Cert[A-Za-z]*Error", str(error)):
                raise SourceError(f"{what}: the TLS certificate could not be verified") from None
            raise TransientError("the connection failed or the answer was cut short") from None
        if len(body) > _LARGE_ANSWER:
            self.parallel = 1
        answer._content = bytes(body)
        return answer


class _Adapter(HTTPAdapter):
    """An adapter whose answers have a deadline."""

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        if (kind := pool.ConnectionCls).response_class is not _begin_answer:
            pool.ConnectionCls = type("Connection", (kind,), {"response_class": _begin_answer})
        return pool


def _begin_answer(self: Any, connection: Any, *arguments: Any, **options: Any) -> HTTPResponse:
    """The answer that a connection gives from here on. None of its bytes may be late, but a
    header or a body could go on for ever: it has a deadline, too."""
    file, end = connection.makefile("rb", buffering=0), time.monotonic() + self.timeout * _DEADLINE
    read_into = file.readinto

    def read_in_time(buffer: Any) -> Any:
        if time.monotonic() > end:
            raise TransientError("the answer came too slowly")
        return read_into(buffer)

    file.readinto, file.makefile = read_in_time, lambda mode: io.BufferedReader(file)
    return HTTPResponse(file, *arguments, **options)


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    """Scheme, host and port; None for what libraries do not read alike (``\\``, ``@``)."""
    parts, usual = urlsplit(url), {"https": 443, "http": 80}
    try:
        origin = parts.scheme, parts.hostname, parts.port or usual.get(parts.scheme)
    except ValueError:
        return None
    return None if "\\" in parts.netloc or "@" in parts.netloc else origin
