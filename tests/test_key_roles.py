from hindsight.config.key_roles import KEY_ROLES, PairRole, ResumeRole, SpeedRole, roles_of
from hindsight.config.schemas import describe
from hindsight.config.training import TrainConfig


def test_every_key_of_the_training_config_has_its_roles_and_no_other_has():
    keys = {row[0] for row in describe(TrainConfig)} - {"model"}
    assert keys == set(KEY_ROLES)


def test_a_pair_differs_in_its_order_alone():
    assert [key for key, roles in KEY_ROLES.items() if roles.pair is PairRole.compared] == ["direction", "order"]


def test_what_a_comparison_is_about_or_must_agree_in_does_not_change_within_a_run_but_for_its_length():
    changing = {key for key, roles in KEY_ROLES.items() if roles.resume is ResumeRole.may_change}
    settled = {key for key, roles in KEY_ROLES.items() if roles.pair in (PairRole.compared, PairRole.equal)}
    assert changing & settled == {"max_duration", "eval_interval", "eval_batches"}


def test_an_unknown_key_has_the_strictest_roles():
    roles = roles_of("no.such_key")
    assert (roles.resume, roles.pair, roles.speed) == (ResumeRole.fixed, PairRole.equal, SpeedRole.changes)
