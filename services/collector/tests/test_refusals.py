"""What forbids eBPF on a machine is named, with what to do."""

from pathlib import Path

import pytest

from flowverdict_collector.refusals import why_refused

LIMITED = "Max locked memory         8388608              8388608              bytes\n"
UNLIMITED = "Max locked memory         unlimited            unlimited            bytes\n"


@pytest.mark.parametrize(
    ("release", "limits", "seccomp", "why"),
    [
        ("5.10.0-32-amd64", LIMITED, "0", "8388608 bytes of locked memory are too few"),
        ("5.10.0-32-amd64", UNLIMITED, "0", "by a security module"),
        ("5.11.0", LIMITED, "0", "by a security module"),
        ("6.1.0-40-amd64", LIMITED, "2", "a seccomp profile forbids bpf"),
    ],
)
def test_what_forbids_the_system_call_is_named(
    tmp_path: Path, release: str, limits: str, seccomp: str, why: str
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/limits").write_text(limits)
    (tmp_path / "proc/self/status").write_text(f"Name:\tpython\nSeccomp:\t{seccomp}\n")
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text(f"{release}\n")
    assert why in why_refused(tmp_path, permitted=False)
    assert not why_refused(tmp_path, permitted=True)
