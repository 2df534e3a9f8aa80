"""JSON over HTTPS from one origin: transient failures are retried, no secret is shown, and only
whole JSON is taken for a response."""

import codecs
import functools
import json
import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from fivetran_connector_sdk import Logging
from requests.auth import AuthBase
from requests.exceptions import BaseHTTPError  # type: ignore[attr-defined]

from . import times
from .errors import SourceError, SourceUnavailable, T, TransientError
from .network import (
    PROXY_REFUSES,
    Adapter,
    Closed,
    Deadline,
    NoConnection,
    is_ambiguous,
    is_loopback,
)

LONGEST_WAIT = 3_900.0  # seconds: limits reset on the hour; five minutes for clocks that differ
LARGEST_RESPONSE = 32 * 1024 * 1024  # bytes after decompression
# In the JSON of a response; "[{},{},..." takes 24 times its size in memory.
MOST_VALUES = 2_000_000
ENDED = "the sync has ended, and with it the retries"
DEADLINE = 10.0  # a whole response may take this many times the timeout, which begins at each byte
LARGE_RESPONSE = 8 * 1024 * 1024  # bytes; several at once would take too much memory
MANY_VALUES = 500_000  # the same for JSON values
_KEPT_OF_AN_ERROR = 64 * 1024  # bytes; nothing is looked for behind them
# One response at a time, in all threads, may be read beyond LARGE_RESPONSE until it is parsed: of
# the four requests that a sync sends concurrently, at most 64 MiB are unparsed at once.
_large = threading.Lock()
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|!--)", re.IGNORECASE)
# Pairs, or halves of them; not all of a long text at once, since each costs memory meanwhile.
_ESCAPES = re.compile(
    r"(?:\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"
    r"|\\u[dD][89a-fA-F][\da-fA-F]{2}){1,500}"
    r"|(?:\\\\){1,500}",
    re.ASCII,
)
# RFC 6749, 5.2. Any other word in an error may be what was sent.
_REFUSED_CREDENTIALS = {"invalid_client", "invalid_grant", "unauthorized_client"}
_CODES = _REFUSED_CREDENTIALS | {"invalid_request", "unsupported_grant_type", "invalid_scope"}
_TOO_SLOW = "the response came too slowly"
_FIRST_MOMENT = 1_000_000_000  # as seconds these would be 31 years; as a unix time it is 2001
_LONGEST_HEADER = 1_000  # characters; to read more could take a time that grows with the square
# One of several values of a header; the comma of an HTTP date divides none.
_ONE_VALUE = re.compile(r"\s*[A-Za-z]+,[^,]*|[^,]+")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:+-]+)", re.ASCII | re.IGNORECASE)
_TIME = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?![a-z])",
    re.ASCII | re.IGNORECASE,
)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}  # by the unit, or by its first letter
# Where these are text of their own, a charset is one that extends ASCII.
_ASCII = rb"""[{"a-z: 0.9, _'^~|`$@#%&*()<>?!;=+/ \u0041.xn--0ca. }]"""


