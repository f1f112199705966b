"""The papers' claims, their verdicts, and whether two benchmarks agree.

``statements`` claims and their tests · ``verdicts`` a claim's verdict, the ledger and its figure ·
``agreement`` differences and scores on two benchmarks side by side
"""

from reidlib.analysis.claims.agreement import (
    Agreement,
    agreement,
    agreement_table,
    photographs,
    rate_agreement,
    score_text,
    scores_beside,
)
from reidlib.analysis.claims.statements import CLAIMS, Claim, Contrast
from reidlib.analysis.claims.verdicts import (
    FAILS,
    HOLDS,
    NO_EXPERIMENT,
    SIGNS,
    SMALLEST_GAIN,
    UNDECIDED,
    Verdict,
    claim_table,
    claims_of_notebook,
    decide,
    forest,
    ledger,
    required_experiments,
    result_fields,
    verdict_sentence,
)

__all__ = [
    "CLAIMS",
    "FAILS",
    "HOLDS",
    "NO_EXPERIMENT",
    "SIGNS",
    "SMALLEST_GAIN",
    "UNDECIDED",
    "Agreement",
    "Claim",
    "Contrast",
    "Verdict",
    "agreement",
    "agreement_table",
    "claim_table",
    "claims_of_notebook",
    "decide",
    "forest",
    "ledger",
    "photographs",
    "rate_agreement",
    "required_experiments",
    "result_fields",
    "score_text",
    "scores_beside",
    "verdict_sentence",
]
