"""Files of prompts."""

import pytest

from fluid_core.errors import DataError, PromptError
from fluid_core.sampling_run.prompts_file import given_prompts, read_prompts


def test_a_text_has_a_prompt_on_every_line(tmp_path):
    """Blank lines, white space at the ends, line ends of Windows and a byte order mark are no part of a prompt."""
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffa red circle\r\n\n  two Käse \u2028 x\n\t\nlast".encode())
    prompts = read_prompts(path)
    assert [prompt.text for prompt in prompts] == ["a red circle", "two Käse \u2028 x", "last"]
    assert [prompt.source for prompt in prompts] == [f"{path}, line {number}" for number in (1, 3, 5)]
    assert all(prompt.negative is None and prompt.seed is None and prompt.metadata == {} for prompt in prompts)


def test_lines_end_as_on_any_system(tmp_path):
    """A carriage return alone ends one as well, and the name of the file may be in capitals."""
    path = tmp_path / "P.TXT"
    path.write_bytes(b"a\rb\r\nc\n\nd\r")
    assert [prompt.text for prompt in read_prompts(path)] == ["a", "b", "c", "d"]


def test_json_lines_keep_what_they_know(tmp_path):
    """The form of GenEval's metadata: other keys stay as they are."""
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n'
        "\n"
        '{"prompt": "b", "negative_prompt": "blurry", "seed": 7}\n'
        '{"prompt": "c", "negative_prompt": null, "seed": null}\n'
        '{"prompt": "d", "negative_prompt": ""}\n'
    )
    bench, second, third, fourth = read_prompts(path)
    assert bench.text == "a photo of a bench"
    assert bench.metadata == {"tag": "single_object", "include": [{"class": "bench", "count": 1}]}
    assert (second.text, second.negative, second.seed, second.metadata) == ("b", "blurry", 7, {})
    assert (third.negative, third.seed) == (fourth.negative, fourth.seed) == (None, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a red circle", "no valid JSON"),
        ('["a"]', 'with the key "prompt", found'),
        ('{"caption": "a"}', 'with the key "prompt", found'),
        ('{"prompt": 3}', "found int"),
        ('{"prompt": " "}', "found an empty text"),
        ('{"prompt": "a", "negative_prompt": 1}', "found int"),
        ('{"prompt": "a", "seed": -1}', "found -1"),
        ('{"prompt": "a", "seed": true}', "found True"),
        ('{"prompt": "a", "seed": 9223372036854775808}', "found 9223372036854775808"),
        ('{"prompt": "a", "score": NaN}', "found NaN"),
        ('{"prompt": "a", "score": 1e999}', "finite numbers, found one that is too large"),
        ('{"prompt": "a", "score": ' + "9" * 5000 + "}", "beyond what can be read"),
        ('{"prompt": "a", "score": ' + "[" * 100_000, "beyond what can be read"),
        ('{"prompt": "\\ud800"}', "surrogate"),
        ('{"prompt": "a", "tag": "\\ud800"}', "surrogate"),
    ],
)
def test_mistakes_are_named_with_file_and_line(line, message, tmp_path):
    """The first line is fine, the third is wrong, and that is what the message says."""
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n\n{line}\n')
    with pytest.raises(DataError) as raised:
        read_prompts(path)
    assert str(raised.value).startswith(f"{path}, line 3: ")
    assert message in str(raised.value)


def test_files_that_are_no_prompts_are_refused(tmp_path):
    """No file, a folder, another ending, blank lines alone, and bytes that are no UTF-8."""
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"a\nK\xe4se\n")
    (tmp_path / "p.csv").write_text("a\n")
    for name, message in (
        ("none.txt", "no file of prompts"),
        ("folder.txt", "can not be read"),
        ("blank.txt", "blank lines alone"),
        ("latin.txt", r"latin.txt, line 2: expected UTF-8, found b'\\xe4'"),
        ("p.csv", "ends in .txt or .jsonl"),
    ):
        with pytest.raises(DataError, match=message):
            read_prompts(tmp_path / name)


def test_given_prompts_are_checked():
    """Each becomes a prompt of its own, and an empty one is refused."""
    assert [prompt.text for prompt in given_prompts(["a", "b"])] == ["a", "b"]
    with pytest.raises(PromptError, match="prompt 2 of 2"):
        given_prompts(["a", " "])
