"""What a contest.toml may say, and how a contest is found on this disk."""

import re
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import from_regex, sampled_from

from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.contest import (
    CONTEST_FILE,
    Contest,
    LocalContest,
    contest_from,
    list_contests,
    open_contest,
    read_contest,
    write_contest,
)
from kbdenoise.contests.options import OPTIONS, Options
from kbdenoise.errors import DataError, SettingsError


def saved(folder: Path, slug: str) -> Path:
    write_contest(folder / slug / CONTEST_FILE, Contest(slug=slug))
    return folder / slug


@pytest.mark.parametrize("slug", CONTESTS)
def test_every_contest_of_the_catalogue_survives_its_toml_file(slug: str, tmp_path: Path) -> None:
    write_contest(tmp_path / CONTEST_FILE, CONTESTS[slug])

    assert CONTESTS[slug].slug == slug
    assert read_contest(tmp_path / CONTEST_FILE) == CONTESTS[slug]


@settings(max_examples=40, deadline=None)
@given(
    slug=from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True),
    text=from_regex(r"[^\x00-\x1f\x7f]{0,40}", fullmatch=True),
    channels=sampled_from([1, 3]),
)
def test_any_contest_survives_its_toml_file(
    slug: str, text: str, channels: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("toml") / CONTEST_FILE
    contest = Contest(slug=slug, title=text, terms=text, channels=channels, holdout=(text, "VA"))

    write_contest(path, contest)

    assert read_contest(path) == contest


def test_a_toml_file_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    (tmp_path / CONTEST_FILE).write_text('slug = "mine"\nholdout = ["a", "b"]\n')

    assert read_contest(tmp_path / CONTEST_FILE) == Contest(slug="mine", holdout=("a", "b"))


def test_a_written_contest_names_every_field(tmp_path: Path) -> None:
    write_contest(tmp_path / CONTEST_FILE, Contest(slug="mine"))

    written = (tmp_path / CONTEST_FILE).read_text()

    assert [line.split(" = ")[0] for line in written.splitlines()] == [
        name for name in asdict(Contest(slug="mine")) if name != "submission"
    ]


def test_options_of_a_format_are_a_table_that_survives_its_file(tmp_path: Path) -> None:
    options = {"stride": 8, "value": "p"}
    contest = Contest(slug="mine", format="pixels-wide", submission=options)
    write_contest(tmp_path / CONTEST_FILE, contest)

    written = (tmp_path / CONTEST_FILE).read_text()

    assert written.endswith('\n[submission]\nstride = 8\nvalue = "p"\n')
    assert read_contest(tmp_path / CONTEST_FILE) == contest
    assert (contest.options.stride, contest.options.value, contest.options.key) == (8, "p", "ID")


def test_readme_lists_every_format_with_the_options_that_it_knows() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| .* \| (`[a-z_` ]+`) \|$", text, re.MULTILINE))
    example = tomllib.loads(text.partition("```toml\n[submission]")[2].partition("```")[0])

    assert {name: tuple(keys.strip("`").split("` `")) for name, keys in rows.items()} == {
        name: known.keys for name, known in OPTIONS.items()
    }
    assert example.keys() == {field.name for field in fields(Options)}
    for name, known in OPTIONS.items():
        table = {key: value for key, value in example.items() if key in known.keys}
        assert contest_from(
            {"slug": "x", "format": name, "submission": table}, source="README.md"
        ).options


