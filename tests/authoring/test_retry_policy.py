from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd import NO_RETRY, InvalidDefinition, Retry
from jivsd.clock import SECOND

lengths = st.integers(0, 10**6)
policies = st.builds(
    Retry,
    attempts=st.integers(1, 3000),
    first=lengths,
    factor=st.floats(1, 1e9),
    limit=lengths,
    jitter=st.floats(0, 1),
)


@given(policies, st.integers(1, 4000), st.text(max_size=5))
def test_delays_are_bounded_repeatable_and_end(policy, failed, key):
    delay = policy.delay(failed, ValueError(), key)
    assert delay == policy.delay(failed, ValueError(), key)
    if failed >= policy.attempts:
        assert delay is None
    else:
        assert delay is not None
        assert 0 <= delay <= policy.limit * SECOND


@given(policies, st.integers(1, 2000))
def test_without_jitter_delays_grow_from_the_first_to_the_limit(policy, failed):
    steady = Retry(policy.attempts + 5000, policy.first, policy.factor, policy.limit, 0)
    first, earlier, later = (steady.delay(count, ValueError(), "k") for count in (1, failed, failed + 1))
    assert first == min(policy.first, policy.limit) * SECOND
    assert earlier <= later


@given(policies, st.integers(1, 2000), st.text(max_size=5))
def test_jitter_only_shortens_and_by_its_share(policy, failed, key):
    fields = (policy.attempts + 5000, policy.first, policy.factor, policy.limit)
    steady = Retry(*fields, 0).delay(failed, ValueError(), key)
    drawn = Retry(*fields, policy.jitter).delay(failed, ValueError(), key)
    assert steady * (1 - policy.jitter) - 1 <= drawn <= steady


def test_errors_that_are_final_at_once():
    policy = Retry(give_up_on=(LookupError,))
    assert policy.delay(1, KeyError(), "k") is None
    assert policy.delay(1, ValueError(), "k") is not None
    assert NO_RETRY.delay(1, ValueError(), "k") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attempts": 0}, "attempts is 0"),
        ({"factor": 0.5}, "factor is 0.5"),
        ({"factor": float("nan")}, "factor is nan"),
        ({"factor": float("inf")}, "factor is inf"),
        ({"jitter": 2}, "jitter is 2"),
        ({"jitter": float("nan")}, "jitter is nan"),
        ({"first": "soon"}, "'soon' is not a duration"),
        ({"limit": -1}, "must not be negative"),
        ({"limit": float("inf")}, "inf is not a duration"),
        ({"first": None}, "a duration is a text"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(fields, message):
    with pytest.raises(InvalidDefinition, match=f"^Retry: .*{message}"):
        Retry(**fields)
