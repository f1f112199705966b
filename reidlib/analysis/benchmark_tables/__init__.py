"""The papers' tables of whole benchmarks, and the folders of these benchmarks that the user gives.

``printed`` numbers and tables, and how every constant is known · ``folders`` that hold the tables' benchmarks
"""

from reidlib.analysis.benchmark_tables.folders import (
    add_data_root,
    check_folders,
    choose_protocol_benchmark,
    folder_deviations,
    folder_of,
    folder_states,
    folders_of,
    given_as,
    guidance,
    load_trial,
    overview,
    pretraining_benchmark,
    pretraining_stages,
    trials_of,
    unreadable_benchmarks,
)
from reidlib.analysis.benchmark_tables.printed import (
    TABLES,
    Table,
    constant_status,
    constants_table,
    lines_of,
    methods_table,
    notes,
    published,
    published_row,
    pyramid_results,
    specifications,
)

__all__ = [
    "TABLES",
    "Table",
    "add_data_root",
    "check_folders",
    "choose_protocol_benchmark",
    "constant_status",
    "constants_table",
    "folder_deviations",
    "folder_of",
    "folder_states",
    "folders_of",
    "given_as",
    "guidance",
    "lines_of",
    "load_trial",
    "methods_table",
    "notes",
    "overview",
    "pretraining_benchmark",
    "pretraining_stages",
    "published",
    "published_row",
    "pyramid_results",
    "specifications",
    "trials_of",
    "unreadable_benchmarks",
]
