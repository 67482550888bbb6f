from hindsight.provenance import PACKAGES, version_changes, versions


def test_changed_versions_are_named_with_both_and_equal_ones_are_not():
    before = {"python": "3.11.7", "torch": "2.7.0", "numpy": "2.1.3"}
    assert version_changes(before, dict(before)) is None
    message = version_changes(before, before | {"torch": "2.15.0"})
    assert message is not None
    assert "torch 2.7.0 (now 2.15.0):" in message
    assert "numpy" not in message
    assert "numpy 2.1.3 (now missing)" in (version_changes(before, {"python": "3.11.7", "torch": "2.7.0"}) or "")


def test_versions_are_those_of_what_computes():
    assert versions().keys() == {"python", *PACKAGES}
