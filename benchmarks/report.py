"""The measurements as a dated page: medians, ranges, all seeds."""

import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from contestants import PEERS
from journal import Journal, Record, machine
from protocol import FULL, Protocol
from race import ROW as RACE
from throughput import WAYS

_NOT_MEASURED = "not measured"
_STOCK = "nanoGPT"
_OURS = "daybreak-char"


def report(protocol: Protocol, journal: Journal) -> str:
    """All rows; what was not measured is said to be so."""
    facts = machine()
    parts = [
        f"# Daybreak against others on a CPU, {datetime.now(UTC).date().isoformat()}",
        f"`make bench-cpu`, {facts['machine']}, torch {facts['torch']}. Contestants take turns in fresh processes;\n"
        "what is compared, and the grids, are in `benchmarks/protocol.py`; every run is in `benchmarks/results/`.",
        _limits(protocol, journal),
        _shown(protocol, journal),
        _race(protocol, journal),
        _tuning(journal),
        _compression(protocol, journal),
        _throughput(protocol, journal),
        _around(journal),
    ]
    return "\n\n".join(parts) + "\n"


def _limits(protocol: Protocol, journal: Journal) -> str:
    """What of the protocol these measurements leave out."""
    peers = [name for who in PEERS for name in (who, f"{who} tuned")]
    lines = []
    for name in (*protocol.race.ours, *peers):
        records = journal.records(RACE, contestant=name)
        reached = time_to_target(protocol, journal, name)
        if not records:
            lines.append(f"row a: {name} was not measured")
        elif reached is None:
            last = list(_by_budget(records))[-1]
            lines.append(f"row a: {name} had not reached the target with {last}; larger budgets were not run")
        elif protocol.seeds < FULL.seeds:
            lines.append(f"row a: {name} with {protocol.seeds} seeds of the protocol's {FULL.seeds}")
    for budget in protocol.compression.budgets:
        for name in (*protocol.compression.ours, *peers):
            seeds = len({record["seed"] for record in journal.records("compression", contestant=name, budget=budget)})
            if seeds < FULL.seeds:
                lines.append(f"row b: {name} at {budget} with {seeds} seeds of the protocol's {FULL.seeds}")
    return "What is not as in the protocol:\n\n" + ("\n".join(f"- {line}" for line in lines) or "nothing")


def time_to_target(protocol: Protocol, journal: Journal, contestant: str) -> tuple[str, float, float] | None:
    """The shortest budget whose median loss reached the target, its median seconds and training seconds."""
    for budget, records in _by_budget(journal.records(RACE, contestant=contestant)).items():
        losses = [record["loss"] for record in records]
        if len(losses) >= protocol.seeds and statistics.median(losses) <= protocol.race.target:
            return budget, _median(records, "seconds"), _median(records, "train_seconds")
    return None


def _shown(protocol: Protocol, journal: Journal) -> str:
    """What the project has to show, and what it showed."""
    rates = {
        (way, vocab): _median(records, "tokens_per_second")
        for way in WAYS
        for vocab in protocol.throughput.steps
        if (records := journal.records("throughput", contestant=way, vocab=vocab))
    }
    rows = [
        ("process start → target, nanoGPT ÷ ours", _speedup(protocol, journal, _STOCK), "6×", "10×"),
        ("the same, its tuned version ÷ ours", _speedup(protocol, journal, f"{_STOCK} tuned"), "3×", "5×"),
        ("bits per byte, best tuned peer − ours", _fewer_bits(protocol, journal), "0.10", "0.25"),
    ]
    for vocab, least in zip(protocol.throughput.steps, ("1.3×", "1.8×"), strict=False):
        for way in WAYS[1:]:
            both = rates.get(("daybreak", vocab)), rates.get((way, vocab))
            ratio = f"{both[0] / both[1]:.2f}×" if both[0] and both[1] else _NOT_MEASURED
            rows.append((f"throughput, {vocab:,} words, ours ÷ {way}", ratio, least, "2.2×"))
    sampled = "in d." if journal.records("sampling") else _NOT_MEASURED
    rows.append(("sampling with the cache, ours ÷ transformers", sampled, "2×", "4×"))
    shares = [record["share"] for record in journal.records("waiting")]
    share = f"{max(shares):.2%}" if shares else _NOT_MEASURED
    rows.append(("waiting for data, share of a step, the worst", share, "< 1 %", "0"))
    return _table(("measure, medians", "here", "at least", "aim"), rows)


def _speedup(protocol: Protocol, journal: Journal, peer: str) -> str:
    ours, theirs = (time_to_target(protocol, journal, name) for name in (_OURS, peer))
    if ours is None or theirs is None:
        return _NOT_MEASURED
    return f"{theirs[1] / ours[1]:.1f}× ({theirs[1]:.1f} s ÷ {ours[1]:.1f} s)"


def _fewer_bits(protocol: Protocol, journal: Journal) -> str:
    """After the largest budget that both were measured with."""
    for budget in reversed(protocol.compression.budgets):
        records = journal.records("compression", budget=budget)
        medians = {name: _median(own, "bits_per_byte") for name, own in _by(records, "contestant").items()}
        tuned = [bits for name, bits in medians.items() if name.endswith(" tuned")]
        ours = [bits for name, bits in medians.items() if name in protocol.compression.ours]
        if tuned and ours:
            return f"{min(tuned) - min(ours):.3f} after {budget}"
    return _NOT_MEASURED


