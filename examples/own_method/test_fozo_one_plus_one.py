"""All tests that the method needs: fozo checks its contract."""

from fozo.testing import check_method

from fozo_one_plus_one import OnePlusOne


def test_contract() -> None:
    check_method(OnePlusOne())
    check_method(OnePlusOne(sigma=0.5))
