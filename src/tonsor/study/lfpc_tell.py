"""What the study of learned criteria has found, as a page and as figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tonsor.methods.lfpc.search import Search
from tonsor.report.draw_search import draw_search
from tonsor.report.norms import filter_norms, norm_densities
from tonsor.report.raw import save_figure
from tonsor.study.compared import apart, right_of, seeds_and_spread, share
from tonsor.study.lfpc import EVEN, LEARNED, PLAN, RANDOM, SEARCHED, LfpcStudy
from tonsor.study.lfpc_chosen import agreement, chosen_table, sure
from tonsor.study.lfpc_overlap import Overlap
from tonsor.study.markdown import table
from tonsor.study.paired import Answers, Figure, accuracy, difference

Results = Mapping[str, Mapping[str, Any]]
Some = list[Mapping[str, Any]]
BEST = "best"
BEFORE = ("pruned by", "cut", "recalibrated", "LFPC - this, recalibrated")


def page(
    study: LfpcStudy,
    found: Results,
    whole: Figure,
    *,
    answers: Answers | None = None,
    overlaps: Mapping[float, Sequence[Overlap]] | None = None,
) -> str:
    """Tell all that was found.

    With the `answers` of the whole network, differences to it are paired. `overlaps` say how far
    criteria keep the same channels.
    """
    lines = [f"## {study.base.network}, {whole.percent} % before anything is cut", ""]
    for kept in shares(found):
        mine = [r for r in found.values() if r["settings"]["kept"] == kept]
        lines += [f"### {kept:.0%} of MACs", ""]
        lines += [*table(header(study), rows(study, found, kept, whole, answers)), ""]
        lines += ["Before fine-tuning:", "", *table(BEFORE, before(study, found, kept)), ""]
        lines += ["Sites by the criterion that they chose:", ""]
        lines += [*chosen_table(study.criteria, [r["sites"] for r in mine]), ""]
        lines += [f"- {c}" for c in _of_share(study, found, kept)]
        lines += [f"- {_alike(o)}" for o in (overlaps or {}).get(kept, ())]
        lines += [""]
    told = [
        *_about(study, found, paired=answers is not None),
        *study.base.conditions(_seeds(found)),
    ]
    return "\n".join([*lines, *(f"- {c}" for c in told)])


def shares(found: Results) -> list[float]:
    """Return the shares of which there are results, the largest first."""
    return sorted({r["settings"]["kept"] for r in found.values()}, reverse=True)


def header(study: LfpcStudy) -> tuple[str, ...]:
    """Return the header of the table of a share."""
    against = (f"- {name}" for name in (*study.criteria, "best single"))
    return ("pruned by", "MACs", "parameters", "accuracy", "seeds", "- whole", *against)


def names(study: LfpcStudy) -> dict[str, str]:
    """Return what the rows are called, in their order."""
    return {
        LEARNED: "LFPC", **{c: f"{c} everywhere" for c in study.criteria},
        BEST: "best single, by validation", RANDOM: "a random criterion for each site",
        EVEN: f"the same part of each group ({study.even})",
        SEARCHED: "LFPC, with the weights of the search",
    }  # fmt: skip


def rows(
    study: LfpcStudy, found: Results, kept: float, whole: Figure, answers: Answers | None = None
) -> Iterator[tuple[str, ...]]:
    """Yield a row for each kind; differences are paired, image by image."""
    others = {kind: of(study, found, kind, kept) for kind in (*study.criteria, BEST)}
    for kind, name in names(study).items():
        mine = of(study, found, kind, kept)
        if not mine:
            continue
        right = right_of(study.base, mine)
        against = [
            apart(study.base, mine, theirs) if other != kind and theirs else ""
            for other, theirs in others.items()
        ]
        yield (
            name, share(mine, "macs"), share(mine, "params"), accuracy(right).percent,
            seeds_and_spread(right), _to_whole(right, whole, answers), *against,
        )  # fmt: skip


def before(study: LfpcStudy, found: Results, kept: float) -> Iterator[tuple[str, ...]]:
    """Yield a row for each kind: right after the cut, and with statistics taken anew."""
    learned = of(study, found, LEARNED, kept)
    for kind, name in names(study).items():
        mine = of(study, found, kind, kept)
        if not mine:
            continue
        pairs = _of_same_seeds(learned, mine) if kind != LEARNED else ([], [])
        ours, theirs = (right_of(study.base, rs, "recalibrated") for rs in pairs)
        yield (
            name,
            *(accuracy(right_of(study.base, mine, w)).percent for w in ("cut", "recalibrated")),
            difference(ours, theirs).signed if ours else "",
        )


def of(study: LfpcStudy, found: Results, kind: str, kept: float) -> Some:
    """Return the results of a kind at a share, one for each seed.

    The best single criterion is, for each seed, the one whose network gets most of the validation
    images right; of equal ones it is the first.
    """
    results: Some = []
    for trial in found.values():
        if trial["settings"]["kept"] == kept:
            name = best_single(study, trial) if kind == BEST else kind
            if name in trial["kinds"]:
                results.append({**trial["kinds"][name], "settings": trial["settings"]})
    return results


def best_single(study: LfpcStudy, trial: Mapping[str, Any]) -> str | None:
    """Return the criterion that validation would choose; None if it can't tell."""
    kinds = trial["kinds"]
    right = [kinds[c]["validation"] if c in kinds else math.nan for c in study.criteria]
    if not right or not all(map(math.isfinite, right)):
        return None
    return study.criteria[right.index(max(right))]


