"""What a report says in words: its first lines, its title, and what must be said of a dataset wherever it is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ule_datasets.base.shown import counted, joined
from ule_datasets.experiments.effect import Collapse, Comparison
from ule_datasets.papers.claims import Regime
from ule_datasets.papers.statistics import Verdict, spread
from ule_datasets.verification.judging import ClaimResult, StatementResult
from ule_datasets.verification.report.content import Report, strategy_words
from ule_datasets.victims.protocol import ALWAYS_TESTED
from ule_datasets.victims.table import starts_trained

SENTENCES = 4
"""More datasets than this are counted instead."""
TONES = {Collapse.SHOWN: "good", Collapse.PARTIAL: "part"}
"""Of what was expected to collapse."""


def headline(report: Report) -> list[str]:
    """The first lines, in plain words: whether datasets are what they say, and what training on them showed."""
    return [*_intact(report), *_shown(report), *([f"Refuted: {', '.join(report.refuted)}."] if report.refuted else [])]


def title(report: Report) -> str:
    """What was verified."""
    named = [f"{part.name} {part.version}" for part in report.datasets]
    return f"{len(named)} datasets" if len(named) > 3 else joined(named) or "claims"


def tags(report: Report) -> dict[str, str]:
    """What must be said of a dataset wherever it is named."""
    found = {}
    for part in report.datasets:
        judged = "reduced" if part.reduced else "not judged" if part.unjudged else ""
        made = "made in memory" if part.manifest_digest is None else ""
        found[part.name] = ", ".join(words for words in (judged, made) if words)
    return found


def labels(report: Report) -> dict[str, str]:
    """Names of the datasets for the plots."""
    return {name: f"{name} ({tag})" if tag else name for name, tag in tags(report).items()}


def effects(report: Report) -> list[str]:
    """A sentence for each dataset: which collapse shows under which strategies."""
    names, named = dict.fromkeys(one.dataset for one in report.comparisons), labels(report)
    models = {one.model for one in report.comparisons}
    found = []
    for name in names:
        words: dict[Collapse, list[str]] = {}
        for one in report.comparisons:
            if one.dataset == name:
                model = f" ({one.model})" if len(models) > 1 or starts_trained(one.model) else ""
                words.setdefault(one.collapse, []).append(strategy_words(one.strategy) + model)
        parts = [f"{collapse} under {joined(words[collapse])}" for collapse in Collapse if collapse in words]
        sentence = "; ".join(parts)
        alone = len(report.datasets) == 1
        found.append(f"{sentence[0].upper()}{sentence[1:]}." if alone else f"{named.get(name, name)}: {sentence}.")
    return found


def effect_tone(report: Report) -> str:
    """Of all effects together: good only where every collapse that was expected shows in full."""
    if report.unexpected:
        return "bad"
    found = [
        _best(one for one in report.comparisons if one.dataset == name)
        for name, expected in report.collapse_expected.items()
        if expected
    ]
    tones = {"" if best is None else TONES.get(best, "") for best in found}
    return "" if not tones or "" in tones else "part" if "part" in tones else "good"


def collapse_tone(report: Report, one: Comparison) -> str:
    """Of what one strategy showed."""
    if one.dataset in report.unexpected:
        return "bad"
    return TONES.get(one.collapse, "open") if report.collapse_expected.get(one.dataset) else "open"


def verdict_words(result: ClaimResult) -> str:
    """One verdict for a claim: on its number if that could be judged, else on its effect."""
    level = result.verdict is result.level.verdict
    words = str(result.verdict) if level else f"effect {result.verdict}"
    return f"{words} (another model)" if result.stand_in and result.verdict is not Verdict.NOT_RUN else words


def statement_words(result: StatementResult) -> str:
    """A statement's verdict, and whether it speaks of others than the paper."""
    stood_in = result.stand_ins and result.judged.verdict is not Verdict.NOT_RUN
    return f"{result.judged.verdict} (stand-ins)" if stood_in else str(result.judged.verdict)


def measured(result: ClaimResult) -> str:
    """Mean ± sd (runs)."""
    return f"{result.measured[0]:.3f}" if result.claim.regime is Regime.SIZE else spread(result.measured)


def hardware(report: Report) -> list[str]:
    """What runs were made on, with how many of them."""
    if report.result is None:
        return []
    words = Counter(
        f"{run.history.device}, {counted(run.history.threads, 'thread')}"
        + (f", {run.history.ranks} processes" if run.history.ranks > 1 else "")
        for run in report.result.runs
    )
    return [f"{name} ({counted(number, 'run')})" for name, number in words.most_common()]


