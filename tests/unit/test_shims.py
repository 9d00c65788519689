"""What is worked round in dependencies: nothing is stood in for, and each shim is still needed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from winnow import compat as vision_compat

torch = pytest.importorskip("torch")

ATTACKS = """
import logging, os, sys
early = logging.getLogger("early")
from winnow.text import compat
package = compat.textattack()

assert package is sys.modules["textattack"] is compat.textattack()
assert [n for n, m in sys.modules.items() if m is None] == []
for name in ("torch._dynamo", "transformers", "pandas", "scipy.special", "sklearn", "flair", "datasets", "bert_score"):
    assert os.path.isfile(sys.modules[name].__spec__.origin), name

assert os.environ["HF_HOME"] == "hub" and "XDG_CACHE_HOME" not in os.environ and not early.disabled
assert os.path.exists("cache/post_install_check_3")

import torch
from scipy.special import softmax
assert abs(softmax([0.0, 0.0])[0] - 0.5) < 1e-9
compiled = torch.compile(torch.nn.Linear(2, 2), backend="eager")
assert compiled(torch.zeros(1, 2)).shape == (1, 2)

import nltk
nltk.data.path[:] = []
try:
    import textattack.augmentation
except LookupError as error:
    assert "stopwords" in str(error)
else:
    raise AssertionError("textattack imports without stop words: its __init__ need not be passed over any more")
assert "intentional_homoglyphs.txt" not in {f for _, _, files in os.walk(package.__path__[0]) for f in files}
"""


def test_textattack_comes_with_the_real_packages_and_no_download(tmp_path):
    if importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "XDG_CACHE_HOME"}
    environment |= {"TA_CACHE_DIR": "cache", "HF_HOME": "hub"}
    done = subprocess.run(
        [sys.executable, "-c", ATTACKS], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Downloading" not in done.stderr and "Error loading" not in done.stderr


def test_a_textattack_that_is_there_already_is_kept(monkeypatch):
    pytest.importorskip("transformers")
    from winnow.text import compat

    there = object()
    monkeypatch.setitem(sys.modules, "textattack", there)
    assert compat.textattack.__wrapped__() is there


def test_advertorch_still_imports_what_torch_no_longer_has():
    spec = importlib.util.find_spec("advertorch")
    if spec is None:
        pytest.skip("advertorch is not installed")
    code = "import sys, torch.autograd; assert not hasattr(sys.modules['torch.autograd.gradcheck'], 'zero_gradients')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert vision_compat.advertorch_attacks().LinfPGDAttack
