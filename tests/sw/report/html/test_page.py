"""The page in a real browser: what it shows is what the JSON says, and it does what it promises."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.profile.profile import predicted_profile
from celosia.sw.program.file import Program
from celosia.sw.report.bench.bench import Bench
from celosia.sw.report.example import load_digits
from celosia.sw.report.html.figures import report_figures
from celosia.sw.report.html.page import report_page

from tests.kit.browser import needs_browser, open_page
from tests.kit.command_line import run_cli
from tests.kit.divided import divided_model
from tests.kit.pages import embedded, texts
from tests.kit.tools import needs_simulator

BASE = preset("base")

PROBE = """
const found = {};
const shown = (section) => !section.hidden && section.offsetHeight > 60;
found.sections = [...document.querySelectorAll("main section")].filter(shown).map((s) => s.id);
found.ink = [...document.querySelectorAll("canvas")].filter((c) => !c.hidden).map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
});
found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.cards = Object.fromEntries(
  [...document.querySelectorAll("[data-figure]")].map((e) => [e.dataset.figure, e.textContent]));
const cells = () => [...document.querySelectorAll("#layer-table tbody tr")].map(
  (row) => [Number(row.dataset.layer), ...[...row.cells].map((cell) => cell.textContent)]);
found.heads = [...document.querySelectorAll("#layer-table thead th")].map((e) => e.textContent);
found.rows = cells();
found.points = document.querySelectorAll("#roofline circle").length;
found.text = document.querySelector("main").textContent;
found.intruders = document.querySelectorAll("img, main b.intruder").length;
if (figures.cycles) {
  const heading = (n) => document.querySelectorAll("#layer-table thead button")[n];
  heading(1).click();
  found.sorted = cells().map((row) => row[0]);
  const canvas = document.getElementById("timeline-canvas");
  const box = canvas.getBoundingClientRect();
  const pointer = (kind, x, y) => canvas.dispatchEvent(
    new PointerEvent(kind, { clientX: box.left + x, clientY: box.top + y, pointerId: 1 }));
  const widest = figures.layers.reduce((a, b) => (b.cycles > a.cycles ? b : a)).number;
  const middle = timeline.x((owned[widest].begin + owned[widest].end) / 2);
  pointer("pointermove", middle, 22 + 28 + 2 * 28 + 14);
  found.hover = document.getElementById("tip").textContent;
  pointer("pointerdown", middle, 34);
  pointer("pointerup", middle, 34);
  found.chosen = document.querySelector("#layer-table tr.chosen").dataset.layer;
  const key = (name) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
  found.views = [..."++-n"].map((name) => {
    key(name);
    return [view.begin, view.end];
  });
  key("0");
  found.views.push([view.begin, view.end]);
  const before = performance.now();
  for (let n = 0; n < 10; n++) timeline.redraw();
  found.milliseconds = (performance.now() - before) / 10;
}
const result = document.createElement("pre");
result.id = "probe";
result.textContent = JSON.stringify(found);
document.body.append(result);
"""


def probed(page: str, folder: Path) -> dict[str, Any]:
    """Open a page in the browser, use it, and return what was seen; the console must be silent."""
    file = folder / "probe.html"
    file.write_text(page.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    opened = open_page(file, folder / "browser")
    assert opened.complaints == []
    found: dict[str, Any] = json.loads(texts(opened.document)["probe"])
    return found


def check_table(seen: dict[str, Any], figures: dict[str, Any]) -> None:
    """Hold the table of layers, the headline and the points against the figures."""
    heads = {head: n + 1 for n, head in enumerate(seen["heads"])}
    assert len(seen["rows"]) == len(figures["layers"])
    cycles = "cycles" if figures["source"] == "rtl" else "predicted cycles"
    for row, layer in zip(seen["rows"], figures["layers"], strict=True):
        assert row[0] == layer["number"]
        assert row[heads["layer"]] == layer["label"]
        for head, key in ((cycles, "cycles"), ("MACs", "macs"), ("bytes read", "read_bytes")):
            assert row[heads[head]] == f"{layer[key]:,}"
        assert row[heads["bound by"]] == layer["bound"]
        if layer["cycles"]:
            assert row[heads["utilisation"]] == f"{100 * layer['utilisation']:.1f} %"
    assert seen["cards"]["cycles"] == f"{figures['cycles']:,}"
    assert seen["cards"]["utilisation"] == f"{100 * figures['utilisation']:.1f} %"
    peak = figures["memories"][0]["peak_share"]
    assert seen["cards"]["peak"] == f"{100 * peak:.1f} %"
    assert seen["points"] == len(figures["roofline"]["points"])


@needs_simulator
@needs_browser
@pytest.mark.xdist_group("rtl-base")
def test_the_browser_shows_what_was_measured(tmp_path: Path) -> None:
    model, page, file = (tmp_path / name for name in ("digits.tflite", "r.html", "r.json"))
    model.write_bytes(load_digits().model)
    result = run_cli("report", model, "-o", page, "--json", file)
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    assert embedded(text) == figures
    bench = Bench().measure(model, BASE).figures()
    for key in ("cycles", "utilisation", "predicted_cycles", "counters", "reasons"):
        assert figures[key] == bench[key]
    both = zip(figures["layers"], bench["layers"], strict=False)
    assert [(a["cycles"], a["reasons"]) for a, _ in both] == [
        (entry["cycles"], entry["reasons"]) for entry in bench["layers"][:-1]
    ]

    seen = probed(text, tmp_path)
    expected = ["summary", "timeline", "memory", "roofline", "layers", "split", "advice"]
    expected.append("conditions")
    assert seen["sections"] == expected
    assert min(seen["ink"]) > 20
    assert seen["wide"] == 0
    check_table(seen, figures)
    layers = figures["layers"]
    assert seen["sorted"] == sorted(range(len(layers)), key=lambda n: (-layers[n]["cycles"], n))
    longest = seen["sorted"][0]
    assert seen["chosen"] == str(longest)
    assert seen["hover"].startswith("CONV, command ")
    assert f"for {layers[longest]['label']}" in seen["hover"]
    once, twice, out, layer, whole = seen["views"]
    assert figures["cycles"] > once[1] - once[0] > twice[1] - twice[0] < out[1] - out[0]
    following = sum(entry["cycles"] for entry in layers[: longest + 1])
    assert layer[0] <= following < layer[1]
    assert whole == [0, figures["cycles"]]
    at_the_end = figures["memories"][0]["blocks"]
    assert max(at_the_end["end"]) <= figures["cycles"]


def hostile(program: Program, name: str) -> Program:
    """Return a program in which everything that has a name has this one."""

    def renamed(segment: Any) -> Any:
        layers = tuple(replace(layer, name=name, op=name, reason=name) for layer in segment.layers)
        return replace(segment, layers=layers)

    segments = tuple(renamed(segment) for segment in program.segments)
    return replace(program, model=name, segments=segments)


def crowded(cycles: int, count: int) -> dict[str, list[Any]]:
    """Return so many commands, each engine's in turn."""
    edges = np.linspace(0, cycles, count + 1).tolist()
    engines = ["load", "store", "array", "vector"]
    return {
        "segment": [0] * count,
        "tag": list(range(count)),
        "engine": [engines[n % 4] for n in range(count)],
        "kind": [engines[n % 4].upper() for n in range(count)],
        "layer": [n % 3 for n in range(count)],
        "start": edges[:-1],
        "end": edges[1:],
        "bytes": [64 * (n % 2) for n in range(count)],
    }