@dataclass(frozen=True)
class Retry:
    """``retries``: after the first try. ``base_delay``, ``longest_delay``: seconds."""

    retries: int = 3
    base_delay: float = 1.0
    longest_delay: float = 60.0

    def delay(self, retry: int) -> float:
        """Seconds before ``retry`` (from 0): ``base_delay * 2**retry`` up to the longest; half of
        it is random, so that clients do not come back all at once."""
        full = min(self.base_delay * 2.0 ** min(retry, 64), self.longest_delay)
        return full / 2 + random.uniform(0, full / 2)

    def run(
        self,
        what: str,
        once: Callable[[], T],
        sleep: Callable[[float], object],
        whose: str = "",
    ) -> T:
        """The result of ``once``, which is called again after a TransientError.

        ``what`` names it, in the log behind ``whose`` it is; ``sleep`` takes seconds. Raises
        SourceError after the last retry, SourceUnavailable if its failure concerns every table, or
        if the source asks to wait for more than LONGEST_WAIT.
        """
        for retry in range(self.retries + 1):
            try:
                return once()
            except TransientError as error:
                failure = error
            wait = self.delay(retry) if failure.wait is None else failure.wait
            if wait > LONGEST_WAIT:
                raise SourceUnavailable(
                    f"{what}: {failure}. The source asks to wait {wait:.0f} s and a sync waits "
                    f"{LONGEST_WAIT:.0f} s at most: the next sync resumes here"
                )
            if retry < self.retries:
                next_try = f"retry {retry + 1} of {self.retries} in {wait:.1f} s"
                Logging.warning(f"{whose}{what}: {failure}; {next_try}")
                sleep(wait)
        kind = SourceUnavailable if failure.concerns_all else SourceError
        gave_up = f"; gave up after {_retries(self.retries)}" if self.retries else ""
        raise kind(f"{what}: {failure}{gave_up}")


def _retries(count: int) -> str:
    return "1 retry" if count == 1 else f"{count} retries"


def retry_after(headers: Mapping[str, str], reset_header: str = "") -> float | None:
    """Seconds, more than 0, that a source asks to wait; None if it asks for none.

    Both ``Retry-After`` (RFC 9110, 10.2.3) and the vendor's own ``reset_header``, which is looked
    at if the first cannot be read, may hold seconds ("20", "60s", "2 minutes"), a unix time in
    seconds or milliseconds, an HTTP date, or ISO 8601. A number below 1,000,000,000 means
    seconds from now. Of several values ("20, 20") the longest counts.
    """
    wait = _longest_wait(headers.get("Retry-After"))
    if wait is None:
        wait = _longest_wait(headers.get(reset_header))
    return wait if wait and wait > 0 else None


def _longest_wait(header: str | None) -> float | None:
    if not header or len(header) > _LONGEST_HEADER:
        return None
    waits = map(_seconds_from_now, _ONE_VALUE.findall(header))
    return max((wait for wait in waits if wait is not None), default=None)


def _seconds_from_now(text: str) -> float | None:
    """Of one value, from now on; below 0 for a moment that is over; None if it cannot be read."""
    seconds = _duration(text)
    if seconds is not None:
        return seconds
    number = _number(text)
    if number is not None and number < _FIRST_MOMENT:
        return number
    try:
        moment = _moment(text, number)
        return (moment - times.now()).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(text: str, number: float | None) -> datetime:
    try:
        return times.parse(text if number is None else number)
    except ValueError:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _duration(text: str) -> float | None:
    """The seconds of a time with its units ("60s", "20 seconds", "1m30s"); else None."""
    parts = _TIME.findall(text)
    if not parts or _TIME.sub("", text).strip():
        return None
    units = ((float(number), unit.lower()) for number, unit in parts)
    seconds: float = sum(number * _UNITS.get(unit, _UNITS[unit[0]]) for number, unit in units)
    return seconds if math.isfinite(seconds) else None


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
    """The values in ``text``, all of which JSON can hold: NaN is a text, as is an integer that is
    too long for Python, and half of a surrogate pair, which is no character, U+FFFD. Raises
    ValueError or RecursionError."""
    text = _ESCAPES.sub(_characters, text) if "\\u" in text else text
    try:
        return _loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # of an integer; a hook for all of them would cost time
        return _loads(text, parse_int=_integer_or_text)


# Control characters stand in texts of sources that do not escape them.
_loads = partial(json.loads, strict=False, parse_float=_number_or_text, parse_constant=str)


