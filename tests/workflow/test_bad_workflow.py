"""Bad input to the whole workflow: refused before any job; names are never commands."""

from __future__ import annotations

import pytest
import torch

from .conftest import Workflow, put


def test_mistakes_in_the_configuration_end_before_any_job(tmp_path, tiny_config):
    done = Workflow(tmp_path, put(tiny_config, "double_win.seds", [1])).snakemake("--cores", "1")
    assert (
        done.returncode == 1
        and "config.double_win.seds: unknown key; did you mean 'seeds'?" in done.stdout + done.stderr
    )
    assert "Traceback" not in done.stdout + done.stderr and not (tmp_path / "results").exists()


@pytest.mark.slow
def test_names_never_reach_a_shell_as_commands(tmp_path, tiny_config):
    """Folders and files named by the user hold spaces, quotes and commands: they are found under these very names."""
    from winnow.config.parts import Model
    from winnow.vision.models import build

    folder = tmp_path / "a 'folder' $(touch evil)"
    file = folder / 'w "eights" $(touch evil); touch evil & `touch evil`.pth'
    folder.mkdir()
    torch.save(build(Model(arch="resnet8", width=4), 4).state_dict(), file)
    config = put(tiny_config, "double_win.pretrainings.2.weights.file", file.name)
    config |= {"scratch": "s $(touch evil)", "store": "t; touch evil", "data_root": "d' \"$(touch evil)"}
    target = "results/double_win/tiny/imported/s0/dense.safetensors"
    Workflow(folder, config).run(target)
    assert (folder / target).is_file() and not list(tmp_path.rglob("evil"))