@pytest.mark.parametrize(
    ("format", "table", "message"),
    [
        ("pixels-wide", {"strid": 8}, "no key 'strid' for the format pixels-wide; .* 'stride'"),
        ("mean-luma", {"stride": 8}, "no key 'stride' for the format mean-luma; choose one of"),
        ("pixels-wide", {"stride": 0}, "stride: at least 1, not 0"),
        ("pixels-wide", {"stride": "wide"}, "stride: .*integer"),
        ("pixels-wide", {"scale": 100}, "scale: Input should be 1 or 255"),
        ("pixels-long", {"decimals": 6}, "decimals: from 0 to 5 where scale = 1"),
        ("pixels-long", {"decimals": -1}, "decimals: from 0 to 5 where scale = 1"),
        ("pixels-wide", {"decimals": 4}, "decimals: from 0 to 3 where scale = 255"),
        ("mean-luma", {"decimals": 18}, "decimals: from 0 to 17, or -1 for all"),
        ("mean-luma", {"space": "y709"}, "space: Input should be 'y601'"),
        ("mean-luma", {"id": "stm"}, "id: 'stm' is unknown; stem, name, index or a template"),
        ("mean-luma", {"id": "{stm}"}, r"id: '\{stm\}' may hold \{stem\}, \{name\} and \{index\}"),
        ("mask-rle", {"threshold": 0}, "threshold: above 0 and at most 1, not 0"),
        ("raw-b64", {"block": -1}, "block: at least 0, not -1"),
        ("zip", {"files": "{stem}.jpg"}, "no suffix of pictures kept without loss"),
        ("zip", {"files": "../{stem}.png"}, "must lie inside the archive"),
        ("zip", {"files": "{stem}.bmp", "bit_depth": 16}, "bmp files cannot hold 16 bits"),
    ],
)
def test_wrong_options_are_refused_by_name(
    format: str, table: dict[str, object], message: str
) -> None:
    content = {"slug": "mine", "format": format, "submission": table}

    with pytest.raises(SettingsError, match=rf"x\.toml: .*\[submission\] .*{message}"):
        contest_from(content, source="x.toml")


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match=r"x\.toml: unknown key 'nosy'") as caught:
        contest_from({"slug": "mine", "nosy": "a"}, source="x.toml")

    assert caught.value.hint == "did you mean 'noisy'?"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("channels", 2, "channels"),
        ("channels", "three", "channels"),
        ("group_by", "colour", "group_by"),
        ("holdout", "VA", "holdout"),
        ("noisy", 7, "noisy"),
        ("max_parameters", "many", "max_parameters"),
        ("metric", "pnsr", "metric 'pnsr' is unknown; did you mean 'psnr'"),
        ("noisy", "/somewhere", "noisy must be a folder inside the root"),
        ("clean", "../clean", "clean must be a folder inside the root"),
        ("test", "a/../../b", "test must be a folder inside the root"),
        ("truth", "/truth", "truth must be a folder inside the root"),
        ("sample", "../sample.csv", "sample must be a folder inside the root"),
        ("slug", "Mine", "slug 'Mine' must be lower-case"),
        ("slug", "", "slug '' must be lower-case"),
        ("slug", "-mine", "must be lower-case"),
        ("slug", "my contest", "must be lower-case"),
        ("slug", "../mine", "must be lower-case"),
        ("slug", "mine\n", "must be lower-case"),
        ("group_pattern", "(", "group_pattern is no regular expression"),
        ("group_pattern", ".+", "exactly one group in .., it has 0"),
        ("group_pattern", "(.)(.)", "exactly one group in .., it has 2"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_key(key: str, value: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        contest_from({"slug": "mine", key: value}, source="x.toml")

    assert str(caught.value).startswith("x.toml: ")


def test_a_contest_without_a_slug_is_refused() -> None:
    with pytest.raises(SettingsError, match="slug"):
        contest_from({"title": "No name"}, source="x.toml")


@pytest.mark.parametrize("content", [b"slug = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / CONTEST_FILE
    path.write_bytes(content)

    with pytest.raises(SettingsError, match="is not valid TOML") as caught:
        read_contest(path)

    assert str(path) in str(caught.value)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read") as caught:
        read_contest(tmp_path / CONTEST_FILE)

    assert "kbdenoise fetch" in caught.value.hint


def test_paths_start_from_the_contest_folder_unless_a_root_is_set(tmp_path: Path) -> None:
    contest = Contest(slug="mine", test="t", truth="u")

    beside = LocalContest(folder=tmp_path, contest=contest)
    elsewhere = LocalContest(folder=tmp_path, contest=replace(contest, root="/pictures"))

    assert beside.noisy == tmp_path / "train/noisy"
    assert elsewhere.clean == Path("/pictures/train/clean")
    assert (elsewhere.test, elsewhere.truth) == (Path("/pictures/t"), Path("/pictures/u"))


def test_a_contest_without_test_pictures_says_where_to_name_them(tmp_path: Path) -> None:
    local = LocalContest(folder=tmp_path, contest=Contest(slug="mine"))

    with pytest.raises(DataError, match="names no folder of test pictures") as caught:
        _ = local.test

    assert str(tmp_path / CONTEST_FILE) in caught.value.hint
    assert local.truth is None


def test_a_contest_is_opened_by_slug_or_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = saved(tmp_path, "first")
    saved(tmp_path, "second")

    assert open_contest("first", data=tmp_path).folder == folder
    assert open_contest(folder, data=tmp_path / "elsewhere").contest.slug == "first"
    assert open_contest(Path("second"), data=Path("elsewhere")).contest.slug == "second"


def test_without_a_name_the_only_contest_is_opened(tmp_path: Path) -> None:
    saved(tmp_path, "first")
    (tmp_path / "no-contest").mkdir()

    assert open_contest(None, data=tmp_path).contest.slug == "first"


def test_without_a_name_several_contests_are_a_question(tmp_path: Path) -> None:
    saved(tmp_path, "second")
    saved(tmp_path, "first")

    with pytest.raises(SettingsError, match="there are 2 contests") as caught:
        open_contest(None, data=tmp_path)

    assert caught.value.hint.endswith("first, second")
    assert [p.name for p in list_contests(tmp_path)] == ["first", "second"]


@pytest.mark.parametrize("data", [".", "missing"])
def test_without_any_contest_the_demo_is_proposed(data: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no contest in") as caught:
        open_contest(None, data=tmp_path / data)

    assert caught.value.hint == "kbdenoise fetch demo"


def test_a_mistyped_contest_gets_the_nearest_name(tmp_path: Path) -> None:
    saved(tmp_path, "khu-descan")

    with pytest.raises(DataError, match="there is no contest 'khu-descam'") as caught:
        open_contest("khu-descam", data=tmp_path)

    assert caught.value.hint == "did you mean 'khu-descan'?"


def test_the_names_of_formats_are_those_of_the_table() -> None:
    from kbdenoise.contests.contest import FORMAT_NAMES
    from kbdenoise.contests.formats import FORMATS

    assert tuple(FORMATS) == FORMAT_NAMES


def test_an_unknown_format_is_refused_when_the_file_is_read() -> None:
    with pytest.raises(SettingsError, match="zipp") as caught:
        contest_from({"slug": "x", "format": "zipp"}, source="contest.toml")

    assert "zip" in caught.value.message


def test_a_data_folder_that_may_not_be_entered_is_named_with_a_cure(
    tmp_path: Path, run_as_person
) -> None:
    saved(tmp_path / "data", "x")
    (tmp_path / "data").chmod(0o444)

    done = run_as_person(
        "from kbdenoise.contests.contest import open_contest\n"
        "from kbdenoise.errors import DataError\n"
        "try: open_contest('x')\n"
        "except DataError as error: print(error.message, error.hint, sep='\\n')\n"
    )

    (tmp_path / "data").chmod(0o755)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "cannot read data/x/contest.toml: Permission denied",
        "make data readable (chmod -R u+rwX data), or choose another folder",
    ]


def test_a_name_too_long_for_a_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        open_contest("x" * 300, data=tmp_path)


def test_the_left_overs_of_a_killed_fetch_are_no_contests(tmp_path: Path) -> None:
    folder = saved(tmp_path, "first")
    saved(tmp_path, "first").rename(tmp_path / ".first.old-12345678")
    saved(tmp_path, "first")

    assert list_contests(tmp_path) == [folder]
