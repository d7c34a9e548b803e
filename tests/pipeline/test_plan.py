"""The plan: ids that are safe, splits that do not leak, paths that are data and never commands."""

import pytest

from pipeline.errors import UserError
from pipeline.patients import case_id, subject_key
from pipeline.plan import is_case_id, make_plan

ENTRY = {
    "source": "folder",
    "csv": "cts.csv",
    "dataset": "mine",
    "license": "CC0-1.0",
    "attribution": "me",
    "label_scheme": "totalsegmentator_v2",
    "split": "test",
}


def plan_of(tmp_path, text, derive=()):
    (tmp_path / "cts.csv").write_text(text)
    return make_plan({"cohort": [ENTRY], "derive": list(derive)}, tmp_path)


@pytest.mark.parametrize("name", ["a", "s0001", "LIDC-IDRI-0001", "a.b_c-d", "9"])
def test_ordinary_ids_are_accepted(name):
    assert is_case_id(name)


HOSTILE = ["../x", "a;touch P", "$(id)", "a b", "", ".", "..", "é", "x" * 65, "CON", "nul.txt", "-rf", "a.", "a\n"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ids_are_not(name):
    assert not is_case_id(name)


def test_a_hostile_id_gets_a_safe_name_and_goes_on(tmp_path):
    (tmp_path / "x.nii.gz").write_bytes(b"")
    plan = plan_of(tmp_path, "case,ct\n../x,x.nii.gz\ngood,x.nii.gz\n")
    odd, good = sorted(plan.cases.values(), key=lambda case: case.id.startswith("good"))
    assert odd.id == case_id("../x") and odd.id.startswith("u-") and is_case_id(odd.id) and case_id("good") == "good"
    assert not any("../x" in part for part in odd.fetch)
    assert odd.inputs == good.inputs == (tmp_path / "x.nii.gz",)


def test_rows_may_name_split_subject_and_label(tmp_path):
    plan = plan_of(tmp_path, "case,ct,label,subject,split\na,a.nii,l.nii,p1,train\nb,b.nii,,,\n")
    arguments = dict(part[2:].split("=", 1) for part in plan.cases["a"].fetch)
    assert arguments["subject-key"] == subject_key("mine", "p1") and arguments["label"] == str(tmp_path / "l.nii")
    assert "p1" not in " ".join(plan.cases["a"].fetch)
    assert (plan.cases["a"].split, plan.cases["b"].split) == ("train", "test")


def test_values_that_look_like_options_are_values(tmp_path):
    plan = plan_of(tmp_path, "case,ct,subject\na,-x.nii,--help\n")
    assert all(part.startswith("--") and "=" in part for part in plan.cases["a"].fetch)


def test_two_requests_for_one_parent_number_on_and_never_take_a_cohort_id(tmp_path):
    twice = [{"parent": "a", "train": 2, "family_validation": 0, "family": 0}] * 2
    plan = plan_of(tmp_path, "case,ct,split\na,a.nii,train\n", twice)
    assert [case.number for case in plan.derived.values()] == [1, 2, 3, 4]
    for name in ("a-d0001", "A-D0001"):
        with pytest.raises(UserError, match="'a-d0001' would take the id of another case"):
            plan_of(tmp_path, f"case,ct,split\na,a.nii,train\n{name},b.nii,test\n", twice)
    with pytest.raises(UserError, match="longer than 64 characters"):
        parent = "p" * 60
        plan_of(tmp_path, f"case,ct,split\n{parent},a.nii,train\n", [twice[0] | {"parent": parent}])


def test_derived_cases_keep_to_the_family_of_a_training_patient(tmp_path):
    derive = [{"parent": "a", "train": 2, "family_validation": 1, "family": 1}]
    plan = plan_of(tmp_path, "case,ct,split\na,a.nii,train\n", derive)
    assert [case.split for case in plan.derived.values()] == ["train", "train", "family_validation", "family"]
    assert [case.number for case in plan.derived.values()] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="'a' belongs to split 'test'"):
        plan_of(tmp_path, "case,ct,split\na,a.nii,test\n", derive)
    with pytest.raises(UserError, match="derive.parent 'a' is no case of the cohort; expected one of: b"):
        plan_of(tmp_path, "case,ct,split\nb,a.nii,train\n", derive)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,path\na,b\n", "has the columns case, path; expected case, ct"),
        ("case,ct,split\na,b,trian\n", "line 2 of cts.csv: split 'trian'; expected one of: train"),
        ("case,ct,ct\na,b,c\n", "has the columns case, ct, ct; expected case, ct .* each once"),
        ("case,ct\na,b,c\n", "line 2 of cts.csv: found another number of cells"),
        ("case,ct\n", "no case below its header"),
        ("case,ct\na,x.nii\nA,y.nii\n", "'A' appears twice in the cohort"),
    ],
)
def test_mistakes_in_the_csv_are_named(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        plan_of(tmp_path, text)


def test_unknown_package_cases_are_named(tmp_path):
    entry = {"source": "packages", "cases": {"lidc": "train"}}
    with pytest.raises(UserError, match="'lidc' is not known; expected one of: lidc-idri-0001"):
        make_plan({"cohort": [entry], "derive": []}, tmp_path)


def test_a_csv_that_is_no_text_is_named(tmp_path):
    (tmp_path / "cts.csv").write_bytes("case,ct\nä,x.nii\n".encode("utf-16"))
    with pytest.raises(UserError, match="cannot be read .*expected UTF-8"):
        make_plan({"cohort": [ENTRY], "derive": []}, tmp_path)


def vertebrae(tmp_path, csv, names, derive=()):
    (tmp_path / "cts.csv").write_text(csv)
    region = {"kind": "vertebra", "vertebrae": list(names)}
    return make_plan({"cohort": [ENTRY], "derive": list(derive), "region": region}, tmp_path)


def test_a_ct_becomes_one_case_for_each_vertebra_of_its_split(tmp_path):
    derive = [{"parent": "a-T1", "train": 1, "family_validation": 0, "family": 0}]
    plan = vertebrae(tmp_path, "case,ct,split\na,a.nii,train\nb,b.nii,test\n", ["T1", "L5"], derive)
    assert list(plan.scans) == ["a", "b"] and list(plan.cases) == ["a-T1", "a-L5", "b-T1", "b-L5"]
    assert [case.split for case in plan.cases.values()] == ["train", "train", "test", "test"]
    assert list(plan.derived) == ["a-T1-d0001"] and plan.cases["b-L5"].id == "b-L5"
    with pytest.raises(UserError, match="'a' is no case of the cohort; expected one of: a-T1, a-L5"):
        vertebrae(tmp_path, "case,ct,split\na,a.nii,train\n", ["T1", "L5"], [derive[0] | {"parent": "a"}])
    whole = make_plan({"cohort": [ENTRY], "derive": []}, tmp_path)
    assert whole.cases == whole.scans


def test_an_id_that_grows_too_long_is_refused(tmp_path):
    long = "x" * 62
    assert list(vertebrae(tmp_path, f"case,ct\n{long[1:]},a.nii\n", ["L5"]).cases) == [f"{long[1:]}-L5"]
    with pytest.raises(UserError, match=f"case '{long}-L5' has an id longer than 64 characters. Rename its CT"):
        vertebrae(tmp_path, f"case,ct\n{long},a.nii\n", ["L5"])
