from check import affected_tests, changed_files, imports_of, module_of
from helpers.processes import ROOT


def test_modules_have_the_names_by_which_they_are_imported():
    assert module_of("rnn.py") == "rnn"
    assert module_of("hindsight/text/files.py") == "hindsight.text.files"
    assert module_of("benchmarks/throughput/__init__.py") == "benchmarks.throughput"
    assert module_of("tests/helpers/texts.py") == "helpers.texts"
    assert module_of("tests/faults/test_kills.py") == "faults.test_kills"


def test_imports_are_found_anywhere_in_a_file():
    assert {"argparse", "pathlib", "pathlib.Path", "collections.deque"} <= imports_of(ROOT / "tests" / "check.py")


def test_tests_are_those_whose_imports_reach_a_change_the_nearest_first():
    of_rnn = affected_tests(["rnn.py"])
    assert of_rnn.index("tests/test_rnn.py") < of_rnn.index("tests/test_train_composer.py")  # by language_model
    assert "tests/test_documents.py" not in of_rnn
    assert affected_tests(["tests/test_rnn.py"]) == ["tests/test_rnn.py"]
    assert affected_tests(["README.md", "conf/model/gpt1.yaml"]) == ["tests/test_readme.py", "tests/test_config.py"]
    assert affected_tests(["LICENSE"]) == []
    assert len(affected_tests(["tests/conftest.py"])) == len([*(ROOT / "tests").rglob("test_*.py")])


def test_what_differs_from_a_commit_has_changed():
    assert set(changed_files("HEAD")) <= set(changed_files(None)) or not changed_files(None)
    assert all((ROOT / path).exists() for path in changed_files("HEAD"))
