"""Pictures of programs: nothing overlaps, texts fit, every call and line is there, whatever names hold."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.compiler.draw import Box, draw, layout
from tensorgrad.compiler.program import Action, Program

SVG = "{http://www.w3.org/2000/svg}"
# letters of the widest monospaced font that browsers fall back to, in parts of its size
ADVANCE = 0.605


def program_of(layers, width=8):
    """A training step of a residual network with that many blocks: branches, lines that skip boxes, in-place writes."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a, self.b = nn.BatchNorm1d(width), nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x):
            h = self.norm(x)
            return x + self.a(h) * tg.sigmoid(self.b(h))

    model = nn.Sequential(*(Block() for _ in range(layers)))
    optimizer = tg.optim.Adam(model.parameters())

    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    compiled = Compiled(step)
    for _ in range(3):
        compiled(tg.ones(4, width))
    return compiled.programs[0]


@pytest.fixture(scope="module", params=[1, 4, 14])
def program(request):
    made = program_of(request.param)
    assert request.param != 14 or len(made.calls) > 100
    return made


def overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + 236 and b.x < a.x + 236 and a.y < b.y + b.height + b.below and b.y < a.y + a.height + a.below


def test_boxes_do_not_overlap_and_lines_lead_forward(program):
    made = layout(program)
    assert len(made.boxes) == len(program.steps) + len(program.arguments)
    for i, box in enumerate(made.boxes):
        assert box.x >= 0 and box.x + 236 <= made.width
        assert box.y >= 70 and box.y + box.height + box.below <= made.height
        assert not any(overlap(box, other) for other in made.boxes[:i])
    order = {box: i for i, box in enumerate(made.boxes)}
    for edge in made.edges:
        assert order[edge.source] < order[edge.target]
        same_column = edge.source.column == edge.target.column
        assert edge.source.y + edge.source.height < edge.target.y if same_column else edge.source.x < edge.target.x
    if len(program.calls) > 40:
        assert 0.8 < made.width / made.height < 2.8


def test_the_file_is_a_picture_whose_texts_fit(program, tmp_path):
    program.draw(tmp_path / "step.svg")
    root = ET.parse(tmp_path / "step.svg").getroot()
    assert root.tag == f"{SVG}svg" and "http" not in (tmp_path / "step.svg").read_text().replace(
        "http://www.w3.org/2000/svg", ""
    )
    groups = [g for g in root.iter(f"{SVG}g") if g.get("class") == "call"]
    assert len(groups) == len(program.steps) + len(program.arguments)
    size = {
        kind: float(px) for kind, px in re.findall(r"\.(\w+) \{ font-size: ([\d.]+)px", root.find(f"{SVG}style").text)
    }
    for group in groups:
        rect = group.find(f"{SVG}rect")
        left, width = float(rect.get("x")), float(rect.get("width"))
        top, bottom = float(rect.get("y")), float(rect.get("y")) + float(rect.get("height"))
        for text in group.findall(f"{SVG}text"):
            kind = text.get("class")
            wide = len(text.text) * ADVANCE * size[kind]
            if kind == "label":
                assert wide <= width and float(text.get("y")) > bottom
            else:
                assert float(text.get("x")) + wide <= left + width and top < float(text.get("y")) < bottom
    colors = {group.find(f"{SVG}rect").get("fill") for group in groups}
    assert len(colors) == 4  # arguments, forward, backward, optimizer
    paths = root.findall(f"{SVG}path")
    assert len(paths) == len(layout(program).edges) and all("%" in p[0].text or "arg" in p[0].text for p in paths)


def test_dot_files_have_a_node_for_each_call(program, tmp_path):
    program.draw(str(tmp_path / "step.dot"))
    text = (tmp_path / "step.dot").read_text()
    nodes = re.findall(r"^  n\d+ \[label=\"(.*?)(?:\\n|\")", text, re.M)
    assert len(nodes) == len(program.steps) + len(program.arguments)
    assert [n for n in nodes if n not in ("host", "arg0")] == [c.op.name for c in program.calls]
    assert len(re.findall(r"n\d+ -> n\d+ \[label=\"[%a]", text)) == len(layout(program).edges)
    assert text.startswith("digraph") and text.rstrip().endswith("}")


def test_any_name_can_be_drawn(tmp_path):
    made = program_of(1)
    for value in made.calls[0].reads():
        value.name = 'a<b>&"quoted"\\ \x00' + "long" * 30
    next(v for call in made.calls for v in call.results if v is not None).name = "]]>-->"
    draw(made, tmp_path / "step.svg")
    ET.parse(tmp_path / "step.svg")
    draw(made, tmp_path / "step.dot")
    for line in (tmp_path / "step.dot").read_text().splitlines():
        assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0


def test_programs_of_nothing_are_drawn(tmp_path):
    for steps in ([], [Action(print)]):
        Program(steps, [], []).draw(tmp_path / "empty.svg")
        ET.parse(tmp_path / "empty.svg")


@pytest.mark.parametrize("name", ["step.png", "step", "step.svg.gz"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"\.svg or \.dot"):
        program_of(1).draw(tmp_path / name)
    assert not list(tmp_path.iterdir())
