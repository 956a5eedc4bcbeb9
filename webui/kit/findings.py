"""A finding of the run doctor as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from core.advice.diagnosis import Diagnosis
from webui.kit.html import Html, tag
from webui.kit.wording import Wording


def finding_card(finding: Diagnosis, w: Wording) -> Html:
    """Return a finding as a notice: title, evidence and meaning."""
    return tag(
        "div",
        tag("p", tag("strong", w.t(f"findings_view.title_{finding.id}")), " ", w.render(finding.evidence)),
        tag("p", w.render(finding.meaning)),
        class_="lg-notice lg-warn lg-finding",
        role="status",
    )


def count_line(findings: Sequence[Diagnosis], ids: Sequence[str], w: Wording) -> str:
    """Return in words how many of the findings have one of these ids, for the line of a folded step; "" for none."""
    count = sum(finding.id in ids for finding in findings)
    return w.t("findings_view.count", count=count) if count else ""
