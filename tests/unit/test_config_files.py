"""Configuration files: what lies over what, where each key was given, and what is refused before any job, with file and
line.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from winnow.config.files import LARGEST, Document, layered, read, resolve, show
from winnow.config.root import load_files
from winnow.errors import WinnowError
from winnow.pipelines import NAMES
from winnow.schema import plain

DEFAULT, PAPER = ROOT / "config/config.yaml", ROOT / "config/paper/double_win.yaml"
TRAIN = "{epochs: 2, batch_size: 8, lr: 0.1}"
ATTACK = "{eps: 8/255, step_size: 2/255, steps: 2}"
SECTION = f"""\
    double_win:
      seeds: [1]
      source:
        name: src
        data: {{dataset: digits, val_images: 100}}
        model: {{arch: resnet8}}
      pretrainings:
        - {{name: std, method: std, train: {TRAIN}}}
      imp: {{rounds: 0, train: {TRAIN}}}
      transfer: {{methods: [dense]}}
      downstreams:
        - name: down
          data: {{dataset: digits, val_images: 100}}
          std: {TRAIN}
          adv: {TRAIN}
          attack: {ATTACK}
          evaluation: {{attack: {ATTACK}}}
    """
GEMS = f"""\
    rare_gems:
      seeds: [1]
      experiments:
        - name: e
          dataset: digits
          data: {{dataset: digits, val_images: 100}}
          model: {{arch: resnet8}}
          targets: [5]
          finetune: {TRAIN}
          branches:
            - name: gm
              algo: hc_iter
              search: {{iter_period: 1}}
              train: {TRAIN}
    """


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(textwrap.dedent(text))
    return Path(name)


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def refused(call, *arguments) -> str:
    with pytest.raises(WinnowError) as error:
        call(*arguments)
    text = str(error.value)
    assert "\n" not in text and "validation error" not in text and "pydantic" not in text
    return text


# what lies over what


def test_the_whole_default_stands_in_when_no_pipeline_is_given(folder):
    own = write("own.yaml", "workers: 7\n")
    root, _ = load_files([own])
    assert root.workers == 7 and list(root.sections()) == list(NAMES)
    assert load_files([])[0].having(workers=7) == root
    assert load_files([], {"workers": 7})[0] == root


def test_a_section_that_is_given_stands_alone(folder):
    root, document = load_files([write("own.yaml", SECTION)])
    assert list(root.sections()) == ["double_win"] and root.workers == 2
    assert [p.name for p in root.double_win.pretrainings] == ["std"] and not root.double_win.transfer.tickets
    assert all(place.startswith("own.yaml:") for place in document.marks.values())


def test_nothing_of_the_demo_fills_a_paper_s_file(folder):
    text = PAPER.read_text()
    assert "  seeds: [1, 2, 3]\n" in text
    path = write("paper.yaml", text.replace("  seeds: [1, 2, 3]\n", ""))
    line = line_of(path, "double_win:")
    text = refused(load_files, [path], {"check_data": False})
    assert text.startswith("config.double_win.seeds: required key is missing (one run of the whole chain each")
    assert text.endswith(f"(paper.yaml:{line})")


def test_a_part_of_a_section_is_refused_without_a_base(folder):
    part = write("own.yaml", "double_win:\n  source: {data: {dataset: cifar10, val_images: 500}}\n")
    text = refused(load_files, [part])
    assert text.startswith("config.double_win.") and "required key is missing" in text and "own.yaml:" in text


def test_with_a_base_data_replaces_as_a_whole(folder):
    part = write("own.yaml", "base: config\ndouble_win:\n  source: {data: {dataset: cifar10, val_images: 500}}\n")
    root, document = load_files([part])
    source = root.double_win.source
    assert source.data.classes is None and source.data.train_crop == "none" and source.data.val_images == 500
    assert (source.name, source.model.width) == ("digits04", 16)  # siblings stay
    assert document.given(["double_win", "source", "data", "classes"]) is None
    assert document.origin(["double_win", "source", "data", "val_images"]) == "own.yaml:3"


@pytest.mark.parametrize("name", ["data", "model", "train", "attack", "evaluation"])
def test_wholes_replace_and_other_mappings_merge(folder, name):
    write("low.yaml", f"a: {{{name}: {{x: 1, y: 2}}, other: {{x: 1, y: {{z: 2}}}}, list: [1, 2, 3]}}\n")
    high = write("high.yaml", f"base: low.yaml\na: {{{name}: {{x: 5}}, other: {{x: 5}}, list: [4]}}\n")
    assert layered(high).values == {"a": {name: {"x": 5}, "other": {"x": 5, "y": {"z": 2}}, "list": [4]}}


def test_a_base_is_found_beside_the_file_then_among_the_shipped_ones_and_may_have_one_itself(folder):
    write("a/bottom.yaml", "x: {one: 1, two: 1}\n")
    write("a/middle.yaml", "base: bottom.yaml\nx: {two: 2, three: 2}\n")
    top = write("top.yaml", "base: a/middle.yaml\nx: {three: 3}\n")
    assert layered(top).values == {"x": {"one": 1, "two": 2, "three": 3}}
    shipped = layered(write("own.yaml", "base: paper/double_win\nworkers: 1\n"))
    assert shipped.values["double_win"] == read(PAPER).values["double_win"] and shipped.values["workers"] == 1
    write("paper/double_win.yaml", "x: 1\n")
    assert layered(write("own.yaml", "base: paper/double_win.yaml\n")).values == {"x": 1}
    assert refused(layered, write("own.yaml", "base: nowhere\n")).startswith("own.yaml: base: nowhere: no such file")


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_cycle_of_bases_is_refused(folder, names):
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        write(f"{name}.yaml", f"base: {following}.yaml\n")
    assert "the files name one another" in refused(layered, Path("a.yaml"))


def test_later_files_and_settings_lie_over_earlier_ones(folder):
    one, two = write("one.yaml", "workers: 1\ngpus: 1\ndevice: cpu\n"), write("two.yaml", "gpus: 2\ndevice: cuda\n")
    document = resolve([one, two], {"device": "auto"}, ())
    places = [(k, document.values[k], document.origin([k])) for k in ("workers", "gpus", "device")]
    assert places == [("workers", 1, "one.yaml:1"), ("gpus", 2, "two.yaml:1"), ("device", "auto", "--config")]


# origins


def test_every_value_is_shown_with_its_place(folder):
    own = write(
        "own.yaml",
        "base: config\nworkers: 1\ndouble_win:\n  seeds: [7, 8]\n  imp:\n    rounds: 1\n  transfer:\n    rounds: [1]\n",
    )
    root, document = load_files([own])
    shown = show(plain(root), document)
    found = {line.split("#")[0].strip(): line.split("#")[1].strip() for line in shown.splitlines() if "#" in line}
    assert (
        found["workers: 1"] == "own.yaml:2" and found["seeds: [7, 8]"] == "own.yaml:4" and found["gpus: 1"] == "default"
    )
    assert found["rounds: 1"] == "own.yaml:6" and found["rounds: [1]"] == "own.yaml:8"
    assert found["prune_percent: 40.0"] == f"{DEFAULT}:{line_of(DEFAULT, 'prune_percent: 40')}"
    assert plain(load_files([write("again.yaml", shown)])[0]) == plain(root)  # what is shown is a configuration


def test_an_error_names_the_line_of_its_key_through_anchors_merges_and_bases(folder):
    own = write("own.yaml", SECTION.replace("epochs: 2", "epochs: 2, momentum: 1", 1))
    text = refused(load_files, [own])
    assert (
        text == f"config.double_win.pretrainings[0].train.momentum: 1 must be < 1 (own.yaml:{line_of(own, 'momentum')})"
    )
    write("low.yaml", SECTION.replace("batch_size: 8", "batch_size: 0"))
    text = refused(load_files, [write("top.yaml", "base: low.yaml\nworkers: 1\n")])
    assert text.startswith("config.double_win.") and ".batch_size: 0 must be >= 1 (" in text and "low.yaml:" in text
    assert read(write("m.yaml", "a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n")).origin(["b", "x"]) == "m.yaml:1"


# files that are no configuration


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "f.yaml:3: not YAML ("),
        ("a: 1\n\tb: 2\n", "f.yaml:2: not YAML ("),
        ("a: *nowhere\n", "f.yaml:1: not YAML (found undefined alias"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "f.yaml:5: the key 'c' appears twice"),
        ("a: 1\na: 1\n", "f.yaml:2: the key 'a' appears twice"),
        ("a: 1\n? [x]\n: 1\n", "f.yaml:2: the key ['x'] is no name"),
        ("- a\n", "f.yaml: expected a mapping of keys"),
        ("a: 2020-99-99\n", "f.yaml:1: not a value of a configuration ("),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "f.yaml:1: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is nothing",
        ),
        ("a: !!set {x}\n", "f.yaml:1: the tag 'tag:yaml.org,2002:set' is nothing"),
        (
            "a: !secret x\n",
            "f.yaml:1: not a value of a configuration (could not determine a constructor for the tag '!secret')",
        ),
        ("a: 1\nb: &b [1, *b]\n", "f.yaml:2: an alias stands within what it names"),
        ("a: 1\nb: &b\n  c: *b\n", "f.yaml:2: an alias stands within what it names"),
        ("a: 1\n<<: [1]\n", "f.yaml:2: << takes mappings, got 1"),
    ],
)
def test_what_is_no_configuration_is_one_line(folder, text, message):
    assert refused(read, write("f.yaml", text)).startswith(message)


def test_files_that_cannot_be_read_are_one_line(folder):
    assert refused(read, Path("none.yaml")) == "none.yaml: no such file; name a configuration file"
    os.mkfifo("fifo.yaml")
    assert refused(read, Path("fifo.yaml")) == "fifo.yaml: is a FIFO, not a regular file; give the file itself"
    Path("b.yaml").write_bytes(b"a: \xff\xfe\n")
    assert refused(read, Path("b.yaml")).startswith("b.yaml: not a YAML text in UTF-8")
    Path("c.yaml").write_bytes(b"a: \x00\n")
    assert refused(read, Path("c.yaml")).startswith("c.yaml")
    large = write("large.yaml", "a: " + "x" * LARGEST)
    assert refused(read, large).startswith("large.yaml: holds 4,194,307 bytes, more than the 4,194,304")
    assert read(write("empty.yaml", "# nothing\n")).values == {}


@pytest.mark.parametrize("text", ["[" * 10**6, "a: " + "{a: " * 10**6, "- " * 10**6, "a: " + "[" * 60 + "]" * 60])
def test_deep_nesting_is_refused_at_once(folder, text):
    path = write("deep.yaml", text)
    code = f"from pathlib import Path; from winnow.config.files import read; read(Path({str(path)!r}))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("winnow.errors.WinnowError: deep.yaml"), done.stderr[-500:]
    assert "nested" in last and time.perf_counter() - start < 10


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    "text", [BOMB, BOMB + "double_win: *a8\n", BOMB + "double_win: {seeds: *a8}\n"], ids=["root", "section", "list"]
)
def test_a_bomb_of_aliases_costs_nothing(folder, text):
    """A billion numbers, were the aliases written out."""
    path = write("bomb.yaml", text)
    code = (
        "import resource, time\nfrom pathlib import Path\nfrom winnow.config.root import load_files\n"
        "from winnow.errors import WinnowError\n"
        "before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()\n"
        f"try:\n    load_files([Path({str(path)!r})])\nexcept WinnowError as error:\n    print(str(error)[:300])\n"
        "print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (30, 30))  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    message, figures = done.stdout.splitlines()
    seconds, kilobytes = map(float, figures.split())
    assert message.startswith("config.") and "bomb.yaml:" in message
    assert seconds < 1 and kilobytes < 200_000


# what no job could do


def images(folder: str, classes: int, each: int, splits=("train", "test")) -> None:
    from PIL import Image

    for split in splits:
        for c in range(classes):
            Path(f"{folder}/{split}/c{c}").mkdir(parents=True)
            for i in range(each):
                Image.fromarray(np.full((8, 8, 3), 9 * c + i, np.uint8)).save(f"{folder}/{split}/c{c}/{i}.png")


def changed(old: str, new: str, text: str = SECTION, count: int = 1) -> str:
    assert old in text
    return text.replace(old, new, count)


TASK = "data: {dataset: digits, val_images: 100}"
FOLDER = "data: {dataset: imagefolder, path: set, val_images: 4}"
CLASSES = "data: {dataset: digits, classes: [0, 1], val_images: 100}"

# (configuration, key, rest of the message, what stands in the line)
REFUSALS = {
    "fast_adv of five steps": (
        changed("method: std, train", f"method: fast_adv, attack: {ATTACK.replace('steps: 2', 'steps: 5')}, train"),
        "double_win.pretrainings[0]", "attack.steps: 5, but fast_adv takes one step; use method adv for more",
        "fast_adv",
    ),
    "a search too short to prune": (
        changed("iter_period: 1", "iter_period: 2", GEMS),
        "rare_gems.experiments[0].branches[0]",
        "train.epochs: a search of 2 epochs never prunes with iter_period 2; it takes iter_period + 1", "- name: gm",
    ),
    "apgd-t on two classes": (
        changed(TASK, CLASSES, count=2).replace("evaluation: {", "evaluation: {autoattack: {eps: 0.1}, "),
        "double_win.downstreams[0].evaluation.autoattack.attacks",
        "apgd-t needs at least 4 classes, the task has 2; leave it out", "evaluation:",
    ),
    "apgd-t said on two classes": (
        changed(TASK, CLASSES, count=2).replace("evaluation: {",
         "evaluation: {autoattack: {eps: 0.1, attacks: [apgd-ce, apgd-t]}, "),
        "double_win.downstreams[0].evaluation.autoattack.attacks",
        "apgd-t needs at least 4 classes, the task has 2; leave it out", "evaluation:",
    ),
    "single images under batch normalisation": (
        changed(f"std: {TRAIN}", f"std: {TRAIN.replace('batch_size: 8', 'batch_size: 1')}"),
        "double_win.downstreams[0].std.batch_size", "1, but resnet8 normalises over batches; take 2 images or more",
        "batch_size: 1",
    ),
    "a gem search on single images": (
        changed("batch_size: 8", "batch_size: 1", GEMS, count=2),
        "rare_gems.experiments[0].finetune.batch_size", "1, but resnet8 normalises over batches", "batch_size: 1",
    ),
    "a rewinding point beyond the training": (
        changed("algo: hc_iter", "algo: imp", GEMS).replace("search: {iter_period: 1}", "imp: {rewind_iteration: 400}"),
        "rare_gems.experiments[0].branches[0].imp.rewind_iteration",
        "400 is beyond the 312 steps of the training; lower it", "rewind_iteration: 400",
    ),
    "a section that is null": ("    double_win: null\n", "double_win",
        "null, and no other pipeline is set: nothing to run; give one of", "double_win: null",
    ),
    "a transfer of no epoch": (
        changed(f"std: {TRAIN}", f"std: {TRAIN.replace('epochs: 2', 'epochs: 0')}"),
        "double_win.downstreams[0]", "std.epochs: 0, but a transfer trains at least one epoch", "- name: down",
    ),
    "weights that are not there": (
        changed(f"method: std, train: {TRAIN}", "method: import, weights: {file: away.pth}, num_classes: 10"),
        "double_win.pretrainings[0].weights.file", "away.pth: no such file; correct the path", "away.pth",
    ),
    "weights of no seed": (
        changed(f"method: std, train: {TRAIN}", 'method: import, weights: {file: "away{seed}.pth"}, num_classes: 10'),
        "double_win.pretrainings[0].weights.file", "away{seed}.pth: no such file; correct the path", "away",
    ),
    "a folder without a path": (
        changed(TASK, "data: {dataset: imagefolder, val_images: 4}"),
        "double_win.source.data.path", "required for dataset imagefolder", "dataset: imagefolder",
    ),
    "no folder": (
        changed(TASK, FOLDER.replace("set", "none", 2).replace("datanone", "dataset")),
        "double_win.source.data.path", "data/none: not there; put the data in place, or correct the path or data_root",
        "path: none",
    ),
    "a folder without splits": (
        changed(TASK, FOLDER.replace("path: set", "path: flat")),
        "double_win.source.data.path", "data/flat: expected the folders train/<class>/ and test/<class>/", "path: flat",
    ),
    "classes that the folder lacks": (
        changed(TASK, FOLDER.replace("path", "classes: [0, 3], path")),
        "double_win.source.data.classes", "3 is no label: set has the labels 0 to 2", "classes: [0, 3]",
    ),
    "images that the folder lacks": (
        changed(TASK, FOLDER.replace("val_images: 4", "val_images: 12")),
        "double_win.source.data.val_images",
        "val_images 12 are more than the 12 training images of set allow; lower it",
        "val_images: 12",
    ),
    "more images than held out and used": (
        changed(TASK, FOLDER.replace("val_images: 4", "val_images: 4, train_images: 9")),
        "double_win.source.data.val_images", "val_images 4 and train_images 9 are more than the 12 training images",
        "train_images",
    ),
    "more digits than there are": (
        changed(TASK, TASK.replace("100", "1348")),
        "double_win.source.data.val_images", "val_images 1348 are more than the 1348 training images of digits allow",
        "1348",
    ),
    "labels that the digits lack": (
        changed(TASK, "data: {dataset: digits, classes: [0, 10], val_images: 100}"),
        "double_win.source.data.classes", "10 is no label: digits has the labels 0 to 9", "classes: [0, 10]",
    ),
    "a fraction of nothing": (
        changed("          std:", "          fractions: [0.001]\n          std:"),
        "double_win.downstreams[0].fractions", "0.001 of 1248 training images is less than two images; raise it",
        "fractions:",
    ),
    "an unknown architecture": (
        changed("arch: resnet8", "arch: resnet8b"),
        "double_win.source.model.arch", "'resnet8b' is no known architecture; did you mean 'resnet8'?", "resnet8b",
    ),
    "an unknown torchvision classifier": (
        changed("arch: resnet8", "arch: regnet_y_400m", GEMS),
        "rare_gems.experiments[0].model.arch",
        "'regnet_y_400m' is no known architecture; did you mean 'regnet_y_400mf'?", "regnet",
    ),
    "an unknown key in a branch": (
        changed("iter_period: 1", "iter_perod: 1", GEMS),
        "rare_gems.experiments[0].branches[0].search.iter_perod", "unknown key; did you mean 'iter_period'?",
        "iter_perod",
    ),
    "a method that nobody knows": (
        changed("method: std", "method: fastadv"),
        "double_win.pretrainings[0].method", "'fastadv' is not a valid choice; did you mean 'fast_adv'?", "fastadv",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_key_line_and_mend(folder, name):
    text, key, message, marked = REFUSALS[name]
    images("data/set", 3, 4)
    images("data/flat", 0, 0, ())
    Path("data/flat/c0").mkdir(parents=True)
    own = write("own.yaml", text)
    said = refused(load_files, [own])
    assert said.startswith(f"config.{key}: {message}"), said
    assert said.endswith(f"(own.yaml:{line_of(own, marked)})"), said


def test_what_is_at_hand_is_accepted(folder):
    images("data/set", 3, 4)
    shutil.copyfile(ROOT / "pyproject.toml", "at0.pth")
    for text in (
        SECTION, GEMS, changed(TASK, FOLDER), changed(TASK, FOLDER.replace("val_images: 4", "val_images: 11")),
        changed(f"method: std, train: {TRAIN}", 'method: import, weights: {file: "at{seed}.pth"}, num_classes: 10'),
        changed("iter_period: 1", "iter_period: 1", GEMS), changed("arch: resnet8", "arch: regnet_y_400mf"),
        changed("evaluation: {", "evaluation: {autoattack: {eps: 0.1}, "),
    ):  # fmt: skip
        load_files([write("own.yaml", text)])


def test_a_plan_needs_no_data(folder):
    for name in ("no folder", "weights that are not there", "weights of no seed"):
        load_files([write("own.yaml", REFUSALS[name][0])], {"check_data": False})


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_file_loads(path):
    if path.parent.name == "rare_gems":
        pytest.skip("a released file in the paper's own keys; tests/unit/test_gems_config.py")
    root, document = load_files([path], {"check_data": False})
    assert root.sections() and isinstance(document, Document)
    assert plain(load_files([path], {"check_data": "false"})[0]) == plain(root)  # as Snakemake's --config gives it


def test_reading_gives_what_pyyaml_gives(folder):
    for path in ROOT.glob("config/**/*.yaml"):
        assert read(path).values == yaml.safe_load(path.read_text())
