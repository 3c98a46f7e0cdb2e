"""Batches: what a step holds hangs on the place alone, and every window comes once an epoch."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from daybreak.data.batches import Batches, Rows
from daybreak.data.hashing import Words
from daybreak.data.order import Order
from daybreak.data.shards import TokenStream
from daybreak.data.windows import IGNORED, StreamWindows, WindowRows, Windows
from daybreak.errors import UserError

CPU = torch.device("cpu")


def counting_stream(tokens: int) -> TokenStream:
    """Each token is its own place in the stream, over three shards."""
    return TokenStream(list(np.array_split(np.arange(tokens, dtype=np.uint32), 3)))


@contextmanager
def opened(
    tokens: int = 8 * 10 + 1,
    *,
    window: int = 8,
    length: int = 8,
    windows_per_step: int = 4,
    micro_batch: int = 4,
    seed: int = 1,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Batches]:
    windows = StreamWindows(counting_stream(tokens), window)
    batches = Batches(
        windows,
        Order(len(windows), seed),
        length=length,
        windows_per_step=windows_per_step,
        micro_batch=micro_batch,
        seed=seed,
        device=CPU,
        rank=rank,
        ranks=ranks,
    )
    with closing(batches):
        yield batches


def step(batches: Batches, place: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and noise of a whole step."""
    rows = list(batches.step(place))
    return (
        torch.cat([part.inputs for part in rows]),
        torch.cat([part.targets for part in rows]),
        torch.cat([part.dropout_seeds for part in rows]),
    )


