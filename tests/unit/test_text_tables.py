"""Tables of texts as other programs write them: labels, JSON, quoting, encodings, and any bytes at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import string

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from winnow.config.text import TextData  # noqa: E402
from winnow.errors import WinnowError  # noqa: E402
from winnow.text.data import fixed_column, load_text, read_table, stratified  # noqa: E402
from winnow.text.labels import class_of  # noqa: E402

EXAMPLES = int(os.environ.get("WINNOW_FUZZ", "100"))  # of each property; thousands for a nightly run
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 100, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def config(train="train.csv", test="test.csv", **settings):
    return TextData(dataset="file", train_path=train, test_path=test, **settings)


def save(path, labels, text="text {}"):
    """A table with these labels, written by pandas as users do, or line by line as JSON."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"sentence": [text.format(i) for i in range(len(labels))], "label": labels})
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".json":
        frame.to_json(path, orient="records")
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


KINDS = ("csv", "tsv", "jsonl", "json", "parquet")
NUMBERED = {
    "names, one absent from the test file": (["neg", "mid", "pos"] * 4, ["neg", "pos"], 3, [1, 2]),
    "numbers as floats, a dozen": ([float(i) for i in range(12)], [2.0, 11.0], 12, [2, 11]),
    "numbers as text, a dozen": ([str(i) for i in range(12)], ["2", "10"], 12, [2, 10]),
    "from one": ([1, 2, 3, 4, 5] * 2, [5, 2], 5, [4, 1]),
    "with a gap": ([0, 4] * 4, [4, 4, 0], 2, [1, 1, 0]),
    "a class that no file has": ([0, 1] * 4, [1, 0], 3, [1, 0]),
    "true and false": ([True, False] * 4, [True, False], 2, [1, 0]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NUMBERED)
def test_one_numbering_over_all_splits(tmp_path, kind, name):
    train, test, classes, expected = NUMBERED[name]
    save(tmp_path / f"train.{kind}", train)
    save(tmp_path / f"test.{kind}", test)
    task = config(f"train.{kind}", f"test.{kind}", classes=classes, val_fraction=0.3)
    assert load_text(task, tmp_path)["test"].labels.tolist() == expected
    assert load_text(task, tmp_path, wanted=("test",))["test"].labels.tolist() == expected


NO_LABELS = {
    "fractions": ([i / 10 for i in range(10)], r"row 2, .*0\.1 is no class number"),
    "a missing number": ([0.0, 1.0, None, 1.0], r"row 3, .*(it is empty|NaN)"),
    "minus one": ([1, 0, 1, -1], r"row 4, .*-1 is below 0"),
    "a dash": (["a", "b", "-"], r"row 3, .*'-' says that there is no label"),
    "a blank": (["a", " ", "b"], r"row 2, .*it is empty"),
    "names and numbers": (["0", "1", "pos"],
     r"row 3, .*the label 'pos' is a name, .* in row 1 of .* a number; use one kind"),
    "too many names": (["a", "b", "c"],
     r"data\.classes: 2 classes, but column 'label' of .* 3 different labels \('a', 'b', 'c'\)"),
    "two spellings": (["pos", "neg", "Pos"], "3 different labels"),
    "one name": (["a", "a", "a"], "1 different labels"),
    "infinite": ([0.0, float("inf"), 1.0], r"row 2, .*(inf is no class number|it is empty|NaN)"),
    "huge": ([0, 1, 10**17], "3 different labels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NO_LABELS)
def test_what_is_no_label_is_refused_with_file_and_row(tmp_path, kind, name):
    labels, message = NO_LABELS[name]
    file = save(tmp_path / f"t.{kind}", labels)
    with pytest.raises(WinnowError, match=message) as caught:
        read_table(file, config())
    assert str(file) in str(caught.value)


def test_a_test_file_of_another_kind_of_label_is_refused(tmp_path):
    save(tmp_path / "train.csv", ["neg", "pos"] * 3)
    save(tmp_path / "test.csv", [0, 1])
    with pytest.raises(
        WinnowError, match=r"train\.csv: row 1, .*'neg' is a name, '0' in row 1 of .*test\.csv a number"
    ):
        load_text(config(), tmp_path)


ODD = ["a\u2028b", "c\u0085d", "e\x0bf\x0cg", "h\x1c\x1d\x1ei", "\ufeffj", "k\u2029l", "x" * 300_000]


@pytest.mark.parametrize(
    "name", ["t.jsonl", "t.json", "t.csv", "t.tsv", "t.parquet", "t.jsonl.gz", "indent.json", "columns.json"]
)
def test_separators_of_unicode_and_long_fields_stay_in_their_text(tmp_path, name):
    rows = [{"sentence": text, "label": i % 2} for i, text in enumerate(ODD)]
    file = tmp_path / name
    if name.endswith("parquet"):
        pytest.importorskip("pandas").DataFrame(rows).to_parquet(file)
    elif name == "columns.json":
        pytest.importorskip("pandas").DataFrame(rows).to_json(file, force_ascii=False)
    elif "jsonl" in name:
        data = "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in rows).encode()
        file.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    elif name.endswith("json"):
        file.write_text(
            json.dumps(rows, ensure_ascii=False, indent=1 if name == "indent.json" else None), encoding="utf-8"
        )
    else:
        with file.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, ["sentence", "label"], delimiter="\t" if "tsv" in name else ",")
            writer.writeheader()
            writer.writerows(rows)
    before = csv.field_size_limit()
    assert read_table(file, config()).texts == ODD
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding, name):
    rows = [("ein schöner Film", 1), ("映画はひどい", 0)]
    if name == "t.jsonl":
        text = "\n".join(json.dumps({"sentence": t, "label": y}, ensure_ascii=False) for t, y in rows)
    else:
        separator = "\t" if name == "t.tsv" else ","
        text = "\r\n".join([f"sentence{separator}label", *(f"{t}{separator}{y}" for t, y in rows)])
    (tmp_path / name).write_bytes(text.encode(encoding))
    found = read_table(tmp_path / name, config())
    assert found.texts == [t for t, _ in rows] and found.labels.tolist() == [1, 0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_end_of_line_ends_a_row(tmp_path, end):
    (tmp_path / "t.csv").write_bytes(end.join(["sentence,label", "a,1", "b,0", ""]).encode())
    assert read_table(tmp_path / "t.csv", config()).texts == ["a", "b"]


QUOTED = [('He said "great"', 1), ("two\nlines", 0), ("a\ttab", 1), ("plain", 0)]


def test_a_quoted_tsv_is_read_by_the_key_and_refused_without(tmp_path):
    for name, rows in (("one.tsv", QUOTED[:1] + QUOTED[3:]), ("all.tsv", QUOTED)):
        with (tmp_path / name).open("w", newline="") as f:
            csv.writer(f, delimiter="\t").writerows([("sentence", "label"), *rows])
        with pytest.raises(WinnowError, match=r"row [12] .*data\.quoting") as caught:
            read_table(tmp_path / name, config())
        assert name in str(caught.value)
        assert read_table(tmp_path / name, config(quoting="minimal")).texts == [t for t, _ in rows]
    assert read_table(tmp_path / "one.tsv", config(quoting="none")).texts[0] == '"He said ""great"""'


def test_the_default_takes_the_quotes_of_glue_as_text(tmp_path):
    texts = ['"a lone quote', 'ends with "', '"whole"', 'in"side', '""', "'"]
    (tmp_path / "t.tsv").write_text("sentence\tlabel\n" + "".join(f"{t}\t{i % 2}\n" for i, t in enumerate(texts)))
    assert read_table(tmp_path / "t.tsv", config()).texts == texts


BROKEN = {
    "an extra tab": ("t.tsv", b"sentence\tlabel\na\tb\t1\nc\t0\n", "row 1 has 3 cells, the header 2"),
    "a cell too few": ("t.csv", b"sentence,label\na,1\nb\n", "row 2 has 1 cells, the header 2"),
    "an open quote": ("t.csv", b'sentence,label\n"a,1\nb,0\n',
     r"line 3: unexpected end of data.*set data\.quoting to none"),
    "text after a quote": ("t.csv", b'sentence,label\n"a"b,1\n', r"line 2: .*data\.quoting"),
    "semicolons": ("t.csv", b"sentence;label\na;1\n", "no column 'sentence'; did you mean 'sentence;label'"),
    "a column twice": ("t.csv", b"sentence,label,label\na,1,0\n", "2 columns are named 'label'"),
    "latin-1": ("t.jsonl", b'{"sentence": "a", "label": 1}\n{"sentence": "\xe9", "label": 0}\n',
     r"byte 44 \(line 2\) is not UTF-8"),
    "half an utf-16 unit": ("t.csv", b"\xff\xfes\x00e\x00n", "is not UTF-16"),
    "an empty file": ("t.jsonl", b"", "the file is empty"),
    "an empty array": ("t.json", b"[]", "holds no rows"),
    "an array of texts": ("t.json", b'["a", "b"]', "row 1 is no JSON object"),
    "null": ("t.jsonl", b"null", "row 1 is no JSON object"),
    "a number": ("t.json", b"3", "row 1 is no JSON object"),
    "a bad line": ("t.jsonl", b'{"sentence": "a", "label": 1}\n{"sentence": }\n', "line 2: "),
    "a later row without the column": ("t.jsonl", b'{"sentence": "a", "label": 1}\n{"label": 1}\n',
     "row 2: no column 'sentence'"),
    "a text that is a number": ("t.jsonl", b'{"sentence": 3, "label": 1}\n' * 2,
     "row 1 has a int and no text in 'sentence'"),
    "a text that is null": ("t.jsonl", b'{"sentence": null, "label": 1}\n' * 2, "row 1 has an empty 'sentence'"),
    "half a surrogate pair": ("t.jsonl", b'{"sentence": "a\\ud800", "label": 1}\n' * 2,
     "row 1 has half a surrogate pair in"),
    "nested to the stack's end": ("t.json", b"[" * 100_000, "cannot be read as json"),
    "a label that is a list": ("t.jsonl", b'{"sentence": "a", "label": [1]}\n' * 2,
     "it is a list, not a number or a name"),
    "columns of two lengths": ("t.json", b'{"sentence": ["a", "b"], "label": [1]}', "no label|no text"),
    "a bare carriage return": ("t.csv", b"sentence,label\na\r,1\nb,0\n",
     "line 2 holds a carriage return outside quotes"),
    "gzip cut short": ("t.csv.gz", gzip.compress(b"sentence,label\na,1\nb,0\n")[:-9], "cannot be read as csv"),
    "gzip of noise": ("t.csv.gz", gzip.compress(b"x" * 99)[:12] + b"\xff" * 20, "cannot be read as csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_tables_end_in_one_line(tmp_path, name):
    file, content, message = BROKEN[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(WinnowError, match=message) as caught:
        read_table(tmp_path / file, config())
    assert str(tmp_path / file) in str(caught.value)


def test_pairs_keep_their_columns_and_only_a_premise_is_fixed(tmp_path):
    pd = pytest.importorskip("pandas")
    pd.DataFrame({"q1": ["a", "b"], "q2": ["c", "d"], "label": [0, 1]}).to_csv(tmp_path / "t.csv", index=False)
    task = config(text_column="q1", pair_column="q2")
    found = read_table(tmp_path / "t.csv", task)
    assert (found.columns, found.pairs) == (("q1", "q2"), ["c", "d"])
    assert fixed_column(task, found.columns) is None
    assert fixed_column(config(fixed_text="second"), found.columns) == "q2"
    assert fixed_column(config(fixed_text="first"), ("premise",)) is None
    for columns in (("premise", "hypothesis"), ("hypothesis", "premise")):
        assert fixed_column(config(), columns) == "premise"
        assert fixed_column(config(fixed_text="none"), columns) is None
    for name, fixed in (("mnli", True), ("qnli", True), ("rte", True), ("wnli", True), ("qqp", False), ("mrpc", False)):
        assert fixed_column(TextData(dataset="glue", task=name), ("one", "two")) == ("one" if fixed else None)


def test_a_file_sorted_by_class_is_drawn_from_by_class():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    chosen = stratified(labels, 20 / 1000, 0, "attacked")
    assert np.bincount(labels[chosen]).tolist() == [10, 6, 4]
    assert len(set(chosen.tolist())) == 20 and (np.diff(chosen) > 0).all()


# --- any input: what was written comes back, or one line says what is wrong

TEXTS = (
    st.text(min_size=1, max_size=30).filter(str.strip).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t))
)
ROWS = st.lists(st.tuples(TEXTS, st.integers(0, 2)), min_size=1, max_size=8)


def read_back(path, rows, **settings):
    found = read_table(path, config(classes=3, **settings))
    assert found.texts == [t for t, _ in rows]
    assert found.labels.tolist() == [y for _, y in rows]


@FUZZ
@given(
    ROWS,
    st.sampled_from([",", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-16"]),
)
def test_whatever_the_csv_module_writes_comes_back(tmp_path, rows, separator, end, every, encoding):
    buffer = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=quoting).writerows(
        [("sentence", "label"), *rows]
    )
    path = tmp_path / f"t.{'csv' if separator == ',' else 'tsv'}"
    mark = b"\xef\xbb\xbf" if encoding == "utf-8" else b""
    path.write_bytes(mark + buffer.getvalue().encode(encoding))
    if end == "\n" and any("\r" in t for t, _ in rows):  # which the module does not always put in quotes then
        try:
            read_back(path, rows, quoting="minimal")
        except WinnowError as error:
            assert "carriage return outside quotes" in str(error)
        return
    read_back(path, rows, quoting="minimal")
    if separator == "\t":  # without the key: what was meant, or one line
        try:
            found = read_table(path, config(classes=3)).texts
        except WinnowError as error:
            assert "\n" not in str(error)
        else:
            assert [t.strip('"') for t in found] == [t.strip('"') for t, _ in rows]


@FUZZ
@given(ROWS, st.booleans(), st.sampled_from(["lines", "array", "columns"]), st.sampled_from([None, 1]), st.booleans())
def test_whatever_the_json_module_writes_comes_back(tmp_path, rows, ascii_only, shape, indent, zipped):
    objects = [{"sentence": t, "label": y, "other": None} for t, y in rows]
    if shape == "lines":
        text = "\n".join(json.dumps(o, ensure_ascii=ascii_only) for o in objects)
    else:
        whole = objects if shape == "array" else {"sentence": [t for t, _ in rows], "label": [y for _, y in rows]}
        text = json.dumps(whole, ensure_ascii=ascii_only, indent=indent)
    path = tmp_path / f"t.json{'l' if shape == 'lines' else ''}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    read_back(path, rows)


@FUZZ
@given(ROWS, st.booleans(), st.sampled_from(["int64", "int8", "uint16", "float32", "string", "dictionary", "decimal"]))
def test_whatever_pyarrow_writes_comes_back(tmp_path, rows, named, kind):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    labels = pa.array([y for _, y in rows], pa.int64())
    if kind == "dictionary":
        labels = labels.dictionary_encode()
    elif kind == "decimal":
        labels = labels.cast(pa.decimal128(20, 1))
    else:
        labels = labels.cast(getattr(pa, kind)())
    texts = pa.array([t for t, _ in rows], pa.large_string() if named else pa.string())
    pq.write_table(pa.table({"sentence": texts, "label": labels}), tmp_path / "t.parquet")
    read_back(tmp_path / "t.parquet", rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["sentence", "label", "x"]), inner,
     max_size=3),
    max_leaves=20,
)  # fmt: skip
PIECES = st.lists(
    st.sampled_from(["sentence", "label", "pair", ",", "\t", "\n", "\r", '"', '""', "0", "1", "-1", "nan", "1e9",
      "\u2028", "\x00", "é", "{", "}", "[", ":"])
    | st.text(string.printable, max_size=3),
    max_size=40,
).map("".join)  # fmt: skip
CONTENTS = st.one_of(
    st.binary(max_size=200),
    PIECES.map(str.encode),
    PIECES.map(lambda t: ("sentence\tlabel\n" + t).encode()),
    PIECES.map(lambda t: ("sentence,label,pair\na,1,b\n" + t).encode("utf-16")),
    JSON.map(lambda v: json.dumps(v).encode()),
    st.lists(JSON, max_size=4).map(lambda v: "\n".join(map(json.dumps, v)).encode()),
    st.binary(max_size=60).map(lambda b: gzip.compress(b)[:-3] + b),
    st.binary(max_size=60).map(lambda b: b"PAR1" + b + b"PAR1"),
)  # fmt: skip
SETTINGS = st.fixed_dictionaries(
    {"quoting": st.sampled_from([None, "none", "minimal"]), "pair_column": st.sampled_from([None, "pair"])}
)


@FUZZ
@given(CONTENTS, st.sampled_from([*KINDS, "CSV", "tsv.gz", "csv.gz", "jsonl.gz", "parquet.gz", "txt", "gz"]), SETTINGS)
def test_any_bytes_give_examples_or_one_line(tmp_path, content, kind, settings):
    path = tmp_path / f"t.{kind}"
    path.write_bytes(content)
    try:
        found = read_table(path, config(**settings))
    except WinnowError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert len(found.texts) == len(found.labels) > 0 and all(t.strip() for t in found.texts)
        assert set(found.labels.tolist()) <= {0, 1}
    finally:
        path.unlink()


@FUZZ
@given(st.data(), st.sampled_from(KINDS))
def test_labels_keep_their_meaning_over_all_splits(tmp_path, data, kind):
    """Whatever the classes are called and whichever of them a file holds, equal labels get equal numbers and others
    differ.
    """
    names = st.text(string.ascii_letters, min_size=1, max_size=4).filter(
        lambda n: n.lower() not in ("nan", "null", "inf")
    )
    classes = data.draw(
        st.lists(names, min_size=2, max_size=4, unique=True)
        | st.lists(st.integers(0, 30), min_size=2, max_size=4, unique=True)
    )
    train, test = (data.draw(st.lists(st.sampled_from(classes), min_size=2, max_size=8)) for _ in range(2))
    train = [*train, *classes]
    save(tmp_path / f"train.{kind}", train)
    save(tmp_path / f"test.{kind}", test)
    task = config(f"train.{kind}", f"test.{kind}", classes=len(classes), val_fraction=0.2)
    splits = load_text(task, tmp_path)
    order = {label: number for number, label in enumerate(sorted(classes))}
    assert splits["test"].labels.tolist() == [order[label] for label in test]
    for part in ("train", "val"):
        assert splits[part].labels.tolist() == [order[train[row]] for row in splits[part].rows]


def test_numbers_are_spelled_in_ascii_and_infinity_in_any_case():
    for text in ("INF", "-Infinity", "inf", "1E3", "1e3", "0.5"):
        with pytest.raises(ValueError, match="is no class number"):
            class_of(text)
    assert class_of("\u0661\u0662") == "\u0661\u0662" and class_of(" 12.0 ") == 12  # Arabic digits are a name
