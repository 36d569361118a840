"""A program as a picture: calls are boxes, values the lines between them.

The picture reads like a page in columns, from top to bottom and then from left to right, in the order of the program.
Within a column a call stands below those that it reads; a line to a box that is not the next runs along the column's
right edge, and one to another column lies behind the boxes. What belongs to the program's state (parameters, buffers)
is named in the boxes that read it.
"""

from __future__ import annotations

import html
import math
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..io.atomic import write_atomically
from .explain import call_text, costs, parts_of, place_text, scaled, type_text
from .program import Action, Call, Program, Unless, Value

__all__ = ["draw", "layout"]

_WIDTH = 236  # of a box
_PAD, _GAP, _BETWEEN = 9, 26, 64  # within a box, between boxes, between columns
_LINE = {"name": 17, "text": 13, "state": 13, "label": 13}  # heights of lines of text
_SIZE = {"name": 13.0, "text": 10.0, "state": 10.0, "label": 10.0}
_ADVANCE = 0.605  # of a monospaced letter, in its size
_ABREAST = 3  # boxes side by side, at most
_TRACK = 7  # between lines along a column's edge
_HEAD = 74
_COLORS = {
    "argument": ("#f4f4f6", "#6b7280"), "forward": ("#e7f0fb", "#2f6db5"), "backward": ("#fdf0df", "#c66f12"),
    "optimizer": ("#e6f5e9", "#2f8a46"),
}  # fmt: skip


