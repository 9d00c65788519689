"""The vocabulary of the released rare-gems code beyond what winnow translates: what has no effect here, and what winnow
refuses.

Names and defaults are those of the released option parser; `released.py` holds the options that decide an experiment.
"""

from __future__ import annotations

from typing import Any

# nothing of the released code reads these where a search, a baseline or IMP runs
NEVER_READ = {
    "compare-rounding", "compare_rounding", "iter_ep", "transfer_learning", "weight_decay", "lr_adjust", "milestones",
    "gamma", "num_epochs", "hc_warmup", "hc_period", "iter_start", "num_round", "num_trial", "num_test",
    "plot_hc_convergence", "save_model", "save_every", "ckpt_interval", "evaluate_only", "warmup_length",
    "dense_training",
    "hidden_size", "submask_size", "metric", "pruning_strategy", "how_to_prune", "start_from_nothing", "flips", "td",
    "temp",
    "max_iter", "loss", "load_ckpt", "save_plot_data", "log_interval", "shift", "score_init_constant", "no_cuda",
    "interpolate", "how_to_connect", "mode_connect", "mode_connect_filename", "imp_resume_epoch", "imp_resume_iter",
    "imp_rewind_model", "num_step_finetune", "sanity_folder",
}  # fmt: skip

# read, but not what decides a result here: where the run lies, what it writes, on what it runs
ELSEWHERE = {
    "config": "", "subfolder": "", "log_dir": "", "results_filename": "", "run_idx": "", "print_freq": "",
    "checkpoint_at_prune": "a ticket of every hard prune is always written",
    "ckpt_at_fixed_epochs": "",
    "data": "see data_root", "data_dir": "see data_root",
    "seed": "see rare_gems.seeds", "trial_num": "see rare_gems.seeds", "fixed_init": "see rare_gems.seeds",
    "seed_fixed_init": "see rare_gems.seeds",
    "workers": "see workers", "num_workers": "see workers", "gpu": "see device",
    "multiprocessing_distributed": "see gpus",
    "world_size": "see gpus", "rank": "see gpus", "dist_backend": "see gpus",
    "mixed_precision": "see rare_gems.compute.precision",
    "skip_fine_tune": "accuracy before fine-tuning is in the table beside that after it",
    "use_full_data": "images are always held out for selection; see data.val_images",
}  # fmt: skip

# option -> (values under which it does nothing, why winnow does not do what it does otherwise)
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "evaluate": ((False,), "it only evaluates a finished file; bring the file in with winnow.stages.import_ticket"),
    "only_sanity": ((False,),
     "it only checks finished runs, and ends in an error as released; set sanity on the branch that searches"),
    "pretrained": ((None,),
     "it starts from a file; bring it in with winnow.stages.import_weights and name it as `weights` of a branch"),
    "pretrained2": ((None,), "it connects two finished networks; no pipeline does that"),
    "resume": ((None,), "it continues a run of the released program; winnow continues its own"),
    "start_epoch": ((None, 0), "it continues a run of the released program; winnow continues its own"),
    "imp_resume_round": ((-1,), "it continues a run of the released program; winnow continues its own"),
    "bottom_k_on_forward": ((False,),
     "masks that drop scores by rank within each forward pass are not built; hc_iter prunes them instead"),
    "drop_bottom_half_weights": ((False,),
     "starting from half of the weights is not built; give a pruned file as `weights` of a branch"),
    "first_layer_dense": ((False,), "a dense first layer is not built"),
    "last_layer_dense": ((False,), "a dense last layer is not built"),
    "first_layer_type": ((None,), "a first layer of another kind is not built"),
    "no_bn_decay": ((False,), "weight decay acts on all that trains"),
    "trainer": (("default",), "there is one way to train"),
    "width_mult": ((1, 1.0), "networks have their own width; Conv4 reads width"),
    "lam_finetune_loss": ((-1, -1.0), "a loss of fine-tuning within the search is not built"),
    "alpha": ((1, 1.0), "the two terms of L1_L2 have one factor, lmbda"),
    "alpha_prime": ((1, 1.0), "the two terms of L1_L2 have one factor, lmbda"),
    "differentiate_clamp": ((False,), "the clamp is a projection after each step"),
    "project_freq": ((1,), "scores are projected after each step"),
    "noise_ratio": ((0, 0.0), "noise on the rounded mask is not built"),
    "bias": ((False,), "the released networks have no biases here"),
    "mode": (("fan_in",), "initialisations scale by the fan in"),
    "nonlinearity": (("relu",), "initialisations take the gain of ReLU"),
    "shuffle": ((False,), "set sanity on the branch instead"),
    "reinit": ((False,), "set sanity on the branch instead"),
    "chg_mask": ((False,), "set sanity on the branch instead"),
    "chg_weight": ((False,), "set sanity on the branch instead"),
    "invert_sanity_check": ((False,), "set sanity on the branch that searches instead"),
}  # fmt: skip

NETWORKS = {  # what cannot be built, and why
    **dict.fromkeys(
        ("TwoLayerFC", "BaselineTwoLayerFC", "LeNet5", "Net"), "a network of the greedy program, which is not built"
    ),
    **dict.fromkeys(
        ("TinyResNet18Normal", "resnet32Normal"), "released files name it, and the released code defines it nowhere"
    ),
}
DATASETS = {
    "MNIST": "a data set of the greedy program, which is not built",
    "Wiki": "the LSTM of the released code was never finished; take its transformer (arch: transformer)",
}
