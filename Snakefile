"""winnow: lottery tickets found, transferred and attacked.

snakemake --cores 2                                        all tables and figures of config/config.yaml
snakemake --cores 2 results/tables/double_win.csv          one table
snakemake --profile slurm results/tables/double_win.csv    the same on a cluster
snakemake ... --configfile config/paper/double_win.yaml    the paper's settings in place of the default's
"""

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/double_win.smk"
include: "workflow/rules/double_win_transfer.smk"
include: "workflow/rules/robust_bert.smk"
include: "workflow/rules/rare_gems.smk"
include: "workflow/rules/rare_gems_baselines.smk"
include: "workflow/rules/tables.smk"


rule all:
    default_target: True
    input:
        grid.targets(DW),
        rb_grid.targets(RB),
        gem_grid.targets(RG),


rule double_win:
    input:
        grid.targets(DW),


rule robust_bert:
    input:
        rb_grid.targets(RB),


rule rare_gems:
    input:
        gem_grid.targets(RG),