def _integer_or_text(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _characters(found: re.Match[str]) -> str:
    pairs = bytes.fromhex(found[0].replace("\\u", "").replace("\\", ""))
    return json.dumps(pairs.decode("utf-16-be", "replace"))[1:-1] or found[0]


def decode(body: bytes | bytearray, media_type: str) -> str:
    """The text of JSON in ``body``: in UTF-16 or UTF-32 where its first bytes say so, else in the
    charset that ``media_type`` names, else in UTF-8. What is no character there becomes U+FFFD."""
    encoding: str = json.detect_encoding(body)
    if encoding == "utf-8" and (named := _CHARSET.search(media_type)):
        encoding = _extending_ascii(named[1])
    return body.decode(encoding, "replace").lstrip("\ufeff")


@functools.lru_cache(maxsize=16)
def _extending_ascii(charset: str) -> str:
    """``charset`` if Python knows one of that name that extends ASCII, else UTF-8. What else
    Python calls an encoding reads JSON otherwise, or takes a time that grows with the square."""
    try:
        extends = _ASCII.decode(charset) == _ASCII.decode("ascii")
    except (LookupError, ValueError):
        return "utf-8"
    return charset if extends and codecs.lookup(charset).name != "ascii" else "utf-8"


def count_values(body: bytes | bytearray) -> int:
    """At least as many as there are JSON values in ``body``: each follows a comma or the beginning
    of a list or an object."""
    return sum(map(body.count, (b",", b"[", b"{"))) + 1


def as_list(value: Any) -> list[Any] | None:
    """A list as it is, and the values of an object whose keys are all numbers, which PHP makes of
    a list that has gaps; else None."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(key.isascii() and key.isdigit() for key in value):
        return list(value.values())
    return None


@dataclass(frozen=True, repr=False)
class Response:
    """What a source sent to ``request``. ``body``: the bytes after decompression."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray
    request: requests.PreparedRequest


def error_code(response: Response) -> str:
    """The OAuth code of an error in JSON (``invalid_grant``), or ""; never another word of it,
    which may quote what was sent."""
    try:
        code: str = json.loads(response.body)["error"]
        return code if code in _CODES else ""
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def pause(closed: threading.Event, seconds: float) -> bool:
    """Waits so many seconds, or until ``closed`` is set, and returns whether it is."""
    return closed.wait(seconds)


@dataclass(repr=False, eq=False)
class RestClient:
    """Requests to one origin; usable from several threads.

    ``timeout``: for connecting and for reading, in seconds. ``auth`` adds the credentials;
    ``unauthorized`` gets a request that met a 401 and how often it did, and says whether there
    are other credentials now. ``rate_limited`` tells which responses beside 429 mean "too many
    requests", ``reset_header`` until when. ``explain`` gives advice on a response that is final.
    ``concerns_all``: whatever fails here for good is a SourceUnavailable, as at the endpoint that
    gives the tokens for all others.
    ``parallel``: how many requests a caller may send concurrently; "too many requests" halves it,
    and a large response makes it 1. ``ahead`` tells how many may be sent while a page is stored.
    ``to_lower`` names the settings that make responses smaller.
    ``closed``, when it is set, ends the back-offs and the requests of all threads with an error;
    clients that need each other share it. ``pause`` waits, ``clock`` tells seconds. ``table``: the
    one that is being read, for the log.
    """

    base_url: str
    timeout: float
    retry: Retry
    headers: Mapping[str, str] = field(default_factory=dict)
    auth: AuthBase | None = None
    unauthorized: Callable[[requests.PreparedRequest, int], bool] = lambda sent, refusals: False
    rate_limited: Callable[[Response], bool] = lambda response: False
    reset_header: str = ""
    explain: Callable[[Response], str] = lambda response: ""
    concerns_all: bool = False
    parallel: int = 1
    to_lower: str = ""
    closed: Closed = field(default_factory=Closed)
    pause: Callable[[threading.Event, float], bool] = field(default_factory=lambda: pause)
    clock: Callable[[], float] = time.monotonic
    table: str = ""

    def __post_init__(self) -> None:
        self._backing_off, self._limited_at = threading.Lock(), -math.inf
        # Seconds in back-offs that are over, and when the one under way began: one value, which
        # another thread may read at any time.
        self._waits: tuple[float, float | None] = (0.0, None)
        self._has_large = False  # whether a large response came
        # Of a response with damaged headers it would log the whole URL.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._session = _Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, Adapter())
        self._session.headers.update(self.headers)
        # Without an `auth` of ours, requests would take a password from ~/.netrc.
        self._session.auth = self.auth or (lambda request: request)

    def get(
        self,
        link: str,
        params: Mapping[str, Any] | None = None,
        read: Callable[[Any], Any] = lambda content: content,
    ) -> Any:
        """What ``read`` makes of the JSON at ``link``: a path below ``base_url``, or an absolute
        URL of the same origin. ``read`` may raise TransientError, so that the request is retried.
        Raises SourceError; SourceUnavailable where other requests would not fare better."""
        return self._request("GET", link, read, params=params)

    def post(
        self, link: str, read: Callable[[Any], Any] = lambda content: content, **content: Any
    ) -> Any:
        """What ``read`` makes of the JSON response to ``content``: ``data=`` or ``json=``, as
        requests takes them. Raises SourceError, as ``get`` does."""
        return self._request("POST", link, read, **content)

    def _request(self, method: str, link: str, read: Callable[[Any], Any], **content: Any) -> Any:
        url = link if "://" in link else self.base_url + link
        if is_ambiguous(url):  # it is not shown, since it may hold anything
            raise SourceError(
                f"{method}: an address that can be read in several ways may not be below "
                f"{self.base_url}: it gets no request"
            )
        what = f"{method} {url.partition('?')[0]}"
        if _origin(url) != _origin(self.base_url):
            raise SourceError(f"{what} is not below {self.base_url}: it gets no request")
        params = content.get("params") or {}
        page = f"page {params['page']}" if self.table and "page" in params else ""
        whose = ", ".join(filter(None, (self.table, page)))
        try:
            return self.retry.run(
                what,
                lambda: read(self._once(what, method, url, content)),
                self.sleep,
                f"{whose}: " if whose else "",
            )
        except SourceUnavailable:
            raise
        except SourceError as error:
            if self.concerns_all:
                raise SourceUnavailable(str(error)) from None
            if page:
                error.args = (f"{page}: {error}",)  # whoever collects it names the table
            raise

    def ahead(self) -> int:
        """How many results a caller may have requested while it works on one: ``parallel``, or
        none once a large response came, since two would take too much memory."""
        return 0 if self._has_large else self.parallel

    @property
    def waited(self) -> float:
        """The seconds of all back-offs, of the one under way those until now."""
        seconds, since = self._waits
        return seconds if since is None else seconds + self.clock() - since

    def sleep(self, seconds: float) -> None:
        """Waits; no other thread sends a request meanwhile. Raises SourceError when the client is
        closed."""
        end = self.clock() + seconds
        with self._backing_off:
            now, (waited, _) = self.clock(), self._waits
            left = max(0.0, end - now)
            self._waits = waited, now
            if self.pause(self.closed, left):
                raise SourceError(ENDED)
            self._waits = waited + left, None

    def _once(self, what: str, method: str, url: str, content: Mapping[str, Any]) -> Any:
        with self._backing_off:
            sent = self.clock()
        if self.closed.is_set():
            raise SourceError(ENDED)
        with ExitStack() as unparsed:
            try:
                return self._read_json(what, method, url, content, sent, unparsed)
            except MemoryError:
                advice = self._too_large("the response takes more memory than there is")
                raise SourceError(f"{what}: {advice}") from None

    def _read_json(
        self,
        what: str,
        method: str,
        url: str,
        content: Mapping[str, Any],
        sent: float,
        unparsed: ExitStack,
    ) -> Any:
        """``unparsed`` is closed when the response, which may be a large one, is parsed."""
        exchange = partial(self._exchange, what, method, url, content, unparsed)
        response, refusals = exchange(), 0
        while response.status == 401:
            refusals += 1
            if not self.unauthorized(response.request, refusals):
                break
            response = exchange()
        self._check(what, response, sent)
        return self._content(what, response)

    def _check(self, what: str, response: Response, sent: float) -> None:
        """Raises TransientError or SourceError for a response that is no success."""
        status, reason = response.status, _status(response)
        if status == 429 or self.rate_limited(response):
            self._slow_down(sent)
            wait = retry_after(response.headers, self.reset_header)
            raise TransientError(f"{reason}, too many requests", wait)
        if firewall := _firewall(response):
            raise TransientError(f"{reason}, {firewall}", retry_after(response.headers))
        if status == 408 or status >= 500:
            raise TransientError(reason, retry_after(response.headers))
        if status == 407:
            raise SourceUnavailable(f"{what}: {reason}: {PROXY_REFUSES}")
        if 300 <= status < 400:
            reason += ", a redirect, which is not followed"
        if not 200 <= status < 300:
            raise self._refusal(what, reason, response)

    def _slow_down(self, sent: float) -> None:
        """Halves the concurrent requests, once for all that met the limit together: those that
        were ``sent`` before the last one did have nothing to add."""
        if sent > self._limited_at:
            self._limited_at, self.parallel = self.clock(), max(1, self.parallel // 2)

    def _refusal(self, what: str, reason: str, response: Response) -> SourceError:
        refused = response.status == 401 or error_code(response) in _REFUSED_CREDENTIALS
        kind = SourceUnavailable if refused else SourceError
        refusal = kind(self._final(what, reason, response))
        refusal.status = response.status
        return refusal

    def _content(self, what: str, response: Response) -> Any:
        """The JSON of a success."""
        reason, headers, body = _status(response), response.headers, response.body
        media_type = headers.get("Content-Type", "no type")
        # Headers that were cut look whole; they are likely to tell no length.
        told = "Content-Length" in headers or "Transfer-Encoding" in headers
        if not body and (told or response.status in (204, 205)):
            raise SourceError(self._final(what, f"{reason}, a response without content", response))
        values = count_values(body)
        if values > MOST_VALUES:
            advice = self._too_large(f"more than {MOST_VALUES} JSON values in a response")
            raise SourceError(f"{what}: {advice}")
        if len(body) > LARGE_RESPONSE or values > MANY_VALUES:
            self.parallel, self._has_large = 1, True
        try:
            return parse_json(decode(body, media_type))
        except (ValueError, RecursionError):
            if "json" in media_type or not body:
                raise TransientError(f"{reason}, but the JSON is cut or damaged") from None
        raise SourceError(self._final(what, f"{reason}, but no JSON ({media_type})", response))

    def _final(self, what: str, reason: str, response: Response) -> str:
        return f"{what}: {reason}. {self.explain(response)}".rstrip(". ")

    def _too_large(self, reason: str) -> str:
        return f"{reason}. Lower {self.to_lower}" if self.to_lower else reason

    def _exchange(
        self,
        what: str,
        method: str,
        url: str,
        content: Mapping[str, Any],
        unparsed: ExitStack,
    ) -> Response:
        options = {"timeout": self.timeout, "allow_redirects": False, "stream": True, **content}
        deadline = Deadline(self.timeout * DEADLINE, self.closed)
        with deadline:
            with self._explained(
                what, deadline, "the connection broke off before a response came"
            ):
                sent = self._session.request(method, url, **options)
            with (
                sent,
                self._explained(what, deadline, "the response was cut short, or is damaged"),
            ):
                body = self._read(what, sent, unparsed)
        if deadline.passed:  # headers that are cut off look whole
            raise TransientError(_TOO_SLOW)
        return Response(sent.status_code, sent.headers, body, sent.request)

    def _read(self, what: str, sent: requests.Response, unparsed: ExitStack) -> bytearray:
        """The body of a success, and the beginning of that of another response. Before it reads
        more than LARGE_RESPONSE of a success it waits until no other such response is
        ``unparsed``."""
        body, size, waited = bytearray(), 0, False
        kept = LARGEST_RESPONSE if 200 <= sent.status_code < 300 else _KEPT_OF_AN_ERROR
        while chunk := sent.raw.read1(65_536, decode_content=True):
            size += len(chunk)
            if size > LARGEST_RESPONSE:
                advice = self._too_large(f"more than {LARGEST_RESPONSE} bytes in a response")
                raise SourceError(f"{what}: {advice}")
            if len(body) < kept:
                body += chunk
            if len(body) > LARGE_RESPONSE and not waited:
                unparsed.enter_context(_large)
                waited = True
        return body  # a copy would take its size once more

    @contextmanager
    def _explained(self, what: str, deadline: Deadline, otherwise: str) -> Iterator[None]:
        """Errors of the libraries, whose texts hold the whole URL, become ours."""
        try:
            yield
        except NoConnection as failure:
            if self.closed.is_set():
                raise SourceError(ENDED) from None
            if failure.final:
                raise SourceUnavailable(f"{what}: {failure}") from None
            raise TransientError(str(failure), concerns_all=True) from None
        except (OSError, BaseHTTPError) as error:  # those of requests are OSErrors
            if self.closed.is_set():
                raise SourceError(ENDED) from None
            if deadline.passed:
                raise TransientError(_TOO_SLOW) from None
            if isinstance(error, requests.Timeout) or isinstance(error.__cause__, TimeoutError):
                reason = f"timed out reading: no response within {self.timeout:g} s"
                raise TransientError(reason) from None
            if _is_unsendable(error):
                reason = "no such request can be sent: check the address and the credentials"
                raise SourceUnavailable(f"{what}: {reason}") from None
            raise TransientError(otherwise) from None


class _Session(requests.Session):
    """A session that keeps no cookies, sends what goes to this machine to no proxy, and does not
    look at a redirect: even one that is not followed is read by requests as a whole, without a
    limit, and its address taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def merge_environment_settings(self, url: Any, *settings: Any) -> Any:
        """The credentials go in the clear where the address is http."""
        merged = super().merge_environment_settings(url, *settings)
        return {**merged, "proxies": {}} if is_loopback(urlsplit(url).hostname) else merged

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


def _status(response: Response) -> str:
    status = response.status
    return f"status {status}" + ("" if status < 300 else f" {error_code(response)}".rstrip())


def _firewall(response: Response) -> str:
    """What to say of a response that comes from a firewall (WAF), not from the source, else "".

    Challenges bear a header of Cloudflare's [1] or of AWS's [2], whatever their status is; other
    pages are known by being HTML: an API says in JSON that something is forbidden.
    1. https://developers.cloudflare.com/cloudflare-challenges/challenge-types/challenge-pages/detect-response/
    2. https://docs.aws.amazon.com/waf/latest/developerguide/waf-captcha-and-challenge-actions.html
    """
    headers, body = response.headers, response.body
    if "cf-mitigated" in headers or "x-amzn-waf-action" in headers:
        page = "a challenge"
    elif response.status == 403 and (
        _HTML.match(body)
        or ("html" in headers.get("Content-Type", "") and body.lstrip().startswith(b"<"))
    ):
        page = "an HTML page"
    else:
        return ""
    return (
        f"{page} of a firewall in front of the source. If it stays, check the address, and ask "
        "the source to let those of Fivetran through"
    )


def _is_unsendable(error: Exception) -> bool:
    """Whether requests refused to send the request. It raises InvalidHeader for responses, too,
    but then the error holds the request."""
    kinds = requests.exceptions
    if isinstance(error, kinds.InvalidHeader):
        return error.request is None
    return isinstance(error, (kinds.InvalidURL, kinds.InvalidSchema, kinds.MissingSchema))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of an address that is not ambiguous."""
    parts, usual = urlsplit(url), {"https": 443, "http": 80}
    return parts.scheme, parts.hostname, parts.port or usual.get(parts.scheme)