def draw(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a picture of the program to a file.

    Args:
        path: its name ends in ``.svg`` (a picture that any browser shows; details appear under the pointer) or in
            ``.dot`` (a graph for Graphviz).
    Raises: ValueError for any other ending.
    """
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in _WRITERS:
        raise ValueError(f"draw: {os.fspath(path)!r}: give the file a name that ends in .svg or .dot.")
    write_atomically(path, _WRITERS[ending](program).encode())


@dataclass(eq=False)
class Box:
    """A call, an argument or an action: lines of text as (kind, text), the labels of its values below, its place."""

    part: str
    lines: list[tuple[str, str]]
    labels: list[str] = field(default_factory=list)
    tip: str = ""
    dashed: bool = False
    layer: int = 0
    column: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> int:
        return 2 * _PAD + sum(_LINE[kind] for kind, _ in self.lines)

    @property
    def below(self) -> int:
        """The height of its labels."""
        return _LINE["label"] * len(self.labels) + (5 if self.labels else 0)


@dataclass(eq=False)
class Edge:
    """A value on its way from one box to another."""

    source: Box
    target: Box
    value: Value
    track: int = 0


@dataclass
class Layout:
    """Boxes with places, the edges between them, and the picture's size."""

    boxes: list[Box]
    edges: list[Edge]
    width: float = 0.0
    height: float = 0.0


# --- boxes and edges


def _graph(program: Program) -> Layout:
    returned = set(program.outputs)
    slow = set(map(id, getattr(program.linked, "python_calls", ())))
    maker: dict[Value, Box] = {}
    boxes: list[Box] = []
    edges: list[Edge] = []
    for v in program.arguments:
        box = maker[v] = Box("argument", [("name", _cut(v.name, "name"))], [type_text(v)], f"argument {v.name}")
        boxes.append(box)
    for step, part, flag in _flat(program.steps, parts_of(program)):
        if isinstance(step, Action):
            boxes.append(Box(part, [("name", "host")], tip=repr(step), dashed=True))
            continue
        box = _box(step, part, returned)
        box.dashed = id(step) in slow
        if flag is not None:
            box.lines.append(("state", _cut(f"unless {flag.name}", "state")))
        seen = set()
        for v in (*step.reads(), *(() if flag is None else (flag,))):
            source = maker.get(v)
            if source is not None and source is not box and v not in seen:
                seen.add(v)
                edges.append(Edge(source, box, v))
        for made in (*step.results, *step.writes):
            if made is not None:
                maker[made] = maker[made.root] = box
        boxes.append(box)
    return Layout(boxes, edges)


def _flat(
    steps: list[Call | Action], parts: list[str], flag: Value | None = None
) -> Iterator[tuple[Call | Action, str, Value | None]]:
    """Steps with their parts and the flag by which they are left out, those within an ``Unless`` in its place."""
    for step, part in zip(steps, parts, strict=True):
        if isinstance(step, Unless):
            yield from _flat(step.steps, [part] * len(step.steps), step.flag)
        else:
            yield step, part, flag


def _box(call: Call, part: str, returned: set[Value]) -> Box:
    cost, moved = costs(call)
    lines = [("name", _cut(call.op.name, "name"))]
    text = call_text(call)
    if getattr(call.op, "derived", False):
        formula = text[1:] if len(text) > 1 else [text[0].partition(": ")[2]]
        room = _letters("text")
        wrapped = [piece for line in formula for piece in textwrap.wrap(line.strip(), room) or [""]]
        lines += [("text", piece) for piece in wrapped[:4]]
        if len(wrapped) > 4:
            lines[-1] = ("text", _cut(wrapped[3] + " ...", "text"))
    state = [v.name for v in dict.fromkeys(call.reads()) if v.array is not None]
    if state:
        shown = state if len(state) < 4 else [state[0], f"... {len(state)}"]
        lines.append(("state", _cut(", ".join(shown), "state")))
    if call.writes:
        names = list(dict.fromkeys(v.name for v in call.writes))
        lines.append(
            ("state", _cut(f"writes {names[0]}" if len(names) == 1 else f"writes {len(names)} arrays", "state"))
        )
    labels = []
    for v in call.results:
        if v is not None:
            end = " returned" if v in returned else ""
            labels.append(_cut(f"{v.name} {type_text(v)}{end}", "label"))
    if len(labels) > 4:
        labels = [*labels[:3], f"and {len(labels) - 3} more"]
    tip = [*text, f"{scaled(cost, 'FLOP')}, {scaled(moved, 'B')} moved", place_text(call)]
    return Box(part, lines, labels, "\n".join(filter(None, tip)))


def _letters(kind: str) -> int:
    return int((_WIDTH - 2 * _PAD) / (_SIZE[kind] * _ADVANCE))


def _cut(text: str, kind: str) -> str:
    """The text, or as much of its end as fits: names tell most there."""
    most = _letters(kind)
    return text if len(text) <= most else f"...{text[3 - most :]}" if kind == "state" else f"{text[: most - 3]}..."


# --- places


def layout(program: Program) -> Layout:
    """Every box of the program with its place; the columns are as long as makes the picture about 1.6 times as wide as
    it is high."""
    made = _graph(program)
    lanes = _lanes(made)
    tallest = max((sum(map(_layer_height, lane)) for lane in lanes), default=0.0)
    tries = [min(tallest, 600.0 * 1.2**i) for i in range(24) if 500.0 * 1.2**i < tallest] or [tallest]
    sizes = []
    for tall in tries:
        _place(made, lanes, tall)
        sizes.append(abs(math.log(made.width / made.height / 1.6)))
    _place(made, lanes, tries[sizes.index(min(sizes))])
    return made


def _lanes(made: Layout) -> list[list[list[Box]]]:
    """For each part of the program its layers: a box's is after those of the boxes that it reads."""
    into: dict[Box, list[Box]] = {}
    for edge in made.edges:
        into.setdefault(edge.target, []).append(edge.source)
    lanes: list[list[list[Box]]] = []
    part = ""
    lane_of: dict[Box, int] = {}
    for box in made.boxes:
        kind = "forward" if box.part == "argument" else box.part
        if kind != part:
            lanes.append([])
            part = kind
        lane = lanes[-1]
        lane_of[box] = len(lanes)
        at = max((b.layer + 1 for b in into.get(box, ()) if lane_of.get(b) == len(lanes)), default=0)
        if not into.get(box) and box.part != "argument":
            at = max(0, len(lane) - 1)  # it reads state alone: it stands where it came
        while at < len(lane) and len(lane[at]) >= _ABREAST:
            at += 1
        while len(lane) <= at:
            lane.append([])
        box.layer = at
        lane[at].append(box)
    return lanes


def _place(made: Layout, lanes: list[list[list[Box]]], tall: float) -> None:
    """Give each box a place, in columns of about that height."""
    left = float(_BETWEEN)
    for lane in lanes:
        sizes = [_layer_height(layer) for layer in lane]
        each = sum(sizes) / max(1, math.ceil(sum(sizes) / tall - 0.15))
        columns: list[list[list[Box]]] = [[]]
        filled = 0.0
        for layer, size in zip(lane, sizes, strict=True):
            if columns[-1] and filled + size / 2 > each:
                columns.append([])
                filled = 0.0
            columns[-1].append(layer)
            filled += size
        for column in columns:
            left = _set(column, made.edges, left)
    made.width = max(left, 640.0)
    made.height = max((b.y + b.height + b.below for b in made.boxes), default=0) + _GAP


def _layer_height(layer: list[Box]) -> float:
    return max(b.height + b.below for b in layer) + _GAP


def _set(column: list[list[Box]], edges: list[Edge], left: float) -> float:
    """Give the boxes of a column their places; returns where the next column begins."""
    inside = {box: at for at, layer in enumerate(column) for box in layer}
    abreast = max(map(len, column))
    span = abreast * _WIDTH + (abreast - 1) * _GAP
    above: dict[Box, list[Box]] = {}
    for edge in edges:
        if edge.source in inside and edge.target in inside:
            above.setdefault(edge.target, []).append(edge.source)
    top = float(_HEAD)
    for layer in column:
        layer.sort(key=lambda b: sum(a.x for a in above.get(b, ())) / max(1, len(above.get(b, ()))))
        wide = len(layer) * _WIDTH + (len(layer) - 1) * _GAP
        for i, box in enumerate(layer):
            box.x, box.y = left + (span - wide) / 2 + i * (_WIDTH + _GAP), top
        top += _layer_height(layer)
    # lines that pass other boxes run along the right edge, each in a track of its own while it runs
    tracks: list[float] = []
    within = [e for e in edges if e.source in inside and e.target in inside]
    long = [e for e in within if inside[e.target] != inside[e.source] + 1]
    for edge in within:
        edge.track = 0
    for edge in sorted(long, key=lambda e: e.source.y):
        free = next((i for i, end in enumerate(tracks) if end < edge.source.y), len(tracks))
        tracks[free : free + 1] = [edge.target.y]
        edge.track = free + 1
    for box in inside:
        box.column = round(left + span)
    return left + span + _TRACK * (len(tracks) + 1) + _BETWEEN


# --- writing

_STYLE = """
text { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1f2933; }
.name { font-size: 13px; font-weight: bold; } .text { font-size: 10px; } .state { font-size: 10px; fill: #5b6673; }
.label { font-size: 10px; fill: #39434e; paint-order: stroke; stroke: #fff; stroke-width: 4px; text-anchor: middle; }
.title { font-size: 15px; font-weight: bold; } .key { font-size: 11px; }
path { fill: none; stroke: #4a5562; stroke-width: 1.3; } path.far { stroke: #8d99a6; stroke-opacity: 0.35; }
path:hover, path.far:hover { stroke: #d11a5b; stroke-width: 2.6; stroke-opacity: 1; }
rect { stroke-width: 1.4; } .dashed { stroke-dasharray: 5 3; } g.call:hover rect { stroke-width: 2.8; }
"""


def _svg(program: Program) -> str:
    made = layout(program)
    calls = [costs(call) for call in program.all_calls]
    title = (
        f"{len(calls)} calls, {scaled(sum(c for c, _ in calls), 'FLOP')}, {scaled(sum(m for _, m in calls), 'B')} moved"
    )
    if program.linked is not None:
        title += f", arena {scaled(program.linked.nbytes, 'B')}"
    width, height = math.ceil(made.width), math.ceil(made.height)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{html.escape(_STYLE, quote=False)}</style>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" style="fill: #4a5562; stroke: none"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_BETWEEN}" y="30" class="title">{_escaped(title)}</text>',
    ]
    x = _BETWEEN
    for part, (fill, line) in _COLORS.items():
        out.append(f'<rect x="{x}" y="42" width="12" height="12" rx="3" fill="{fill}" stroke="{line}"/>')
        out.append(f'<text x="{x + 18}" y="52" class="key">{part}</text>')
        x += 110
    if any(b.dashed for b in made.boxes):
        out.append(f'<text x="{x}" y="52" class="key">dashed: runs through Python</text>')
    far = [_path(e) for e in made.edges if e.source.column != e.target.column]
    near = [_path(e) for e in made.edges if e.source.column == e.target.column]
    out += [*far, *near]
    for box in made.boxes:
        out += _box_svg(box)
    return "\n".join([*out, "</svg>", ""])


