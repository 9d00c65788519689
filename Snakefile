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


if CONFIG.container:

    container: CONFIG.container


for name in CONFIG.sections():

    include: f"workflow/rules/{name}.smk"


include: "workflow/rules/tables.smk"
include: "workflow/rules/beyond.smk"


ADAPTER.pack(workflow)


rule all:
    default_target: True
    input:
        targets(CONFIG),


for name, section in CONFIG.sections().items():

    rule:
        name:
            name
        input:
            pipelines.grid(name).targets(section) + beyond.targets(name, section),
