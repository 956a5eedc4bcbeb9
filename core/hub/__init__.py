"""What goes to and from a model hub: a search, small files read beforehand, models fetched into the hub's own cache,
its answers in words. No torch.

Imports: workspace, system and the ground. What a model is good for is `core/models`' business.
`downloads.Downloads` is the way to a model: a list that a page, a command and a run share. It calls `download.fetch`,
which starts `fetch_worker`, whose `transfer` fills the cache.
`sets` is the same for data sets.
Add what a hub may answer: a sentence in `answers`. What of a repository is fetched: `listing`, `cached`. Where the
token comes from: `token`.
"""

import os

from huggingface_hub import constants

for _name in ("ALL_PROXY", "all_proxy"):
    # as GNOME writes it; httpx2, by which the Hub is asked, knows it as socks5 alone
    if (_proxy := os.environ.get(_name, "")).startswith("socks://"):
        os.environ[_name] = "socks5" + _proxy.removeprefix("socks")

# Else a process first asks the Hub what harnesses of agents there are, waits 3 s for it and keeps the answer in the
# person's own cache; what a mirror answers that is no such list then ends every question of a day (huggingface_hub
# 2.4).
constants.HF_HUB_DISABLE_TELEMETRY = True
