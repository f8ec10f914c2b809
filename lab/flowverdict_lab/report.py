"""What the demo prints: the verdict in words, the rules, and where to find more."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flowverdict_contracts.verdicts import Cause, FailingFlow, Rule, Verdict
from flowverdict_lab.phases import Outcome

__all__ = ["show"]

_BETWEEN = 3
"""Spaces and lines that a column takes beside its text."""


def show(console: Console, outcome: Outcome, look_further: Mapping[str, str]) -> None:
    """Print the result of a run; `look_further` maps each output to its location."""
    verdict = outcome.verdict
    console.print()
    if verdict is None:
        text = Text(f"No verdict: {outcome.in_words()}.", style="bold")
        console.print(Panel(text, title="Verdict", title_align="left"))
    else:
        console.print(Panel(_words(outcome, verdict), title="Verdict", title_align="left"))
        for title, rows in (
            ("Causes, best first", _causes(verdict.causes)),
            ("Association rules", _rules(verdict.rules)),
            ("Failing flows", _flows(verdict.failing_flows)),
        ):
            if rows:
                console.print(_listing(console, title, rows))
    console.print(Text("More details", style="bold"))
    for what, where in look_further.items():
        console.print(f"  {what:<11} {where}", highlight=False, soft_wrap=True)


def _words(outcome: Outcome, verdict: Verdict) -> Text:
    statuses = ", ".join(dict.fromkeys(each.status for each in outcome.verdicts))
    facts = {
        "window": f"{verdict.window.start} to {verdict.window.end}",
        "incident": f"{verdict.incident_id}: {statuses}",
        "conditions": ", ".join(verdict.conditions),
        "coverage": _coverage(verdict),
    }
    opened = next((each for each in outcome.verdicts if each.status == "opened"), None)
    if opened and "during" in outcome.phases:
        at = datetime.fromisoformat(opened.opened_at).timestamp()
        facts["opened"] = f"{at - outcome.phases['during'][0] / 1e9:.0f} s after the fault began"
    text = Text(verdict.summary + "\n", style="bold")
    for other in outcome.also:
        text.append(f"\nAlso: {other.summary}\n")
    for name, fact in facts.items():
        text.append(f"\n{name:<11} {fact}", style="not bold")
    return text


def _coverage(verdict: Verdict) -> str:
    coverage, flows = verdict.coverage, verdict.flows
    return (
        f"{flows.failing} flows fail, {flows.ok} are OK, {flows.undecided} sent too little; "
        f"lost: {coverage.lost_flow_updates} flow updates, {coverage.lost_sockets} "
        f"sockets, {coverage.lost_messages} messages; {coverage.rows_late} rows late"
    )


def _listing(console: Console, title: str, rows: Sequence[Mapping[str, str]]) -> RenderableType:
    """Rows as a table, or one after the other where the terminal is too narrow for it.

    What is empty or 0 in each of them is left out. A name is never broken.
    """
    names = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    if sum(widths) + _BETWEEN * len(widths) <= console.width:
        table = Table(title=f"\n{title}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in names:
            is_number = all(row[name][:1].isdigit() or not row[name] for row in rows)
            table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(row[name]) for name in names))
        return table
    lines = [Text(f"\n{title}", style="italic")]
    for row in rows:
        lines.append(Text())
        lines += [Text(f"{name} {row[name]}") for name in names if row[name]]
    return Group(*lines)


def _causes(causes: Sequence[Cause]) -> list[dict[str, str]]:
    return [
        {
            "cause": str(cause),
            "alternatives": ", ".join(map(str, cause.alternatives)),
            "score": f"{cause.score:.2f}",
            "precision": f"{cause.precision:.2f}",
            "explains": f"{cause.explains:.2f}",
            "p": f"{cause.p_value:.2g}",
        }
        for cause in causes
    ]


def _rules(rules: Sequence[Rule]) -> list[dict[str, str]]:
    return [
        {
            "antecedents": ", ".join(rule.antecedents),
            "consequents": ", ".join(rule.consequents),
            "support": f"{rule.support:.3f}",
            "confidence": f"{rule.confidence:.3f}",
            "lift": f"{rule.lift:.3f}",
        }
        for rule in rules
    ]


def _flows(flows: Sequence[FailingFlow]) -> list[dict[str, str]]:
    def unless_zero(number: int, text: str) -> str:
        return text if number else ""

    return [
        {
            "from": flow.src,
            "to": flow.dst,
            "retransmitted": ""
            if flow.retransmission_ratio is None
            else f"{100 * flow.retransmission_ratio:.1f}%",
            "data segments": unless_zero(flow.data_segments_sent, str(flow.data_segments_sent)),
            "failed opens": unless_zero(flow.failed_opens, str(flow.failed_opens)),
            "RTT ms": unless_zero(flow.rtt_us, f"{flow.rtt_us / 1000:.1f}"),
        }
        for flow in flows
    ]
