"""Settings that several connectors have: fields of a settings dataclass, as ``setting`` makes
them, with one label, one description and one range everywhere."""

from typing import Any

from .settings import FLAG, URL, integer, setting


def switch(label: str, description: str, default: str = "true") -> Any:
    return setting(label, description, FLAG, default=default)


def base_url(default: str | None, description: str = "Where the API is") -> Any:
    return setting("Base URL", description, URL, default=default)


def request_timeout(default: str) -> Any:
    description = "Timeout for connecting and for reading, in seconds"
    return setting("Request timeout", description, integer(1, 300), default=default)


def retries() -> Any:
    description = "How often a request that failed is sent again"
    return setting("Retries", description, integer(0, 10), default="3")


def parallel_requests() -> Any:
    description = "Requests that are sent concurrently"
    return setting("Parallel requests", description, integer(1, 4), default="4")


def page_size(most: int, default: str) -> Any:
    description = "Records asked for in a request"
    return setting("Records per page", description, integer(1, most), default=default)


def full_refresh_hours(description: str) -> Any:
    return setting("Full refresh", description, integer(0, 8760), default="24")


def sync_frequency(default: str) -> Any:
    """For the configurations of older connectors."""
    description = "Unused: Fivetran has the schedule"
    return setting("Sync frequency", description, integer(1, 24), default=default, unused=True)


def debug_log() -> Any:
    return switch("Debug log", "Log every page", "false")
