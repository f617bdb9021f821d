"""The terms of the report: what each means, in a sentence or two, and links to them from their first use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from markupsafe import Markup, escape

from pydt.reporting.judgements import LEVEL, STABLE, stability_word
from pydt.reporting.metric import NO_UNIT, Metric
from pydt.reporting.text import DASH

# anchor: pattern of its uses in the answer, in lower case
_USES = {
    "group": r"groups?",
    "whole": r"whole source",
    "interval": r"95(?: |\u00a0)% intervals?",
    "random": r"at random",
    "ranking": r"lowest-ranked|highest-ranked|ranking",
    "clearly": r"clearly",
    "halves": r"two halves",
    "retraining": r"retrain(?:ing|ings|ed)?",
}
_QUOTED = "\u201c[^\u201d]*\u201d"


def terms(results: Mapping) -> list[tuple[str, str, str]]:
    """(anchor, term, meaning) of what the report of these results says, in the order of its use."""
    metric, swap, unit = Metric.of(results["question"]), results["estimand"] == "swap", results["unit"]
    output, things, total = results["output"], metric.examples, len(results["groups"])
    better = "Positive is good for the target."
    if metric.direction:
        better = f"Its sign is turned, since lower is better: positive is good, a lower {output}."
    elif metric.measured:
        better = f"Positive is good, a higher {output}."
    better += f" Its unit is {unit}." if unit != NO_UNIT else ""
    errors = {
        "classical": " One variance of the noise is taken for all models, which these masks bear: half of the models "
        "have a group, so both halves weigh alike.",
        "robust": " The errors are robust: they hold where groups change how much the models scatter, too ("
        + (
            "HC2 with Bell and McCaffrey\u2019s degrees of freedom"
            if results.get("estimator") == "ols"
            else "each group\u2019s models with and without it have a spread of their own"
        )
        + ").",
        "none": " Here there are none: the masks leave nothing to judge them by.",
    }
    shuffled = (results["verdict"].get("permutations") or "") and f" ({results['verdict']['permutations']} of them)"
    one = "number a row" if metric.shared else ""
    shot = (
        "shot",
        "Shot",
        "A labelled image of each class of the target, from which a model learns its classes: \u201c1-shot\u201d "
        "is one a class, \u201cfull-shot\u201d all.",
    )
    return [
        ("group", "Group", f"Source {things} that are kept or left out together, such as those of one class."),
        ("whole", "Whole source", f"All source {things}, nothing left out."),
        (
            "interval",
            "95\u00a0% interval",
            "The range that a number may truly have: such a range holds the true number in 95 of 100 experiments.",
        ),
        (
            "random",
            "At random",
            f"The control. Leaving out groups also leaves out {things}; so as many groups, drawn by lot, are left out "
            "for comparison.",
        ),
        (
            "ranking",
            "Ranking",
            "All groups by their influence, the best first. The lowest-ranked are those that it puts last.",
        ),
        (
            "clearly",
            "Clearly better, clearly worse" if swap else "Clearly helps, clearly hurts",
            f"With q below {LEVEL}: of all groups called so, on average at most 1 in 20 is called so by chance alone.",
        ),
        (
            "halves",
            "Two halves agree at ...",
            "The models are split in two halves, and each half ranks the groups. 1: both rank them alike; 0: no more "
            "alike than by chance. "
            + "; ".join(f"{word}: from {least}" for least, word in STABLE)
            + f"; {stability_word(-1)}: less. In words of statistics, Spearman\u2019s rank correlation.",
        ),
        (
            "retraining",
            "Retraining",
            "New models, trained without the groups in question, on which no ranking rests: the test of it.",
        ),
        (
            "influence",
            "Influence, sign and unit",
            f"The coefficient of a group when the mean {output} on the target is regressed "
            f"({results.get('estimator') or DASH}) on which groups each model kept. {better}",
        ),
        (
            "estimand",
            "Better or worse than an average group" if swap else "Helps, hurts",
            "Every subset has the same size, so a value is the effect of having this group in place of an average one, "
            "and the values add to zero (estimand \u201cswap\u201d). Such an experiment cannot say whether a group "
            "hurts; the retrainings above can."
            if swap
            else "Subsets vary in size, so a value is the effect of adding this group to a random subset of the others "
            "(estimand \u201cadd\u201d).",
        ),
        (
            "error",
            "Standard error (s.e.)",
            "How far an influence would typically move if the whole experiment were run again with other subsets and "
            "seeds. The true value lies within about two standard errors in 95 of 100 cases."
            + errors.get(results.get("errors") or "", ""),
        ),
        (
            "q",
            "q",
            "The smaller, the surer. "
            f"It is the p-value after Benjamini and Hochberg\u2019s correction for having looked at {total} groups. If "
            f"all groups with q below {LEVEL} are believed, about 5\u00a0% of them are expected to be mistakes.",
        ),
        (
            "correlation",
            "Held-out correlation and permutation p",
            f"Influences estimated on some models{'' if one else ' (score half of the target)'} predict the "
            f"{'same number' if one else 'report-half outputs'} of models that were left aside. The p-value is the "
            f"share of shuffled experiments{shuffled} that predict as well; it is the one test of whether there is "
            "anything to rank.",
        ),
        (
            "score-half",
            "Score half and report half",
            "One number a row is both: influences and verdicts rest on it, in different rows."
            if one
            else f"Target {things} are split once. Influences come from one half; verdicts and retrainings are judged "
            "on the other, so that choosing does not flatter the result.",
        ),
        *([shot] if results["question"].get("shots") and not metric.measured else []),
        (
            "models",
            "Models",
            f"The number of trained {'models' if metric.measured else 'networks'} a figure rests on; in the ranking, "
            "how many of them had the group.",
        ),
    ]


def linked(texts: Iterable[str]) -> list[Markup]:
    """The texts with a link from the first use of each term, outside quoted names, to its meaning on the page."""
    names, seen = list(_USES), set()
    pattern = re.compile("|".join([_QUOTED, *(rf"\b({_USES[name]})\b" for name in names)]), re.IGNORECASE)

    def link(match: re.Match[str]) -> str:
        name = None if match.lastindex is None else names[match.lastindex - 1]
        if name is None or name in seen:
            return str(escape(match[0]))
        seen.add(name)
        return f'<a class="term" href="#term-{name}">{escape(match[0])}</a>'

    found = []
    for text in texts:
        parts, end = [], 0
        for match in pattern.finditer(text):
            parts += [str(escape(text[end : match.start()])), link(match)]
            end = match.end()
        found.append(Markup("".join([*parts, str(escape(text[end:]))])))
    return found
