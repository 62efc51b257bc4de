"""Who descends from synthetic text, given who names whom and what the named are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def descendants(names: pa.Table, named: pa.Table) -> pa.Table:
    """Documents with a synthetic ancestor, however far back: `document`, and the `ancestor` that it names itself.

    Args:
        names: `document`, `ancestor`: a row per name that a document gives.
        named: `document`, `ancestor`, `synthetic`: documents that go by such a name, and whether each is synthetic.
    """
    links = names.join(named.rename_columns(["parent", "ancestor", "synthetic"]), "ancestor", join_type="inner")
    child, parent = links["document"].to_numpy(), links["parent"].to_numpy()
    other = child != parent  # a document that names itself has said nothing
    links, child, parent = links.filter(pa.array(other)), child[other], parent[other]
    tainted = links["synthetic"].to_numpy()
    while True:
        # A parent counts once it is known to descend from synthetic text itself.
        fresh = ~tainted & np.isin(parent, child[tainted])
        if not fresh.any():
            break
        tainted = tainted | fresh
    found = links.select(["document", "ancestor"]).filter(pa.array(tainted))
    return found.group_by("document").aggregate([("ancestor", "min")]).rename_columns(["document", "ancestor"])


def unresolved(names: pa.Table, named: pa.Table) -> int:
    """Names of ancestors that no document goes by."""
    wanted = names["ancestor"].unique()
    return len(wanted) - int(pc.sum(pc.is_in(wanted, named["ancestor"].combine_chunks())).as_py() or 0)