def _race(protocol: Protocol, journal: Journal) -> str:
    config = protocol.race
    rows = []
    for name, own in _by(journal.records(RACE), "contestant").items():
        reached = time_to_target(protocol, journal, name)
        for number, (budget, records) in enumerate(_by_budget(own).items()):
            losses = {record["seed"]: record["loss"] for record in records}
            mark = ""
            if reached and budget == reached[0]:
                mark = "reached" if number else "reached by the shortest of its grid"
            shown = ", ".join(f"{losses[seed]:.3f}" for seed in sorted(losses))
            figures = (f"{_median(records, key):.1f}" for key in ("seconds", "train_seconds"))
            rows.append((name, budget, *figures, f"{statistics.median(losses.values()):.3f}", shown, mark))
    head = ("contestant", "budget", "seconds from process start", "training only", "loss, median", "by seed", "")
    title = f"## a. Process start to a validation loss of {config.target:g} on tiny Shakespeare"
    text = (
        f"Nats a character on the whole validation split, rows of {config.row} characters each predicted from its own\n"
        "alone, at the end of whole schedules. A contestant's time is that of the shortest budget whose median loss\n"
        "reaches the target; a budget that more than half of the seeds missed is given up."
    )
    return f"{title}\n\n{text}\n\n{_table(head, rows)}"


def _tuning(journal: Journal) -> str:
    """What each tuned peer tried."""
    rows = []
    for record in journal.records("tuning"):
        setting = record["setting"]
        told = [f"{key} {setting[key]}" for key in ("shape", "lr", "batch", "beta2", "warmup", "final", "precision")]
        rows.append(
            (
                record["peer"],
                record["purpose"],
                record["budget"],
                ", ".join(told),
                record["steps"],
                f"{record['loss']:.4f}",
            )
        )
    text = "Short runs, one field after the other; scored on the end of the training text, never on the scored split."
    head = ("peer", "for", "budget", "setting", "steps", "loss")
    return f"## Tuning of the peers\n\n{text}\n\n{_table(head, rows)}"


def _compression(protocol: Protocol, journal: Journal) -> str:
    rows = []
    for budget in protocol.compression.budgets:
        for name, own in _by(journal.records("compression", budget=budget), "contestant").items():
            bits = [record["bits_per_byte"] for record in sorted(own, key=lambda record: record["seed"])]
            shown = ", ".join(f"{each:.4f}" for each in bits)
            rows.append((budget, name, f"{statistics.median(bits):.4f}", shown, f"{_median(own, 'seconds'):.0f}"))
    head = ("budget", "contestant", "bits a byte, median", "by seed", "seconds taken")
    return f"## b. Bits per byte of Wikipedia text after a budget\n\n{_table(head, rows)}"


def _throughput(protocol: Protocol, journal: Journal) -> str:
    rows = []
    for vocab in protocol.throughput.steps:
        for way in WAYS:
            if records := journal.records("throughput", contestant=way, vocab=vocab):
                rates = [record["tokens_per_second"] for record in records]
                spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
                rows.append((f"{vocab:,}", way, f"{statistics.median(rates):,.0f}", spread, len(rates)))
    layers, heads, dim = protocol.throughput.shape
    text = (
        f"GPT-2's shape with {layers} layers, {heads} heads, width {dim}; {protocol.throughput.batch} rows of "
        f"{protocol.throughput.context}; forward, backward, clipping,\nAdamW. Ours as `daybreak train` does it, not "
        "compiled. *transformers* is fp32 with\ntorch's AdamW; *tuned* is bf16 autocast with the fused one. Neither "
        "has a Trainer around."
    )
    return f"## c. Equal work\n\n{text}\n\n{_table(('words', 'way', 'tok/s, median', 'range', 'rounds'), rows)}"


def _around(journal: Journal) -> str:
    starts = [
        (name, f"{_median(own, 'seconds'):.2f}", ", ".join(f"{record['seconds']:.2f}" for record in own))
        for name, own in _by(journal.records("start-up"), "contestant").items()
    ]
    waits = [
        (record["contestant"], f"{record['share']:.3%}", record["steps"], f"{record['waited_seconds']:.3f}")
        for record in journal.records("waiting")
    ]
    samples = journal.records("sampling")
    table = "\n".join(samples[-1]["table"]) if samples else _NOT_MEASURED
    return "\n\n".join(
        [
            "## d. Around the steps",
            "Process start to the first step done, seconds, tiny Shakespeare, the shape of nanoGPT's CPU command:",
            _table(("contestant", "median", "all"), starts),
            "Waiting for data, by the loop's own calls:",
            _table(("recipe", "share of a step", "steps", "seconds in all"), waits),
            "Sampling with the cache, one sequence (`benchmarks/sampling.py`):",
            table,
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    shown = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    return shown if len(lines) > 2 else _NOT_MEASURED


def _by(records: Iterable[Record], key: str) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record[key], []).append(record)
    return groups


def _by_budget(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Shortest budget first."""
    groups = _by(records, "budget")
    return dict(sorted(groups.items(), key=lambda group: _median(group[1], "steps")))


def _median(records: Iterable[Record], key: str) -> float:
    return statistics.median(record[key] for record in records)
