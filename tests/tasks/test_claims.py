"""Claims: their sentences, and what the sign-flip test makes of them."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from test_results import runs

from tasks.claims import Claim, declared, outcome
from tasks.results import Results
from tasks.statistics import sign_flip_p

SENTENCE = "a (tuned) < b in final validation loss on mlp(width=8, depth=3)"
CONTEXT = {"baseline": "b", "claims": [SENTENCE], "target": None}


def of(optimizer, finals, context=CONTEXT, **changes):
    rows = [[9, 5, 5, 5, x] for x in finals]
    return runs(optimizer, rows, context=context, **changes)


def judged(left, right, sentence=SENTENCE):
    return summarized(of("a", left), of("b", right), sentence)


def summarized(left, right, sentence=SENTENCE):
    found = [
        Results(records).summaries() if records else {} for records in (left, right)
    ]
    claimed = ([s for of_task in f.values() for s in of_task] for f in found)
    return outcome(Claim.parse(sentence), *claimed)


def test_a_claim_reads_its_sentence_and_says_it_again():
    claim = Claim.parse(SENTENCE)
    assert claim.left == "a (tuned)"
    assert claim.task == "mlp(width=8, depth=3)"
    assert str(claim) == SENTENCE


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("a beats b", "is not 'LEFT < RIGHT in MEASURE on TASK'"),
        ("a > b in final validation loss on t", "losses and perplexities are"),
        ("a > b in final wikitext perplexity on t", "are claimed to be less"),
        ("a < b in final validation accuracy on t", "other measures to be more"),
        ("a < b in final validation loss on all tasks", "only a 'score' can be"),
        ("a < b in final valid loss on t", "did you mean 'final validation loss'"),
    ],
)
def test_a_sentence_that_is_no_claim_is_refused(sentence, said):
    with pytest.raises(ValueError, match=said):
        Claim.parse(sentence)


def test_p_by_hand():
    # Of the 8 ways to sign 1, 2, 4 only -7 and -5 are at most -5.
    assert sign_flip_p([1.0, -2.0, -4.0]) == 2 / 8
    assert sign_flip_p([-1.0, -2.0, -4.0]) == 1 / 8
    assert sign_flip_p([0.0, 0.0]) == 1
    assert sign_flip_p([]) == 1


def test_many_pairs_are_drawn_and_few_enumerated():
    rng = np.random.default_rng(0)
    values = rng.normal(-0.3, 1, size=16)
    drawn = np.random.default_rng(1).choice([-1, 1], size=(100000, 20))
    more = np.append(values, [0.1, -0.2, 0.3, -0.1])
    expected = np.mean(drawn @ more <= more.sum())
    assert sign_flip_p(more) == pytest.approx(expected, abs=0.01)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=6))
def test_p_is_the_share_of_signs_at_most_the_sum(values):
    signs = itertools.product((1, -1), repeat=len(values))
    sums = [np.dot(s, values) for s in signs]
    assert sign_flip_p(values) == np.mean(np.array(sums) <= sum(values))
    assert sign_flip_p(values) >= 0.5 ** len(values)


def test_five_seeds_are_needed_and_enough():
    four = judged([1, 2, 3, 4], [2, 3, 4, 5])
    assert (four.p, four.smallest_p, four.verdict) == (1 / 16, 1 / 16, "undecided")
    five = judged([1, 2, 3, 4, 5], [2, 3, 4, 5, 6])
    assert (five.p, five.num_pairs, five.verdict) == (1 / 32, 5, "held")
    assert judged([2, 3, 4, 5, 6], [1, 2, 3, 4, 5]).verdict == "not held"
    assert judged([1, 3, 2, 5, 4], [2, 2, 3, 4, 5]).verdict == "undecided"


def test_a_diverged_run_outweighs_all_that_did_not():
    diverged = judged([1, 2, 3, 4, np.nan], [9, 9, 9, 9, 9])
    assert diverged.p > 0.5
    assert diverged.verdict == "undecided"
    assert judged([np.nan] * 5, [np.nan] * 5).p == 1
    assert judged([1] * 5, [np.nan] * 5).verdict == "held"


def test_more_is_better_of_other_metrics():
    more = "a > b in final validation accuracy on t"
    assert judged([2, 3, 4, 5, 6], [1, 2, 3, 4, 5], more).verdict == "held"
    found = judged([1, 2, 3, 4, 5], [2, 3, 4, 5, np.nan], more)
    assert found.p > 0.05  # better than a diverged run, worse in the others


def test_only_seeds_of_both_are_compared_and_none_is_undecided():
    found = summarized(of("a", [1, 2, 3]), of("b", [2, 3]))
    assert found.num_pairs == 2
    assert found.difference.estimate == -1
    nothing = judged([1, 2], [])
    assert (nothing.verdict, nothing.difference) == ("undecided", None)


def test_what_was_claimed_after_a_run_began_is_seen():
    late = of("b", [1, 2], context={"baseline": "b", "target": None})
    assert declared([*late, *of("a", [1, 2])]) == [Claim.parse(SENTENCE)]
    assert not summarized(of("a", [1, 2]), late).declared
    assert judged([1, 2], [1, 2]).declared


def test_over_all_tasks_every_seed_of_every_task_is_a_pair():
    sentence = "a > b in score on all tasks"
    given = {"baseline": "b", "claims": [sentence], "position": [0, 0], "target": None}
    names = ("small", "large")
    results = Results(
        [
            *(r for t in names for r in of("a", [1, 2, 3], given, task=t)),
            *(r for t in names for r in of("b", [2, 3, 4], given, task=t)),
        ]
    )
    (found,) = results.claims()
    assert (found.num_pairs, found.p, found.verdict) == (6, 1 / 64, "held")
    # Of a start of 9 and the baseline's 3, a loss less by 1 is a score more by 1/6.
    assert found.difference.estimate == pytest.approx(1 / 6)
