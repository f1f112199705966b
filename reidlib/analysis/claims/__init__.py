"""The papers' claims, their verdicts, and whether two benchmarks agree.

``statements`` claims and their tests · ``rule`` which outcome follows from intervals · ``power`` how often an
interval would be above zero · ``planning`` the seeds that a claim needs · ``verdicts`` a claim's
verdict, the ledger and its figure · ``digests`` which runs are older than the test that judges them ·
``seed_subsets`` verdicts from fewer seeds · ``agreement`` differences and scores on two benchmarks side by
side
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
from reidlib.analysis.claims.digests import digest, digests_by_row, older_seeds, older_than_tests
from reidlib.analysis.claims.rule import (
    FAILS,
    HOLDS,
    NO_DIFFERENCE,
    NO_EXPERIMENT,
    SIGNS,
    SMALLEST_DIFFERENCE,
    UNDECIDED,
    outcome_of,
)
from reidlib.analysis.claims.seed_subsets import compare_with_all, seed_lesson, verdicts_by_seeds
from reidlib.analysis.claims.sequential import decide_sequentially, gather_until_decided, looks_text
from reidlib.analysis.claims.statements import CLAIMS, Claim, Contrast
from reidlib.analysis.claims.verdicts import (
    Verdict,
    claim_pairs,
    claim_table,
    claims_of_notebook,
    decide,
    forest,
    ledger,
    required_experiments,
    required_metrics,
    result_fields,
    verdict_sentence,
)

__all__ = [
    "CLAIMS",
    "FAILS",
    "HOLDS",
    "NO_DIFFERENCE",
    "NO_EXPERIMENT",
    "SIGNS",
    "SMALLEST_DIFFERENCE",
    "UNDECIDED",
    "Agreement",
    "Claim",
    "Contrast",
    "Verdict",
    "agreement",
    "agreement_table",
    "claim_pairs",
    "claim_table",
    "claims_of_notebook",
    "compare_with_all",
    "decide",
    "decide_sequentially",
    "digest",
    "digests_by_row",
    "forest",
    "gather_until_decided",
    "ledger",
    "looks_text",
    "older_seeds",
    "older_than_tests",
    "outcome_of",
    "photographs",
    "rate_agreement",
    "required_experiments",
    "required_metrics",
    "result_fields",
    "score_text",
    "scores_beside",
    "seed_lesson",
    "verdict_sentence",
    "verdicts_by_seeds",
]
