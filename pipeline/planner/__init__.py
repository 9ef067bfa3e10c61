"""The decisions of a backup, as a pure function of what was found and what is known.

In: an entry, the path's record, where its content is live already, whether its stored file is intact.
Out: a `Plan`: the action, a reason that people can read, the steps, and the path's new record.
Guarantees: no I/O, clock or randomness, so the same facts always give the same plan (promise 4); an old
content is archived before its name is given away (promise 1); a new name is made before an old one goes
(promise 2). Nothing here fails: odd facts have a case of their own.
"""

from pipeline.planner.afterwards import (
    plan_clear_folder,
    plan_delete,
    plan_drop_deleted,
    plan_forget,
    plan_make_way,
    plan_names,
    plan_new_original,
    plan_promote,
    plan_retention,
)
from pipeline.planner.entries import plan_entry
from pipeline.planner.facts import Context, Facts, is_stored, metadata_difference, same_content, stored_at
from pipeline.planner.folders import plan_open_folder

__all__ = [
    "Context",
    "Facts",
    "is_stored",
    "metadata_difference",
    "plan_clear_folder",
    "plan_delete",
    "plan_drop_deleted",
    "plan_entry",
    "plan_forget",
    "plan_make_way",
    "plan_names",
    "plan_new_original",
    "plan_open_folder",
    "plan_promote",
    "plan_retention",
    "same_content",
    "stored_at",
]
