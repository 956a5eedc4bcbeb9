"""Reads the hub's Xet storage as a stream from any offset: in parallel, and resumable after a kill.

`xet_get` of huggingface_hub writes a new file each time; `hf_xet`, which it uses, also streams from any byte. If the
package or the storage is not available (a mirror, a firewall), the same bytes come over plain HTTP.

SETTINGS: no telemetry; at most half a gigabyte of buffers instead of six, beside a run that trains; a storage that does
not answer is abandoned after some ten seconds instead of six minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import XetFileData
from huggingface_hub.utils._runtime import is_xet_available
from huggingface_hub.utils._xet import refresh_xet_connection_info, xet_headers_without_auth

if TYPE_CHECKING:
    from hf_xet import XetSession


SETTINGS = {
    "telemetry.enabled": False,
    "client.connect_timeout": "10s",
    "client.read_timeout": "30s",
    "client.retry_max_attempts": 2,
    "client.retry_max_duration": "60s",
    "reconstruction.download_buffer_size": 256_000_000,
    "reconstruction.download_buffer_perfile_size": 64_000_000,
    "reconstruction.download_buffer_limit": 512_000_000,
    "reconstruction.min_reconstruction_fetch_size": 64_000_000,
    "reconstruction.min_prefetch_buffer": 64_000_000,
}


class NoXet(Exception):
    """Xet is not available here, for a reason that may not affect plain HTTP."""


@lru_cache(maxsize=1)
def session() -> XetSession:
    """Return the one session of this process, created with SETTINGS at the first call."""
    from hf_xet import XetConfig, XetSession

    config = XetConfig()
    for name, value in SETTINGS.items():
        config = config.with_config(name, value)
    return XetSession(config)


def stream(file: XetFileData, size: int, start: int, headers: dict[str, str]) -> Iterator[bytes]:
    """Yield a file's bytes from start on, in order. headers: of a request to the hub, with its token. Raises NoXet if
    Xet is missing or fails."""
    if not is_xet_available():
        raise NoXet
    from hf_xet import XetFileInfo

    try:
        connection = refresh_xet_connection_info(file_data=file, headers=headers)
        group = session().new_download_stream_group(
            endpoint=connection.endpoint,
            token=connection.access_token,
            token_expiry_unix_secs=connection.expiration_unix_epoch,
            token_refresh_url=file.refresh_route,
            token_refresh_headers=headers,
            custom_headers=xet_headers_without_auth(headers),
        )
        chunks = iter(group.download_stream(XetFileInfo(file.file_hash, size), start=start))
    except (HTTPError, ValueError, RuntimeError, OSError) as error:
        raise _log_failure(error) from None
    while True:
        try:
            chunk = next(chunks, None)
        except (RuntimeError, ValueError, OSError) as error:
            # errors of hf_xet for its network, its tokens and its data
            raise _log_failure(error) from None
        if chunk is None:
            return
        yield chunk


def _log_failure(error: Exception) -> NoXet:
    """Log a warning with the error's type alone, as its text may hold signed addresses, and return the NoXet to raise,
    after which HTTP is used."""
    # Its text may hold signed addresses; its type is enough to investigate.
    logging.getLogger(__name__).warning("Xet gives nothing (%s), going on over HTTP", type(error).__name__)
    return NoXet()
