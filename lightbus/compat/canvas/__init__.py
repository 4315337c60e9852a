"""Canvas: chains, groups, chords and maps of tasks, with Celery's names, operators and JSON form.

signature  one task with arguments and options                       (signature.py)
compose    chains, groups, chords, maps, and the rules of `|`        (compose.py)
launch     ids, first messages, running it in the caller             (launch.py)
stamping   headers of the user's own on all parts                  (stamping.py)
chords     counting the header's ends, sending or failing the body   (chords.py)
builtin    the `celery.*` tasks that stand for a part of a canvas    (builtin.py)
"""

from .compose import Chain, Chord, Chunks, Group, Map, StarMap, chain, maybe_signature, signature
from .signature import Signature, as_list
from .stamping import StampingVisitor

group = Group
chord = Chord
chunks = Chunks
xmap = Map
xstarmap = StarMap

__all__ = [
    "Chain", "Chord", "Chunks", "Group", "Map", "Signature", "StampingVisitor", "StarMap", "as_list",
    "chain", "chord", "chunks", "group", "maybe_signature", "signature", "xmap", "xstarmap",
]  # fmt: skip
