"""What the demo prints: the verdict in words, the rules, and where to find more."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flowverdict_contracts.verdicts import Cause, FailingFlow, Rule, Verdict
from flowverdict_lab.phases import Outcome

__all__ = ["show"]


def show(console: Console, outcome: Outcome, look_further: Mapping[str, str]) -> None:
    """Print the result of a run; `look_further` maps each output to its location."""
    verdict = outcome.verdict
    console.print()
    if verdict is None:
        text = Text(f"No verdict: {outcome.in_words()}.", style="bold")
        console.print(Panel(text, title="Verdict", title_align="left"))
    else:
        console.print(Panel(_words(outcome, verdict), title="Verdict", title_align="left"))
        console.print(_causes(verdict.causes))
        console.print(_rules(verdict.rules))
        console.print(_flows(verdict.failing_flows))
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


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _causes(causes: Sequence[Cause]) -> Table:
    table = _table(
        "Causes, best first", ["cause", "alternatives"], ["score", "precision", "explains", "p"]
    )
    for cause in causes:
        table.add_row(
            str(cause),
            ", ".join(map(str, cause.alternatives)),
            f"{cause.score:.2f}",
            f"{cause.precision:.2f}",
            f"{cause.explains:.2f}",
            f"{cause.p_value:.2g}",
        )
    return table


def _rules(rules: Sequence[Rule]) -> Table:
    table = _table(
        "Association rules", ["antecedents", "consequents"], ["support", "confidence", "lift"]
    )
    for rule in rules:
        table.add_row(
            ", ".join(rule.antecedents),
            ", ".join(rule.consequents),
            f"{rule.support:.3f}",
            f"{rule.confidence:.3f}",
            f"{rule.lift:.3f}",
        )
    return table


def _flows(flows: Sequence[FailingFlow]) -> Table:
    table = _table(
        "Failing flows",
        ["from", "to"],
        ["retransmitted", "data segments", "failed opens", "RTT ms"],
    )
    for flow in flows:
        table.add_row(
            flow.src,
            flow.dst,
            "" if flow.retransmission_ratio is None else f"{100 * flow.retransmission_ratio:.1f}%",
            str(flow.data_segments_sent),
            str(flow.failed_opens),
            f"{flow.rtt_us / 1000:.1f}",
        )
    return table