def _path(edge: Edge) -> str:
    a, b = edge.source, edge.target
    tip = f"<title>{_escaped(f'{edge.value.name} {type_text(edge.value)}')}</title>"
    if a.column != b.column:
        x0, y0, x1, y1 = a.x + _WIDTH, a.y + a.height / 2, b.x, b.y + b.height / 2
        bend = min(160.0, (x1 - x0) / 2)
        way = f"M{x0:.0f},{y0:.0f} C{x0 + bend:.0f},{y0:.0f} {x1 - bend:.0f},{y1:.0f} {x1:.0f},{y1:.0f}"
        return f'<path class="far" d="{way}">{tip}</path>'
    if edge.track:
        x0, y0, x1, y1 = a.x + _WIDTH, a.y + a.height / 2, b.x + _WIDTH, b.y + b.height / 2
        side = a.column + _TRACK * (edge.track + 1)
        way = f"M{x0:.0f},{y0:.0f} H{side - 6:.0f} q6,0 6,6 V{y1 - 6:.0f} q0,6 -6,6 H{x1 + 1:.0f}"
    else:
        x0, y0, x1, y1 = a.x + _WIDTH / 2, a.y + a.height, b.x + _WIDTH / 2, b.y
        if x0 == x1:
            way = f"M{x0:.0f},{y0:.0f} V{y1:.0f}"
        else:
            middle = y0 + a.below + (y1 - y0 - a.below) / 2
            curve = f"C{x0:.0f},{middle + 9:.0f} {x1:.0f},{middle - 9:.0f} {x1:.0f},{y1:.0f}"
            way = f"M{x0:.0f},{y0:.0f} V{y0 + a.below:.0f} {curve}"
    return f'<path marker-end="url(#end)" d="{way}">{tip}</path>'


