from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.errors import ConfigError
from swiftdiff.trace.synthesis.spec import find_spec, load_spec, parse_spec, shipped_specs

POISSON = "[arrivals.poisson]\nrate_per_s = 1.0\n"
ZIPF = '[loras.zipf]\nids = ["neon", "gold"]\n'


def test_a_spec_needs_no_more_than_arrivals() -> None:
    spec = parse_spec(POISSON)
    assert spec.requests == 1000
    assert spec.loras is None


def test_one_value_is_a_choice_of_one() -> None:
    spec = parse_spec(POISSON + "[pictures]\nnum_inference_steps = 12\nsize = [128, 64]\n")
    assert spec.pictures.num_inference_steps.values == (12,)
    assert spec.pictures.size is not None
    assert spec.pictures.size.values == ((128, 64),)


@pytest.mark.parametrize("name", sorted(shipped_specs()))
def test_writing_a_shipped_spec_and_reading_it_gives_it_again(name: str) -> None:
    spec = load_spec(find_spec(name))
    assert parse_spec(spec.to_toml()) == spec


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "field arrivals is missing"),
        ("[arrivals]\n", "arrivals is {}, but must be one table of arrivals.poisson, arrivals.gamma"),
        (
            POISSON + "[arrivals.gamma]\nrate_per_s = 1.0\nshape = 1.0\n",
            "must be one table of arrivals.poisson",
        ),
        ("[arrivals.poison]\nrate_per_s = 1.0\n", "unknown field 'poison'; did you mean 'poisson'?"),
        (
            "[arrivals.poisson]\nrate_per_s = 0\n",
            "arrivals.poisson.rate_per_s is 0, but must be greater than 0",
        ),
        ("[arrivals.poisson]\nrate_per_s = inf\n", "arrivals.poisson.rate_per_s is inf, but must be"),
        ('[arrivals.poisson]\nrate_per_s = "1"\n', "rate_per_s is '1', but must be a number"),
        ("[arrivals.poisson]\nrate_per_s = 2024-01-01\n", "rate_per_s is '2024-01-01', but must be a number"),
        ("[arrivals.diurnal]\nrate_per_s = 1\ncurve = [0, 0]\n", "a curve that is above 0 somewhere"),
        ("[arrivals.gaps]\nprobabilities = [0, 1]\nseconds = [2, 1]\n", "seconds that never fall"),
        (
            "[arrivals.gaps]\nprobabilities = [0.1, 1]\nseconds = [1, 2]\n",
            "probabilities that rise from 0 to 1",
        ),
        ("requests = 0\n" + POISSON, "requests is 0, but must be at least 1"),
        ("seed = -1\n" + POISSON, "seed is -1, but must be at least 0"),
        (
            POISSON + "[pictures]\nnum_inference_steps = 2000\n",
            "num_inference_steps from 1 to 1000, not 2000",
        ),
        (POISSON + "[pictures]\nnum_inference_steps = 2.5\n", "must be an integer"),
        (POISSON + "[pictures]\nsize = [100, 128]\n", "sides that are multiples of 8 up to 4096, not 100"),
        (POISSON + "[pictures]\nguidance_scale = -1\n", "guidance_scale at least 0"),
        (POISSON + "[pictures]\nguidance_scale = {low = 2, high = 1}\n", "a range with low at most high"),
        (
            POISSON + "[pictures]\nnum_images = {values = [1, 2], weights = [1]}\n",
            "as many weights as values",
        ),
        (POISSON + "[pictures]\nnum_images = {values = [1], weights = [0]}\n", "at least one weight above 0"),
        (POISSON + "[loras]\nper_request = 1\n", "a table zipf or a table locality, one of both"),
        (POISSON + "[loras]\nper_request = 3\n" + ZIPF, "given with 0 to 2 adapters a request, not 3"),
        (
            POISSON + ZIPF,
            "mine.toml: the spec must be given with either loras.per_request or adapters_in_turn",
        ),
        ("adapters_in_turn = [[1, 0]]\n" + POISSON, "a table controlnets, which adapters_in_turn counts"),
        ("adapters_in_turn = [[0, 9]]\n" + POISSON + ZIPF, "given with 0 to 2 adapters a request, not 9"),
        (
            POISSON + '[loras]\nper_request = 1\n[loras.zipf]\nids = ["a", "a"]\n',
            "given with ids that differ",
        ),
        (
            POISSON + '[loras]\nper_request = 1\n[loras.zipf]\nids = ["a"]\nchurn_per_1000_uses = 1\n',
            "count and prefix for churn",
        ),
        (
            POISSON + "[loras]\nper_request = 1\n[loras.locality]\ndistances = [2, 1]\nweights = [1, 1, 1]\n",
            "distances that rise",
        ),
        (
            POISSON
            + '[controlnets]\nper_request = 1\nstart = 0.5\nend = 0.2\n[controlnets.zipf]\nids = ["a"]\n',
            "an end above its start (0.5)",
        ),
        ("not toml", "not valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_key_and_what_would_be_right(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_specs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read spec .*No such file"):
        load_spec(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read spec"):
        load_spec(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_spec(tmp_path / "bytes.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(ConfigError, match="larger than"):
        load_spec(tmp_path / "huge.toml")


def test_a_name_is_a_shipped_spec_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_spec("steady").name == "steady.toml"
    with pytest.raises(ConfigError, match=r"no spec 'stedy': name a TOML file or one of bursty, many-loras"):
        find_spec("stedy")
    Path("steady").write_text(POISSON)
    assert find_spec("steady") == Path("steady")
