"""Results as the report gets them, names that try to break a page, and a reader of its HTML."""

from __future__ import annotations

import base64
import hashlib
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

import pydt

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "it's {{ 7*7 }} & more",
    "שלום",
    "عربي (123)",
    "🦊",
    '=HYPERLINK("http://evil.example")',
    "-",
    "+",
    "@x",
    "'quoted",
    "",
    "\u202egnp.exe",
    "a\nb\tc\x00",
    "</title></style>",
    "\ud800x",
    "very " * 60,
]


def results(
    names: list[str], *, found: bool = True, estimand: str = "swap", counterfactual: bool = True, seed: int = 0
) -> dict[str, Any]:
    """A results dict as the report's assembler writes it, of numbers that hang together."""
    rng = np.random.default_rng(seed)
    groups = len(names)
    stderr = 0.06 * np.exp(rng.normal(0, 0.05, groups))
    values = (rng.normal(0, 0.1, groups) if found else 0) + rng.normal(0, 1, groups) * stderr
    q = [min(1.0, 12 * math.erfc(abs(v / s) / math.sqrt(2))) for v, s in zip(values, stderr, strict=True)]
    arms, runs = [], []
    means = {"full": 0.782, "drop bottom": 0.81, "drop random": 0.79, "drop top": 0.746}
    order = [names[i] for i in np.argsort(values)]
    half = max(1, groups // 2)
    for kind, mean in means.items() if counterfactual else ():
        dropped = 0 if kind == "full" else half
        accuracy = rng.normal(mean if found else 0.93, 0.01, 14)
        left = {"drop bottom": order[:half], "drop random": order[::2], "drop top": order[-half:]}.get(kind, [])
        runs += [
            {"kind": kind, "dropped": dropped, "names": left, "seed": i, "accuracy": float(a)}
            for i, a in enumerate(accuracy)
        ]
        sd = float(accuracy.std(ddof=1))
        arm = {"kind": kind, "dropped": dropped, "n": 14, "mean": float(accuracy.mean()), "sd": sd}
        arms.append({**arm, "stderr": sd / math.sqrt(14), "failed": 0})
    by_kind = {arm["kind"]: arm for arm in arms}
    contrasts = [contrast(by_kind[kind], by_kind["drop random"]) for kind in ("drop bottom", "drop top") if arms]
    gains = [contrast(arm, by_kind["full"]) for arm in arms if arm["kind"] != "full"]
    return {
        "title": "Characters to digits",
        "task": "handwritten digits, 5-shot probe",
        "question": {
            **{"source": "printed characters", "source_images": 96 * groups, "groups": groups, "by": "class"},
            **{"target": "handwritten digits", "target_classes": 10, "score_images": 598, "report_images": 599},
            **{"metric": "top-1", "mode": "probe", "shots": 5, "draws": 8, "design": "random", "alpha": 0.25},
            **{"planned_models": 300, "method": "supervised"},
        },
        **{"models": 300, "failed": 0, "failure_p": None, "seconds": 312.4},
        **{"output": "margin", "unit": "logit units", "estimand": estimand, "estimator": "ols"},
        "verdict": {
            **{"correlation": 0.35 if found else 0.02, "p": 0.001 if found else 0.41, "permutations": 999},
            **{"found": found, "significant_groups": sum(x < 0.05 for x in q), "median_stderr": 0.06, "spread": 0.1},
            **{"models_needed": 2400, "models_needed_for": "a standard error of half the spread", "blocked": None},
        },
        "groups": [
            {"name": n, "value": float(v), "stderr": float(s), "df": 200.5, "q": x, "models": 75}
            for n, v, s, x in zip(names, values, stderr, q, strict=True)
        ],
        "placebos": [
            {"name": f"placebo {i + 1}", "value": float(v), "stderr": 0.06, "df": 190.0, "q": 0.9}
            for i, v in enumerate(rng.normal(0, 0.06, 8))
        ],
        **{"counterfactual": runs, "arms": arms, "contrasts": contrasts, "explained": 0.31},
        **{"gains": gains, "length": "steps" if arms else None},
        "agreement": {"correlation": 0.46, "low": 0.25, "high": 0.61},
        "rows": {"accuracy": rng.normal(0.7, 0.03, 300).tolist(), "output": rng.normal(0.9, 0.2, 300).tolist()},
        "target_classes": {
            "names": list("0123456789"),
            **{name: rng.normal(0.5, 0.1, (groups, 10)).tolist() for name in ("influence", "stderr", "q")},
        },
        "provenance": {"plan": "9f86d081884c7d65", "seed": 0, "code": "0.1.0"},
        "versions": {"pydt": "0.1.0", "python": "3.12", "core": "avx2"},
    }


def contrast(arm: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    """How an arm compares with another one."""
    difference, retraining = arm["mean"] - control["mean"], math.hypot(arm["stderr"], control["stderr"])
    both = math.hypot(retraining, 0.004)
    return {
        **{"kind": arm["kind"], "dropped": arm["dropped"], "n": 14, "control": control["kind"], "control_n": 14},
        **{"difference": difference, "stderr_retraining": retraining, "stderr_images": 0.004, "stderr": both},
        **{"low": difference - 2.05 * both, "high": difference + 2.05 * both},
        "p": math.erfc(abs(difference / retraining) / math.sqrt(2)),
    }


LETTERS = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page: well nested, every tag with its attributes and the text beneath it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(page)
        self.close()
        assert not self.open, [e["tag"] for e in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": [e["attrs"].get("id") for e in self.open]}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append({"tag": tag, "attrs": dict(attrs), "text": "", "inside": []})

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()["tag"] == tag
        if tag in ("td", "th", "dt", "dd"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def find(self, tag: str, **attrs: str) -> list[dict[str, Any]]:
        named = {k.rstrip("_"): v for k, v in attrs.items()}
        return [e for e in self.elements if e["tag"] == tag and all(e["attrs"].get(k) == v for k, v in named.items())]

    def section(self, name: str) -> str:
        return next(e["text"] for e in self.elements if e["attrs"].get("id") == name)


def runs_its_script_alone(page: Page) -> bool:
    """Whether the policy allows nothing but pictures and styles of the page, and one script, by its digest."""
    script = (Path(pydt.__file__).parent / "reporting" / "templates" / "page.js").read_bytes()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["attrs"]["content"].split("; ")
    allowed = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"]
    handlers = [name for e in page.elements for name in e["attrs"] if name.startswith("on")]
    scripts = [(e["text"], e["attrs"]) for e in page.find("script")]
    closed = ["base-uri 'none'", "form-action 'none'"]
    return policy == allowed + closed and scripts == [(script.decode(), {})] and not handlers


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").replace("\u2212", "-").split())