def _to_whole(right: Sequence[Answers], whole: Figure, answers: Answers | None) -> str:
    if answers is not None:
        return difference(right, [answers]).signed
    mine = accuracy(right)
    return Figure(mine.mean - whole.mean, math.hypot(mine.error, whole.error)).signed


def _of_same_seeds(some: Some, others: Some) -> tuple[Some, Some]:
    seeds = {r["settings"]["seed"] for r in some} & {r["settings"]["seed"] for r in others}
    mine, theirs = ([r for r in rs if r["settings"]["seed"] in seeds] for rs in (some, others))
    return mine, theirs


def _of_share(study: LfpcStudy, found: Results, kept: float) -> Iterator[str]:
    """Yield what is to be said of one share: how costs were met, and how sure choices are."""
    trials = [r for r in found.values() if r["settings"]["kept"] == kept]
    near = Search(**(study.search or {})).tolerance
    likeliest, drawn, reached = (
        [r[name] / r["whole"] for r in trials] for name in ("likeliest", "drawn", "reached")
    )
    within = sum(abs(cost - kept) <= near * kept + 1e-12 for cost in likeliest)
    yield (
        f"Cost, as a share of the whole, for a target of {kept:.1%}: of what was likeliest in the "
        f"end {_range(likeliest)}, within the tolerance of {near:.0%} in {within} of "
        f"{len(trials)} searches; of the last draws {_range(drawn)}; of the plans "
        f"{_range(reached)}."
    )
    sites = [r["sites"] for r in trials]
    yield f"The odds of the chosen criterion are {sure(sites):.0%}, the mean over sites."
    every = [site for some in sites for site in some.values()]
    if idle := sum(site["left"] == site["of"] for site in every):
        yield f"{idle} of {len(every)} sites lose nothing, so that their criterion is all the same."
    if (agreed := agreement(sites)) is not None:
        same, count = agreed
        chance = len(study.criteria) ** (1 - len(sites))
        yield (
            f"All {len(sites)} seeds chose the same criterion at {same} of {count} sites; by "
            f"chance it would be {chance * count:.1f}."
        )
    best = Counter(filter(None, (best_single(study, r) for r in trials)))
    if best:
        counts = ", ".join(f"{name} for {n} seed(s)" for name, n in best.most_common())
        yield f"Best single criterion by the validation images: {counts}."
    if odd := _other_widths(study, trials):
        yield f"Not of the widths of LFPC: {', '.join(odd)}."
    for trial in trials:
        for note in trial["notes"]:
            yield f"Seed {trial['settings']['seed']}: {note}."


def _other_widths(study: LfpcStudy, trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what costs other than LFPC does, though it should not."""
    same = {k: n for k, n in names(study).items() if k not in (BEST, EVEN)}
    return [
        name for kind, name in same.items()
        if any(_costs(t, kind) != _costs(t, LEARNED) for t in trials if kind in t["kinds"])
    ]  # fmt: skip


def _costs(trial: Mapping[str, Any], kind: str) -> list[Any]:
    return [trial["kinds"].get(kind, {}).get(cost) for cost in ("macs", "params")]


def _alike(overlap: Overlap) -> str:
    return (
        f"Of the channels that {overlap.first} keeps at these widths, {overlap.second} keeps "
        f"{overlap.same:.0%} too; by chance it would be {overlap.chance:.0%}."
    )


def _about(study: LfpcStudy, found: Results, *, paired: bool) -> Iterator[str]:
    base = study.base
    yield (
        "All rows but that of the same part have the widths that LFPC found, to the channel, so "
        "that they cost the same to the unit and differ by the criterion alone. They are cut from "
        "the same weights and tuned alike; only the last row goes on from those that were trained "
        "during the search."
    )
    yield (
        f"A search takes {study.search_epochs} passes over half of the training images; the odds "
        "are learned from the other half. Groups of channels that go together are one site."
    )
    yield (
        f"Best single: for each seed the criterion that is best on {base.validation:,} validation "
        "images after tuning, which is a choice among networks that LFPC does not have."
    )
    yield "MACs are those of convolutions and linear layers, as a share of the whole network's."
    if not paired:
        yield "Differences to the whole network are not paired: the errors of both are in them."
    missing = len(study.trials()) - len(found)
    if missing:
        yield f"{missing} of {len(study.trials())} trials are still to run."


def draw(study: LfpcStudy, found: Results, whole: Figure, folder: Path) -> list[Path]:
    """Draw the norms of the network's filters, and the search of the first seed at each share."""
    anatomy, name = study.base.anatomy(study.base.model()), study.base.network
    norms, conditions = filter_norms(anatomy), [f"{name}, {whole.percent} % accuracy, all whole"]
    made = [folder / "lfpc_norms.svg"]
    svg = norm_densities(norms, conditions=conditions)
    save_figure(made[0], svg, {"norms": norms, "conditions": conditions})
    for trial in study.trials():
        where, kept = folder / trial.key, trial.settings["kept"]
        if trial.settings["seed"] != study.seeds[0] or not (where / PLAN).exists():
            continue
        said = [name]
        if trial.key in found and (mine := of(study, {"": found[trial.key]}, LEARNED, kept)):
            said = [f"{name}, {accuracy(right_of(study.base, mine)).percent} % after fine-tuning"]
        made += draw_search(
            where, anatomy, out=folder, prefix=f"lfpc_{100 * kept:g}_", conditions=said
        )
    return made


def _range(values: Sequence[float]) -> str:
    low, high = (f"{end(values):.1%}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def _seeds(found: Results) -> int:
    return len({r["settings"]["seed"] for r in found.values()})
