"""The code of the documentation runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tutorial_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 6
    program = tmp_path / "tutorial.py"
    program.write_text("\n".join(blocks))
    subprocess.run([sys.executable, str(program)], check=True)


def test_the_reference_is_what_the_package_says() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/api_reference.py"), "--check"], check=True)


def test_the_example_learns(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("the state of a cell depends on its input.\n" * 500)
    example = ROOT / "examples/python/train_text.py"
    command = [sys.executable, str(example), str(text), "--minutes", "2", "--width", "32"]
    bits = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        for line in run.stdout:
            bits.append(float(line.split()[2]))
            if bits[-1] < 1.5:
                run.terminate()  # it has learned
    assert bits[0] > 6 and bits[-1] < 1.5