def tested(report: Report) -> str:
    """After which epochs the test images were looked at, where that was not after every one."""
    runs = () if report.result is None else report.result.runs
    intervals = sorted({each for run in runs if (each := run.history.protocol.test_interval) is not None})
    every = " or ".join(f"{interval}th" for interval in intervals)
    return f"each of the first and the last {ALWAYS_TESTED} epochs and every {every} one" if every else ""


def fine_tuned(report: Report) -> list[str]:
    """A sentence for each model that started from trained weights: which, and how."""
    runs = () if report.result is None else report.result.runs
    protocols = {run.cell.model: run.history.protocol for run in runs}
    found = []
    for weights in report.weights:
        protocol = protocols.get(weights["name"])
        if protocol is not None:
            inputs = "normalised as for those weights" if protocol.normalise else "in [0, 1] without normalisation"
            clip = "" if protocol.gradient_clip is None else f"gradients clipped at norm {protocol.gradient_clip:g}, "
            found.append(
                f"{weights['name']}: {weights['architecture']} from {weights['file']} ({weights['origin']}, sha256 "
                f"{weights['sha256']}) with a new last layer; all layers fine-tuned for {protocol.epochs} epochs at "
                f"learning rate {protocol.optimiser.learning_rate:g}, {protocol.schedule.kind} schedule, {clip}"
                f"images {inputs}"
            )
    return found


def counts(words: Iterable[str]) -> str:
    """How often each of some words stands there."""
    return ", ".join(f"{number} {word}" for word, number in Counter(words).most_common())


def _intact(report: Report) -> list[str]:
    """What the checks of folders say."""
    found = []
    for part in report.datasets:
        failed = [check for check in part.checks if not check.passed]
        if failed:
            found.append(f"{part.name} is not what it says it is: {len(failed)} of {len(part.checks)} checks failed.")
    sound = [part.name for part in report.datasets if part.checks and part.intact]
    if sound and report.result is None:
        verb, whose = ("is", "its") if len(sound) == 1 else ("are", "their")
        found.append(f"{joined(sound)} {verb} exactly what {whose} manifest says; nothing was trained.")
    return found


def _shown(report: Report) -> list[str]:
    """What training showed, and how to read it."""
    by_dataset: dict[str, list[Comparison]] = {}
    for one in report.comparisons:
        by_dataset.setdefault(one.dataset, []).append(one)
    if not by_dataset or report.result is None:
        return []
    if len(by_dataset) > SENTENCES:
        best = Counter(map(_best, by_dataset.values()))
        words = ", ".join(f"{collapse} by {best[collapse]}" for collapse in Collapse if best[collapse])
        return [f"Of {len(by_dataset)} datasets, under the strategy that each is best at: {words}."]
    models = list(dict.fromkeys(one.model for one in report.comparisons))
    several = len(models) > 1
    length = [] if report.profile.own else [counted(report.profile.epochs, "epoch")]
    how = ", ".join([*([] if several else models), *length])
    told = [_protects(name, own, several) for name, own in by_dataset.items()]
    chances = " or ".join(f"{chance:g}" for chance in report.result.chances)
    return [
        *told,
        f"In brackets: clean test images that a model ({how}) gets right when trained on it, and when trained on the "
        f"clean images instead; guessing gives {chances} %.",
    ]


def _best(comparisons: Iterable[Comparison]) -> Collapse | None:
    """What shows under the strategy that protects best; ``None``: nothing was tried."""
    return min((one.collapse for one in comparisons), key=list(Collapse).index, default=None)


def _protects(name: str, comparisons: Sequence[Comparison], several: bool) -> str:
    """One dataset against every way of training that was tried."""
    groups: dict[Collapse, list[Comparison]] = {}
    for one in comparisons:
        groups.setdefault(one.collapse, []).append(one)
    full, part, none, unknown = (_ways(groups[kind], several) if kind in groups else "" for kind in Collapse)
    clauses = [f"against {full}"] if full else []
    clauses += [f"in part against {part}"] if part else []
    if clauses:
        sentence = f"{name} protects {', '.join(clauses)}" + (f", but not against {none}" if none else "")
    else:
        sentence = f"{name} does not protect against {none}" if none else ""
    if unknown:
        about = f"about {unknown} nothing can be said: the control did not learn, or a loss was not finite"
        sentence = f"{sentence}; {about}" if sentence else f"{name}: {about}"
    return f"{sentence}."


def _ways(comparisons: Sequence[Comparison], several: bool) -> str:
    """Ways of training, with what was measured."""
    names = []
    for one in comparisons:
        words = {"none": "training without augmentation", "standard": "standard training"}
        way = words.get(one.strategy, f"training with {one.strategy}")
        names.append(f"{way} of {one.model}" if several or starts_trained(one.model) else way)
    poisoned, clean = ([getattr(one, what).mean for one in comparisons] for what in ("poisoned", "clean"))
    return f"{joined(names)} ({_range(poisoned)}, clean {_range(clean)})"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
