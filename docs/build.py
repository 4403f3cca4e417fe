"""Writes the generated pages of this folder from the code: `make docs`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from onestage.methods import METHODS
from onestage.objective import COLUMNS, Method, term_rows, verified_by
from onestage.recipes import PAPER, names, names_of_methods, recipe
from onestage.recipes.chains import chain
from onestage.recipes.chains import names as chain_names
from onestage.recipes.describe import first_line, length, needs
from onestage.teachers import COLUMNS as TEACHER_COLUMNS
from onestage.teachers import REFERENCES, TABLE

GENERATED = "<!-- Made by docs/build.py (make docs). Mend the code, not the page. -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def linked(text: str) -> str:
    """Names of arXiv papers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[\g<0>](https://arxiv.org/abs/\1)", text)


def methods_page() -> str:
    """The table of methods: a line for each term, in the columns of M3I's table, with the citation."""
    made = names_of_methods()
    rows = [
        [*row, linked(method.cite), ", ".join(f"`{name}`" for name in made[method.name]), _tests(method)]
        for method in METHODS.values()
        for row in term_rows(method)
    ]
    return f"""{GENERATED}
# Methods

Every method is a row of one table: a term says that input *x* explains target *y* (M3I, eq. 1 and eq. 4). *z_y* is
what has to be explained, *z_x* what it is explained from, *P_hat* the likelihood, and the regulariser is what keeps
all answers from becoming one. The tests that verify a row compare its parts with slow formulas or other libraries;
`pytest -k NAME` runs one.
The same table in a terminal: `onestage ls methods`. The declarations: [src/onestage/methods](../src/onestage/methods).

{table([*COLUMNS, "source", "recipe", "verified by"], rows)}
"""


def _tests(method: Method) -> str:
    return ", ".join(f"`{name}`" for name in verified_by(method))


def about(name: str) -> str:
    """What a recipe is, in one line."""
    if name in PAPER:
        return linked(first_line(PAPER[name]).rstrip("."))
    return f"the row {name.removesuffix('_tiny')} at a size that learns on two cores, on built-in pictures"


def recipes_page() -> str:
    """Every recipe that has a name."""
    made = [(name, recipe(name)) for name in names()]
    rows = [[f"`{name}`", about(name), f"{row.batch}", length(row), ", ".join(needs(row)) or "-"] for name, row in made]
    return f"""{GENERATED}
# Recipes

A recipe is a method plus sizes, data, optimiser and numbers. `onestage show NAME` prints all of it, `onestage cp NAME
my.yaml` writes it to a file to edit. A `NAME_tiny` is derived from the row itself and has a shorter form,
`NAME_tiny:smoke`. A paper-size recipe is a function whose docstring is a lab note (paper, command, cost, expected
score, what is assumed): [src/onestage/recipes/paper.py](../src/onestage/recipes/paper.py).

{table(("name", "what it is", "batch", "length", "needs"), rows)}
"""


def chains_page() -> str:
    """Every chain that has a name."""
    made = [(name, chain(name)) for name in chain_names()]
    rows = [[f"`{name}`", " -> ".join(stage.name for stage in one.stages), linked(one.cite)] for name, one in made]
    return f"""{GENERATED}
# Chains

A chain is recipes one after another (`onestage pretrain CHAIN --data SRC --out DIR`): a stage starts from the weights
of the one before, or has it as its frozen teacher. Probes after each stage show what it adds and what it forgets;
`onestage report DIR RUN` draws them beside a single stage, and `onestage bench table --rows m3i,CHAIN --seeds 0,1,2`
compares both at the same number of samples. A chain of one's own is a YAML file: `onestage cp CHAIN my.yaml`.

{table(("name", "stages", "source"), rows)}
"""


SERVING_COLUMNS = ("`serving.mode`", "what happens", "what it costs")
SERVING = (
    ("`{kind: live}`", "the teacher sees every view", "all of its time"),
    (
        "`{kind: replay, epochs: 4, gigabytes: 10}`",
        "the crop that the teacher sees of a sample, and its answer, are kept for four passes over the data; masks, "
        "texts and all other views are drawn afresh",
        "a quarter of its time; one answer for each picture on a local disk, inside the budget, removed at the end",
    ),
    (
        "`{kind: store, folder: DIR}`",
        "one of K stored views of each picture is drawn in each pass; no teacher is asked",
        "`onestage teach RECIPE --data SRC --views K --out DIR` once, and its disk",
    ),
)


def teachers_page() -> str:
    """What a frozen model may be, and what each family gives."""
    forms = [(f"`{form}`", meaning) for form, meaning in REFERENCES]
    return f"""{GENERATED}
# Teachers

A teacher is a frozen model by reference (`--teacher REF`); the same words name a model for `onestage evaluate`, and
what a run starts from (`--init REF`, or `--init image=REF,text=REF`): runs, UTA's released files, ViTs, EVA-02s and
Swins of timm, CLIP of open_clip and transformers, EVA-CLIP; texts where their tower is CLIP's. In a terminal:
`onestage ls teachers`. What transformers has needs `pip install 'onestage[hf]'`; so do the tokenizers of
open_clip's SigLIP models.

{table(("reference", "what it is"), forms)}

Every teacher brings its own size, interpolation and pixel statistics, and applies them to images as they are: a student
may see the same images in another way. How a picture is cut to a square is the view's business, not the teacher's.

## Rows

{table(TEACHER_COLUMNS, TABLE)}

Raw rows come after the final norm, and the pooled row beside them is the class token, the mean or what the attention
pool gives. Joint rows are in the space of the texts: each is what the model's own head says of that row alone. With a
class token that is the projection of every row. With an attention pool the row is its own only key and value, so that
equal rows have the pooled row's place. With a mean it is exact where only an affine map follows. Where it is not exact
the teacher says why, and gives raw rows (`space: raw`).

## Weights

Files are safetensors. A pickle can run code when it is opened, so none is; the error shows the line that converts one.
What a file lacks is named. Two things are not in a file of open_clip's, and wrong ones load without a word:

- Its GELU. OpenAI's weights, and those trained from them, want a name that ends in `-quickgelu`. Where the tag, the
  file or its folder is named by such weights, the other name is refused and the right one shown.
- Its pixel statistics. They are those on which all published weights of the architecture agree, or those of the tag in
  the file's name. Where they disagree (ViT-L-14, ViT-H-14) and no tag is in the name, the file is refused.

## DALL-E's tokenizer

BEiT, PeCo and CAE were published with the codes of DALL-E's discrete VAE (`--teacher dalle:FILE`). What is released
(`encoder.pkl`, from the repository openai/DALL-E) is a pickle of a whole module, so it is converted once, in an
environment with `dall_e` installed that you trust it in:

```
python -c "import torch, dall_e; from safetensors.torch import save_file; \\
m = dall_e.load_model('encoder.pkl', torch.device('cpu')); \\
save_file({{k: v.float().contiguous() for k, v in m.state_dict().items()}}, 'dalle.safetensors')"
```

The names of `FlavaImageCodebook`, which is the same network in transformers, are read as well. BEiT resizes a
picture to the tokenizer's 112 pixels by Pillow's Lanczos filter; here the view is brought to them by torch's bicubic
one with antialiasing, so that a few cells near a border between two codes may have the other one.

The licence is what the model card beside the weights, or timm's table, states; otherwise the page where it stands. A
run keeps it in `bundle/bundle.yaml`: what learns from a teacher may be bound by it.

## Live, replayed or from a store

A frozen teacher is most of what a student costs that learns from it. `serving` in a recipe says how it answers:

{table(SERVING_COLUMNS, SERVING)}

`onestage plan RECIPE --data SRC --teacher REF` prints the time, the bytes and the break-even of each. Answers are
kept as int8 with a scale for each row and its four largest values apart (`codec: fp16` keeps twice the bytes), also
in the step that they are made in: what a student learns from depends on its views alone. `serving.precision`,
`serving.micro_batch` and `serving.compile` are the teacher's own. With `serving.masks: 2` two samples of a batch are
one view with other hidden cells, for which the teacher is asked once; views of a batch are fewer then, so it is no
default.

A store is found by the checksums of pictures: their names, places and order do not matter, and a part of the data
will do. It holds how every view was cut, never a seed. What was made by another teacher, of other views, by another
decoder, or of a picture that has changed, is refused with the reason. A writer that is killed loses the shard it was
at; type the same command again. Processes that `torchrun` starts share the work.

## A student stands alone

A run that learns in the joint space copies its teacher's text tower, tokenizer and scale into `bundle/` when it
starts, and needs the teacher no more: CLIP's text tower as one file, every other one in its own library's files, which
that library opens again. Where the teacher's tokenizer cannot be read, the run says at its start that it will have no
texts, and why: put the tokenizer's files beside the teacher's weights and start again, or compare texts with the
teacher itself (`onestage evaluate zero-shot REF`).
"""


def pages() -> dict[str, str]:
    """File name to text."""
    return {
        "methods.md": methods_page(),
        "recipes.md": recipes_page(),
        "chains.md": chains_page(),
        "teachers.md": teachers_page(),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
        print(f"docs/{name}")
