"""Every snippet of docs/encoded-images.md, run as written, one after the other in one folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "encoded-images.md"


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")
def test_the_page_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nvidia.dali")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    for snippet in snippets:
        exec(compile(snippet, PAGE.name, "exec"), names)
    assert len(snippets) == 3
    said = capsys.readouterr().out
    assert re.search(r"^\(6, \d+\) 8$", said, re.M)
    assert "torch.Size([80, 3, 32, 32]) torch.Size([40])" in said
    assert "slant 0/3.jpg: has another length than when it was indexed" in said
    assert "[40, 40, 40] {" in said