def same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("windows_per_step", [1, 3, 4, 10, 25])
def test_every_window_comes_exactly_once_an_epoch(windows_per_step: int) -> None:
    """Ten windows, in steps that do or do not divide them; a step may run into the next epoch."""
    with opened(windows_per_step=windows_per_step, micro_batch=1) as batches:
        assert batches.windows == 10
        steps = -(-40 // windows_per_step)
        firsts = torch.cat([step(batches, number * windows_per_step)[0][:, 0] for number in range(steps)])
    windows = (firsts // 8).tolist()
    assert (firsts % 8 == 0).all()
    for epoch in range(4):
        assert sorted(windows[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_targets_are_the_successors_also_at_the_end_of_a_window() -> None:
    with opened(8 * 10 + 1) as batches:
        for place in range(0, 12, 4):
            inputs, targets, _ = step(batches, place)
            assert torch.equal(targets, inputs + 1)
            assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))


@pytest.mark.parametrize(("tokens", "windows"), [(9, 1), (16, 1), (17, 2), (24, 2), (25, 3)])
def test_a_window_needs_one_successor(tokens: int, windows: int) -> None:
    with opened(tokens, windows_per_step=1, micro_batch=1) as batches:
        assert batches.windows == windows


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 6, 12])
def test_the_micro_batch_never_changes_a_step(micro_batch: int) -> None:
    with (
        opened(windows_per_step=12, micro_batch=12) as whole,
        opened(windows_per_step=12, micro_batch=micro_batch) as cut,
    ):
        for place in (0, 12, 240):
            assert [len(rows.inputs) for rows in cut.step(place)] == [micro_batch] * (12 // micro_batch)
            assert same(step(cut, place), step(whole, place))


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
@pytest.mark.parametrize("length", [4, 8])
def test_ranks_share_a_step_and_never_change_it(ranks: int, length: int) -> None:
    with opened(length=length, windows_per_step=6, micro_batch=1) as whole:
        expected = step(whole, 18)
    shares = []
    for rank in range(ranks):
        with opened(length=length, windows_per_step=6, micro_batch=1, rank=rank, ranks=ranks) as share:
            shares.append(step(share, 18))
    assert len({len(inputs) for inputs, _, _ in shares}) == 1
    assert same(tuple(torch.cat(parts) for parts in zip(*shares, strict=True)), expected)


def test_a_step_fetched_ahead_is_the_step_fetched_afresh() -> None:
    with opened() as going_on:
        in_order = [step(going_on, place) for place in range(0, 24, 4)]
    for place, expected in zip(range(0, 24, 4), in_order, strict=True):
        with opened() as fresh:
            assert same(step(fresh, place), expected)


def test_a_jump_to_another_place_gives_that_place() -> None:
    """What was fetched ahead is not what is asked for, behind a jump either way."""
    with opened() as jumping, opened() as plain:
        expected = {place: step(plain, place) for place in range(0, 24, 4)}
        for place in (0, 12, 4, 4, 20, 0):
            assert same(step(jumping, place), expected[place])


@pytest.mark.parametrize("ranks", [1, 3])
def test_only_the_last_micro_batch_of_a_rank_is_marked_as_the_last(ranks: int) -> None:
    for rank in range(ranks):
        with opened(windows_per_step=12, micro_batch=2, rank=rank, ranks=ranks) as batches:
            for place in (0, 12):
                marks = [rows.last for rows in batches.step(place)]
                assert marks == [False] * (6 // ranks - 1) + [True]


def test_a_smaller_micro_batch_from_some_step_on_changes_no_step() -> None:
    with opened(windows_per_step=12, micro_batch=12) as plain:
        expected = [step(plain, place) for place in (0, 12, 24)]
    with opened(windows_per_step=12, micro_batch=12) as batches:
        for micro_batch, place, whole in zip((12, 4, 1), (0, 12, 24), expected, strict=True):
            batches.micro_batch = micro_batch
            assert [len(rows.inputs) for rows in batches.step(place)] == [micro_batch] * (12 // micro_batch)
            assert same(step(batches, place), whole)


def test_a_place_between_steps_goes_on_where_it_is() -> None:
    with opened() as batches:
        by_four = torch.cat([step(batches, place)[0] for place in (0, 4, 8)])
        assert torch.equal(step(batches, 3)[0], by_four[3:7])


@pytest.mark.parametrize("length", [1, 2, 4, 8])
def test_a_window_cut_into_rows_stays_in_its_step(length: int) -> None:
    pieces = 8 // length
    with opened() as whole, opened(length=length, micro_batch=2) as cut:
        for place in (0, 4, 8):
            whole_inputs, whole_targets, _ = step(whole, place)
            inputs, targets, _ = step(cut, place)
            assert inputs.shape == (4 * pieces, length)
            assert torch.equal(inputs.reshape(4, 8), whole_inputs)
            assert torch.equal(targets.reshape(4, 8), whole_targets)


def test_seeds_give_orders_and_noise_of_their_own() -> None:
    with opened(seed=1) as one, opened(seed=2) as two:
        first, second = step(one, 0), step(two, 0)
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[2], second[2])


def test_each_row_of_a_run_has_noise_of_its_own_below_two_to_the_31() -> None:
    with opened(length=4, micro_batch=2) as batches:
        noise = torch.cat([step(batches, place)[2] for place in range(0, 400, 4)])
    assert len(noise) == 800
    assert len(set(noise.tolist())) == 800
    assert int(noise.min()) >= 0
    assert int(noise.max()) < 2**31
    assert int(noise.max()) > 2**31 * 0.98


def test_rows_are_whole_numbers_and_all_of_them_count() -> None:
    with opened() as batches:
        (rows,) = batches.step(0)
    assert rows.inputs.dtype == rows.targets.dtype == rows.dropout_seeds.dtype == torch.int64
    assert rows.counted == rows.targets.numel() == 32


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"length": 3}, "data.window = 8.*3"),
        ({"length": 16}, "data.window = 8.*16"),
        ({"micro_batch": 3}, "4 rows.*3"),
        ({"ranks": 3, "micro_batch": 1}, "4 rows.*3 ranks"),
        ({"ranks": 2, "micro_batch": 4}, "4 rows.*2 ranks x micro-batches of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_named(settings: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=named), opened(**settings):
        pass


def steps_of(batches: Batches, sizes: list[tuple[int, int]]) -> list[list[Rows]]:
    """Steps one behind the other, each of so many windows in rows of such a length."""
    steps, place = [], 0
    for windows, length in sizes:
        steps.append(list(batches.step(place, windows=windows, length=length)))
        place += windows
    return steps


@pytest.mark.parametrize("length", range(1, 13))
def test_rows_of_any_length_hold_every_token_of_a_step_once_within_its_windows(length: int) -> None:
    with opened(12 * 10 + 1, window=12, length=12) as batches:
        whole = step(batches, 4)[0]
        rows = list(batches.step(4, length=length))
    tokens = torch.cat([part.inputs.flatten() for part in rows])
    assert sorted(tokens.tolist()) == sorted(whole.flatten().tolist())
    for part in rows:
        assert torch.equal(part.targets, part.inputs + 1)
        assert torch.equal(part.inputs // 12, part.inputs[:, :1].expand_as(part.inputs) // 12)
        assert part.inputs.numel() <= 4 * 12  # no more at once than in full rows
        assert part.counted == part.inputs.numel()
    assert {part.inputs.shape[1] for part in rows} == {length, 12 % length} - {0}
    assert [part.last for part in rows] == [False] * (len(rows) - 1) + [True]


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6])
@pytest.mark.parametrize("ranks", [1, 2])
def test_neither_ranks_nor_micro_batches_change_what_is_in_a_step_that_grows(micro_batch: int, ranks: int) -> None:
    sizes = [(12, 5), (24, 5), (24, 8), (36, 12)]

    def numbered(rank: int, ranks: int, micro_batch: int) -> list[list[tuple[int, ...]]]:
        """Of each step its rows: the tokens, and what seeds their dropout."""
        settings = {"windows_per_step": 12, "micro_batch": micro_batch, "rank": rank, "ranks": ranks}
        with opened(12 * 50 + 1, window=12, length=12, **settings) as batches:
            return [
                [tuple(row) for part in rows for row in torch.column_stack((part.inputs, part.dropout_seeds)).tolist()]
                for rows in steps_of(batches, sizes)
            ]

    expected = numbered(0, 1, 12)
    shares = [numbered(rank, ranks, micro_batch) for rank in range(ranks)]
    for number, rows in enumerate(expected):
        assert len({len(share[number]) for share in shares}) == 1
        assert sorted(row for share in shares for row in share[number]) == sorted(rows)
    seeds = [row[-1] for rows in expected for row in rows]
    assert len(set(seeds)) == len(seeds)


