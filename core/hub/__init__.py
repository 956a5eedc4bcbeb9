"""Traffic with a model hub: searches, small files read before a download, downloads into the hub's own cache, and its
errors as sentences. No torch.

Imports: workspace, system and the ground. `core/models` judges what a model can be used for.
`downloads.Downloads` is the list of the page; runs and commands download without it. All call `download.fetch`,
which starts `fetch_worker`, whose `transfer` fills the cache. `sets` is the same for datasets.
Add an error of a hub: a sentence in `hub_errors`. Files of a repository to download: `listing`, `cached`. Source of the
token: `token`.
"""

import os

from huggingface_hub import constants

for _name in ("ALL_PROXY", "all_proxy"):
    # GNOME writes socks://; httpx2, with which the Hub is called, knows only socks5://
    if (_proxy := os.environ.get(_name, "")).startswith("socks://"):
        os.environ[_name] = "socks5" + _proxy.removeprefix("socks")

# Otherwise a process first requests the Hub's list of agent harnesses, waits up to 3 s and caches the answer; a
# mirror's answer that is no such list then breaks every request for a day (huggingface_hub 2.4).
constants.HF_HUB_DISABLE_TELEMETRY = True