@needs_browser
def test_names_are_text_and_many_commands_are_quick(tmp_path: Path) -> None:
    path = tmp_path / "divided.tflite"
    path.write_bytes(divided_model())
    name = "</script><img src=x onerror=alert(1)><b class=intruder>@@FIGURES@@&amp;\u2028"
    profile = predicted_profile(hostile(compile_model(path, BASE), name))
    energy = {key: {"low_uj": 1.5, "high_uj": 2.5} for key in ("chip", "total")}
    figures = report_figures(
        profile,
        conditions={"input": name},
        advice=[{"title": name, "text": "do so", "layer": 0, "cycles": 120}],
        energy={**energy, "parts": {"array": energy["chip"]}},
    )
    figures["commands"] = crowded(figures["cycles"], 20_000)
    page = report_page(figures)
    assert embedded(page) == json.loads(json.dumps(figures))
    seen = probed(page, tmp_path)
    assert seen["milliseconds"] < 100  # a few; other tests run beside it
    assert seen["intruders"] == 0
    assert {"split", "advice", "energy"} <= set(seen["sections"])
    assert seen["text"].count(name) >= 4
    assert "predicted" in seen["heads"][1]
    assert "error" not in seen["heads"]
    check_table(seen, figures)
    assert "1.5 to 2.5 \u00b5J" in seen["cards"]["energy"]


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    model, page = tmp_path / "digits.tflite", tmp_path / "r.html"
    model.write_bytes(load_digits().model)
    result = run_cli("report", model, "-o", page, "--device", "none")
    assert result.exit_code == 0, result.output
    assert "predicted, nothing was run" in result.output
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:,|#)[^\"]*|@import|url\(", text)
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in text
    figures = embedded(text)
    assert figures["source"] == "prediction"
    assert str(tmp_path) not in text
    for memory in figures["memories"]:
        held = zip(memory["blocks"]["address"], memory["blocks"]["bytes"], strict=True)
        assert all(0 <= address < address + size <= memory["bytes"] for address, size in held)
        assert max(memory["used"]["bytes"]) == memory["peak_bytes"] <= memory["bytes"]
    assert {m["memory"] for m in figures["memories"] if m["peak_bytes"]} == {
        "ACT", "WGT", "PARAM", "TABLE",
    }  # fmt: skip