def test_steps_that_grow_take_the_windows_in_the_order_of_steps_that_do_not() -> None:
    with opened(windows_per_step=2, micro_batch=2) as growing, opened(windows_per_step=12, micro_batch=12) as plain:
        inputs = [part.inputs for rows in steps_of(growing, [(2, 8), (4, 8), (6, 8)]) for part in rows]
        assert torch.equal(torch.cat(inputs), step(plain, 0)[0])
        assert {len(part) for part in inputs} == {2}


def test_the_shapes_of_a_run_are_known_before_it() -> None:
    lengths = [3, 5, 8]
    with opened(windows_per_step=12, micro_batch=4) as batches:
        known = [tuple(rows.inputs.shape) for rows in batches.shapes(0, lengths)]
        met = {tuple(rows.inputs.shape) for length in lengths for rows in batches.step(36, windows=24, length=length)}
    assert set(known) == met
    assert len(set(known)) == len(known)
    assert known[-1] == (4, 8)


class MaskedWindows(Windows):
    """Eight windows of eight tokens; of window n only the first n targets are real."""

    window = 8

    def __len__(self) -> int:
        return 8

    def read(self, numbers: Words) -> WindowRows:
        inputs = (numbers[:, None] * np.uint64(8) + np.arange(8, dtype=np.uint64)).astype(np.int64)
        real = np.arange(8) < numbers.astype(np.int64)[:, None]
        return WindowRows(inputs, np.where(real, inputs + 1, IGNORED))


@pytest.mark.parametrize("length", [8, 4, 3])
@pytest.mark.parametrize("share", [1, 2])
def test_targets_to_ignore_stay_so_and_are_not_counted(length: int, share: int) -> None:
    settings = {"windows_per_step": 8, "micro_batch": 2, "seed": 1, "device": CPU}
    batches = Batches(
        MaskedWindows(), Order(8, 1), length=8, counted_per_row=lambda tokens: tokens // share, **settings
    )
    with closing(batches):
        rows = list(batches.step(0, length=length))
    targets = torch.cat([part.targets.flatten() for part in rows]).tolist()
    inputs = torch.cat([part.inputs.flatten() for part in rows]).tolist()
    assert sorted(zip(inputs, targets, strict=True)) == [
        (8 * window + place, 8 * window + place + 1 if place < window else IGNORED)
        for window in range(8)
        for place in range(8)
    ]
    for part in rows:
        real = (part.targets != IGNORED).sum(dim=1).tolist()
        assert part.counted == sum(min(each, part.targets.shape[1] // share) for each in real)
