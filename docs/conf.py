"""The site of these pages, by Sphinx: `make docs`. Its sources are the Markdown files themselves, those of the root
folder too.
"""

from __future__ import annotations

project = "winnow"
copyright = "the winnow developers"
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/*.md", "docs/results/*.md", "results/README.md"]
exclude_patterns = [".*", "build", "src", "tests", "results/*/**", "determinism", "data", "config", "slurm", "profiles"]
myst_heading_anchors = 4
myst_links_external_new_tab = True
highlight_language = "none"
html_theme = "furo"
html_static_path, html_css_files = ["static"], ["site.css"]
html_title = "winnow"
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
linkcheck_timeout = 10
