"""The bench's report: a page in Markdown, and its curves as SVG.

The curves are drawn by pygal, which only this needs: the extra `report` brings it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jivsd.proof.bench import BenchReport
    from jivsd.proof.sweep import Point
    from jivsd.proof.together import Together

THROUGHPUT, LATENCY, MEMORY = "throughput.svg", "latency.svg", "memory.svg"
MEGABYTE = 1_000_000


class NoPygal(Exception):
    """What draws the curves is not installed."""


def pygal() -> Any:
    """The library that draws.

    Raises:
        NoPygal: it is not installed.
    """
    try:
        import pygal
    except ImportError:
        raise NoPygal("a report needs pygal: python3 -m pip install 'jivsd[report]'") from None
    # It leaves a finder of modules behind, for its own plugins, of a kind that Python warns of at every later import.
    sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return pygal


def write(folder: Path, report: BenchReport, points: Sequence[Point]) -> Path:
    """Write the report into a folder, which is made if need be, and return the path of its page.

    Raises:
        NoPygal: what draws is not installed.
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _draw(
        folder / THROUGHPUT, "Durable steps a second", [("steps/s", [(p.concurrency, p.steps_per_s) for p in points])]
    )
    curves = [
        ("p50", [(point.concurrency, point.run_ms.p50) for point in points]),
        ("p99", [(point.concurrency, point.run_ms.p99) for point in points]),
    ]
    _draw(folder / LATENCY, f"Milliseconds from start to result, {report.steps} steps", curves)
    memory = [(look.runs, look.rss_bytes / MEGABYTE) for look in report.parked.memory]
    _draw(folder / MEMORY, "Memory of a daemon, in MB", [("MB", memory)], "parked runs", logarithmic=False)
    page = folder / "report.md"
    page.write_text(_page(report, points))
    return page


def _draw(
    path: Path,
    title: str,
    curves: Sequence[tuple[str, list[tuple[int, float]]]],
    x_title: str = "runs open at once",
    *,
    logarithmic: bool = True,
) -> None:
    """Draw curves of values, one for each label of the axis; from zero, if they are not on a logarithmic scale."""
    library = pygal()
    style = library.style.CleanStyle(
        font_family="sans-serif",
        background="white",
        plot_background="white",
        guide_stroke_color="#dddddd",
        guide_stroke_dasharray="none",
        major_guide_stroke_color="#dddddd",
        major_guide_stroke_dasharray="none",
        title_font_size=18,
        legend_font_size=14,
        label_font_size=12,
        major_label_font_size=12,
        colors=("#1f5fbf", "#c2410c"),
    )
    heights = [y for _, values in curves for _, y in values]
    ticks = _ticks(heights) if logarithmic else [tenth * _round_up(max(heights)) / 10 for tenth in range(11)]
    chart = library.Line(
        title=title,
        x_title=x_title,
        logarithmic=logarithmic,
        style=style,
        show_legend=len(curves) > 1,
        legend_at_bottom=True,
        width=720,
        height=420,
        js=[],
        value_formatter=_number,
        y_labels=ticks,
        range=(ticks[0], ticks[-1]),
        stroke_style={"width": 2},
    )
    chart.x_labels = [f"{x:,}" for x, _ in curves[0][1]]
    for name, values in curves:
        chart.add(name, [y for _, y in values])
    path.write_bytes(chart.render(disable_xml_declaration=False))


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten that reach around the values."""
    scale = [factor * 10.0**power for power in range(-3, 8) for factor in (1, 2, 5)]
    low = max((tick for tick in scale if tick <= min(values)), default=scale[0])
    high = min((tick for tick in scale if tick >= max(values)), default=scale[-1])
    return [tick for tick in scale if low <= tick <= high]


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    return _ticks([value])[-1]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def waits(report: BenchReport) -> list[tuple[str, str]]:
    """What runs cost that wait, and how they come back, in words; and what several workers do, if that was measured."""
    parked, recovery = report.parked, report.recovery
    growth = f"{parked.rss_growth_bytes / MEGABYTE:,.0f} MB more memory"
    return [
        (f"{parked.runs:,} parked runs", f"{growth}, {parked.idle_cpu_percent:.2f} % of a core while nothing happens"),
        ("signals that bring parked runs back", f"{report.signals_per_s:,.0f}/s"),
        (
            f"{recovery.in_flight:,} runs in flight, kill -9",
            f"first step after {recovery.first_step_s:.1f} s, all running after {recovery.all_running_s:.1f} s, "
            f"{recovery.steps_twice:,} steps twice",
        ),
        *([] if report.together is None else [_together(report.together)]),
    ]


def _together(found: Together) -> tuple[str, str]:
    steps = f"{found.steps_per_s:,.0f} steps/s, {found.cpu_us_per_step:,.0f} µs of CPU a step"
    return f"{found.workers} workers together", f"{steps}; {found.signals_per_s:,.0f} signals/s"


def _page(report: BenchReport, points: Sequence[Point]) -> str:
    share = report.steps_per_s / report.raw_rows_per_s
    one, ten, asked = report.one_step_ms, report.ten_steps_ms, report.one_step_socket_ms
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        "# jivsd bench",
        "",
        f"Store: {report.store}. {report.runs:,} runs of {report.steps} steps, {report.concurrency:,} open at once.",
        f"A fixed Python loop takes {report.loop_ms:.1f} ms on this machine. {versions}.",
        "",
        "| figure | value |",
        "|---|---|",
        f"| durable steps | {report.steps_per_s:,.0f}/s, {share:.0%} of the rows that the store can write |",
        f"| runs | {report.runs_per_s:,.0f}/s |",
        f"| the store alone | {report.raw_rows_per_s:,.0f} rows/s in batches of {report.batch_rows:,.0f} |",
        f"| CPU | {report.cpu_us_per_step:,.0f} µs a step, of the whole process |",
        f"| one step, start to result | {one.p50:.1f} ms (p50), {one.p99:.1f} ms (p99) |",
        f"| ten steps, start to result | {ten.p50:.1f} ms (p50), {ten.p99:.1f} ms (p99) |",
        f"| one step in one request through the socket | {asked.p50:.1f} ms (p50), {asked.p99:.1f} ms (p99) |",
        *(f"| {name} | {value} |" for name, value in waits(report)),
        "",
        f"![Durable steps a second against runs open at once]({THROUGHPUT})",
        "",
        f"![Latency against runs open at once]({LATENCY})",
        "",
        f"![Memory against parked runs]({MEMORY})",
        "",
        "| open at once | runs | steps/s | run p50 ms | run p99 ms |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {point.concurrency:,} | {point.runs:,} | {point.steps_per_s:,.0f} "
        f"| {point.run_ms.p50:,.1f} | {point.run_ms.p99:,.1f} |"
        for point in points
    ]
    return "\n".join(lines) + "\n"
