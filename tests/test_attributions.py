"""No text of this repository says more of a paper than is known: what is recalled says so in its sentence."""

import ast
import io
import json
import re
import tokenize
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What only a reader of a paper could say; neither paper's text was at hand.
UNREAD = re.compile(
    r"JLML, section|\bsection [34]\b|papers? (does|do|did) not (say|print|state)|the paper's λ\b"
    r"|papers? chose|defaults are the paper|papers' (inputs|schedules|settings)|Sets and order are",
    re.IGNORECASE,
)
# "paper" as a profile, a mode of balancing and a size, and what a sentence says of a table as a whole.
OTHER_MEANING = re.compile(
    r"[`\"*]+paper\b|\b(full|quick)(,| or) paper|paper.sized|\bprofile paper|papers?'s? (tables|claims?)"
)
OF_A_PAPER = re.compile(
    r"\bpapers?\b|\bauthors\b|\bJLML('s (tables?|did)| rows| was| did| took| used)|Zheng et al"
)
KNOWN = (
    r"\bread\b|(released|authors'|authors' second|official) code|\bslides\b|\bsurvey\b|\bcounted\b|#Sources"
)
RECALLED = (
    r"\brecall|\bour (choice|reading)\b|\bwe assume\b|\bnot known\b|\bunknown\b|\breconstruction\b"
    r"|\bhow\b.*\bis known\b|\bwe had no\b"
)
# A constant, as texts name it, and how a sentence that attributes it to a paper must say that it is known.
CONSTANTS = {
    r"λ(?! in \(1)|cross-validation|strength of (selective|the spars)": RECALLED,
    r"\b50,?000\b|\biterations\b|\b224\b|\blayer table\b|\bunit length\b|trapezoid": RECALLED,
    r"\bbatch norm\b|\bweight decay\b|(mean or|maximum).*multi-query|\b(trials|galleries)\b": RECALLED,
    r"trained on CUHK03|start from .*(CUHK03|those two)": RECALLED,
    r"ImageNet|\bpre-train": f"{KNOWN}|{RECALLED}",
    r"\bmargin\b|\bdropout\b|\b[αγδ]\b|focal|\brates\b|\bepochs\b|\berasing\b": f"{KNOWN}|{RECALLED}",
}


def python_texts(code):
    """Comments (those of neighbouring lines as one) and texts of Python code."""
    comments = [t for t in tokenize.generate_tokens(io.StringIO(code).readline) if t.type == tokenize.COMMENT]
    block: list[str] = []
    for comment, after in zip_longest(comments, comments[1:]):
        block.append(comment.string.strip("#: "))
        if after is None or after.start[0] > comment.start[0] + 1:
            yield " ".join(block)
            block = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def texts(path):
    """The texts of a file."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_texts(content)
    elif path.suffix == ".ipynb":
        for cell in json.loads(content)["cells"]:
            source = "".join(cell["source"])
            yield from [source] if cell["cell_type"] == "markdown" else python_texts(source)
    elif path.suffix == ".csv":
        yield from content.splitlines()
    else:
        yield content


def sentences(text):
    """The sentences of a text; an entry of a docstring or a list is not joined to the one before."""
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:- |\w[\w, ]*: |\|))", text):
        yield from re.split(r"(?<=[.?!])\s+(?=[A-Z`\"*])", " ".join(block.split()))


def wrong_sentences(text):
    """The sentences that say of a paper what nobody here has read, without saying how it is known."""
    for sentence in sentences(text):
        attributed = OTHER_MEANING.sub("", sentence)
        if UNREAD.search(sentence) or (
            OF_A_PAPER.search(attributed)
            and any(
                re.search(constant, attributed) and not re.search(words, sentence, re.IGNORECASE)
                for constant, words in CONSTANTS.items()
            )
        ):
            yield sentence


FILES = [
    *(ROOT / "reidlib").rglob("*.py"),
    *(ROOT / "notebooks").glob("*.ipynb"),
    *(path for path in (ROOT / "reidlib" / "analysis").rglob("*.csv") if path.stem != "constants"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "notebooks/README.md")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_attributed_to_a_paper_says_how_it_is_known(path):
    assert not [sentence for text in texts(path) for sentence in wrong_sentences(text)]


@pytest.mark.parametrize(
    "sentence",
    [
        "Source: JLML, section 3, λ_g = λ_l = 5e-4.",
        "The JLML network and its objective; the defaults are the paper's.",
        "JLML, section 4: 50,000 iterations of 32 images, rate 0.01.",
        "The paper chose λ = 0.0005 by cross-validation.",
        "The dotted line is the paper's λ.",
        "λ = 0.0005, recalled as the value of the paper, and the paper's λ",
        "JLML's table computes mAP by the official trapezoid rule.",
        "Its authors' network was pre-trained on ImageNet.",
        "The printed JLML rows come from networks trained on CUHK03 and Market-1501 before.",
        "Trainings on the small sets start from one on those two together, as JLML's did.",
        "The paper does not say which of the two it used.",
        "The margin of the triplet loss is 1.4 in the paper.",
    ],
)
def test_sentences_that_were_wrong_are_refused(sentence):
    assert [*wrong_sentences(f"First. {sentence} Last.")]


@pytest.mark.parametrize(
    "sentence",
    [
        "λ = 0.0005, recalled as the paper's.",
        "The margin is 1.4 in the released code of Zheng et al.",
        "That JLML's table computes mAP by the official trapezoid rule is recalled, not confirmed.",
        "full, paper: a GPU. The unit length of weights.",
    ],
)
def test_sentences_that_say_how_it_is_known_are_allowed(sentence):
    assert not [*wrong_sentences(sentence)]