def _box_svg(box: Box) -> list[str]:
    fill, line = _COLORS[box.part]
    dashed = ' class="dashed"' if box.dashed else ""
    round_ = box.height / 2 if box.part == "argument" else 6
    out = [
        '<g class="call">',
        f"<title>{_escaped(box.tip)}</title>",
        f'<rect{dashed} x="{box.x:.0f}" y="{box.y:.0f}" width="{_WIDTH}" height="{box.height}" rx="{round_:.0f}" '
        f'fill="{fill}" stroke="{line}"/>',
    ]
    y = box.y + _PAD
    for kind, text in box.lines:
        y += _LINE[kind]
        out.append(f'<text x="{box.x + _PAD:.0f}" y="{y - 4:.0f}" class="{kind}">{_escaped(text)}</text>')
    y = box.y + box.height + 3
    for text in box.labels:
        y += _LINE["label"]
        out.append(f'<text x="{box.x + _WIDTH / 2:.0f}" y="{y - 2:.0f}" class="label">{_escaped(text)}</text>')
    return [*out, "</g>"]


def _escaped(text: str) -> str:
    """Text for XML, without characters that it can't hold."""
    return html.escape("".join(c if c >= " " or c in "\n\t" else "?" for c in text))


def _dot(program: Program) -> str:
    made = _graph(program)
    number = {box: i for i, box in enumerate(made.boxes)}
    out = ["digraph program {", "  node [shape=box, style=filled, fontname=monospace];", "  edge [fontname=monospace];"]
    for box, i in number.items():
        fill, line = _COLORS[box.part]
        style = "filled,dashed" if box.dashed else "filled"
        label = "\n".join(text for _, text in box.lines)
        out.append(f'  n{i} [label={_quoted(label)}, fillcolor="{fill}", color="{line}", style="{style}"];')
    for edge in made.edges:
        label = _quoted(f"{edge.value.name} {type_text(edge.value)}")
        out.append(f"  n{number[edge.source]} -> n{number[edge.target]} [label={label}];")
    return "\n".join([*out, "}", ""])


def _quoted(text: str) -> str:
    kept = "".join(c if c >= " " or c == "\n" else "?" for c in text)
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


_WRITERS = {".svg": _svg, ".dot": _dot}
