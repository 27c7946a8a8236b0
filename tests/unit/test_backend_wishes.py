"""What makes two wishes the same."""

from dataclasses import dataclass

from ktrdr.backend.wishes import RetryWish, StrategyText, TrainingWish, digest_of, stated


@dataclass(frozen=True, slots=True)
class _WishOfANewerVersion(TrainingWish):
    priority: int = 0


def test_a_field_that_an_upgrade_adds_changes_nothing_for_who_does_not_use_it() -> None:
    before = TrainingWish("momentum", start="2024-01-01", overrides={"training.epochs": 3}, seed=7)
    after = _WishOfANewerVersion("momentum", start="2024-01-01", overrides={"training.epochs": 3}, seed=7)
    used = _WishOfANewerVersion(
        "momentum", start="2024-01-01", overrides={"training.epochs": 3}, seed=7, priority=1
    )

    assert digest_of(stated(before)) == digest_of(stated(after))
    assert digest_of(stated(before)) != digest_of(stated(used))


def test_what_is_said_at_its_default_is_as_if_it_were_left_out() -> None:
    text = StrategyText("name: momentum")

    assert stated(TrainingWish(text, overrides={}, lane="any")) == {"strategy": {"yaml": "name: momentum"}}
    assert stated(RetryWish()) == {}


def test_wishes_that_differ_in_one_field_are_different() -> None:
    wishes = [
        TrainingWish("momentum"),
        TrainingWish(StrategyText("momentum")),
        TrainingWish(StrategyText("momentum", source="mine")),
        TrainingWish("momentum", start="2024-01-01"),
        TrainingWish("momentum", end="2024-01-01"),
        TrainingWish("momentum", seed=0),
        TrainingWish("momentum", require_gpu=True),
        TrainingWish("momentum", lane="any", names_lane=True),
    ]

    assert len({digest_of(stated(wish)) for wish in wishes}) == len(wishes)