def test_nothing_is_written_if_it_cannot_be(tmp_path: Path) -> None:
    model = tmp_path / "digits.tflite"
    model.write_bytes(load_digits().model)
    for words, options in (
        ("there is no folder", ["-o", tmp_path / "none/r.html"]),
        ("a prediction knows nothing of it", ["--device", "none", "--stalls", "0.5"]),
        ("it needs an --input", ["--array", "x"]),
        ("there is no such file", ["--input", tmp_path / "x.npy"]),
    ):
        chosen = options if "-o" in options else ["-o", tmp_path / "r.html", *options]
        result = run_cli("report", model, *chosen)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.stderr.split())
        assert {path.name for path in tmp_path.iterdir()} == {"digits.tflite"}


def test_the_page_has_the_advice_of_analyze(tmp_path: Path) -> None:
    builder = ModelBuilder()
    rng = np.random.default_rng(0)
    x = builder.input((1, 8, 8, 8), scale=0.1)
    for shape in ((65, 3, 3, 8), (8, 3, 3, 65)):
        weights = rng.integers(-127, 128, shape, np.int8)
        x = builder.conv2d(x, weights, w_scales=0.01, scale=0.2)
    model = tmp_path / "odd.tflite"
    model.write_bytes(builder.finish([x]))
    page, report, analysis = (tmp_path / name for name in ("p.html", "p.json", "a.json"))
    asked = (["report", "-o", str(page), "--device", "none", "--json", str(report)],)
    for command, *more in (*asked, ["analyze", "--json", str(analysis)]):
        assert run_cli(command, str(model), *more).exit_code == 0
    shown = json.loads(report.read_text(encoding="utf-8"))["advice"]
    wanted = json.loads(analysis.read_text(encoding="utf-8"))["advice"]
    assert [(entry["text"], entry["cycles"]) for entry in shown] == [
        (entry["text"], entry["saved_cycles"]) for entry in wanted
    ]
    assert "last tile" in {entry["title"] for entry in shown}
    assert wanted[0]["text"].split(":")[0] in page.read_text(encoding="utf-8")


def test_energy_of_a_model_that_is_all_on_the_host_is_refused_in_words(tmp_path: Path) -> None:
    builder = ModelBuilder()
    x = builder.input((1, 8), scale=0.1)
    y = builder.operator("LOG_SOFTMAX", [x], x.shape, scale=16 / 256, zero_point=127)
    model, page = tmp_path / "host.tflite", tmp_path / "p.html"
    model.write_bytes(builder.finish([y]))
    result = run_cli("report", model, "-o", page, "--device", "sim", "--energy")
    assert result.exit_code == 2
    assert "all of it runs on the host" in result.output
    assert not page.exists()
