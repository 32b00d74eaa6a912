"""Reports of results: tables of rows in, Markdown, CSV, HTML and figures out. Writes nothing.

```python
import reports
files = reports.render([reports.Run(row, examples), ...], failures=[], command="compress report runs/")
files["report.md"], files["results.csv"], files["index.html"], files["figures/image_auroc.png"]
```
"""

from reports.cases import cases
from reports.errors import ReportError
from reports.frame import frame
from reports.heatmap import outlined, overlay
from reports.render import FORMATS, USUAL, check_formats, render
from reports.runs import Examples, Run
from reports.scores import Scores, small_maps
from reports.summary import Summary, summarize
from reports.terminal import terminal_columns, terminal_table
from reports.text_table import TextTable
from reports.words import summary_text

__all__ = [
    "FORMATS",
    "USUAL",
    "Examples",
    "ReportError",
    "Run",
    "Scores",
    "Summary",
    "TextTable",
    "cases",
    "check_formats",
    "frame",
    "outlined",
    "overlay",
    "render",
    "small_maps",
    "summarize",
    "summary_text",
    "terminal_columns",
    "terminal_table",
]
