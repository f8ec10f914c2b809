"""What is generated from the code is what the code says."""

import subprocess
import sys
from pathlib import Path


def test_the_page_of_metrics_is_what_the_code_serves() -> None:
    argv = [sys.executable, "docs/generate.py"]
    made = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    hint = "write it anew: .venv/bin/python docs/generate.py > docs/metrics.md"
    assert Path("docs/metrics.md").read_text() == made, hint
