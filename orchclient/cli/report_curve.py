"""A task's progress as a picture: a line of steps, the time that people were waited for, and errors. Pure SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from attrs import frozen

WIDTH, HEIGHT = 560.0, 180.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 12.0, 14.0, 26.0  # room for texts that are larger on a phone
MOST_POINTS = 400


@frozen
class Curve:
    """What is drawn. Instants are microseconds; ``waits`` are from when to when people were asked."""

    points: Sequence[tuple[int, float]]
    waits: Sequence[tuple[int, int]]
    errors: Sequence[int]
    begin_us: int
    end_us: int
    begin: str
    end: str
    told: str  # for whoever does not see it


def svg(curve: Curve) -> str:
    """The picture; empty when no progress was told."""
    if not curve.points:
        return ""
    parts = [
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-labelledby="curve-title">',
        f'<title id="curve-title">{escape(curve.told)}</title>',
        *_grid(curve),
        *(_wait(curve, begin, end) for begin, end in curve.waits),
        _line(curve),
        *(_error(curve, at_us) for at_us in curve.errors),
        "</svg>",
    ]
    return "\n".join(parts)


def _x(curve: Curve, at_us: int) -> float:
    span = max(curve.end_us - curve.begin_us, 1)
    share = min(max((at_us - curve.begin_us) / span, 0.0), 1.0)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(percent: float) -> float:
    return TOP + (1 - min(max(percent, 0.0), 100.0) / 100) * (HEIGHT - TOP - BOTTOM)


def _grid(curve: Curve) -> list[str]:
    lines = []
    for percent in (0, 50, 100):
        y = _y(percent)
        lines.append(f'<line class="grid" x1="{LEFT:.0f}" x2="{WIDTH - RIGHT:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 6:.0f}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    below = HEIGHT - 8
    lines.append(f'<text x="{LEFT:.0f}" y="{below:.0f}">{escape(curve.begin)}</text>')
    lines.append(f'<text x="{WIDTH - RIGHT:.0f}" y="{below:.0f}" text-anchor="end">{escape(curve.end)}</text>')
    return lines


def _wait(curve: Curve, begin_us: int, end_us: int) -> str:
    x = _x(curve, begin_us)
    width = max(_x(curve, end_us) - x, 2.0)
    return f'<rect class="wait" x="{x:.1f}" y="{TOP:.0f}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM:.0f}"/>'


def _line(curve: Curve) -> str:
    points = thinned(curve.points)
    first_x, last_x = _x(curve, points[0][0]), _x(curve, max(curve.end_us, points[-1][0]))
    path = [f"M{first_x:.1f} {_y(points[0][1]):.1f}"]
    for at_us, percent in points[1:]:
        path.append(f"H{_x(curve, at_us):.1f}V{_y(percent):.1f}")
    path.append(f"H{max(last_x, first_x + 2):.1f}")
    return f'<path class="progress" d="{"".join(path)}"/>'


def thinned(points: Sequence[tuple[int, float]], most: int = MOST_POINTS) -> list[tuple[int, float]]:
    """So many points at most, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(n * step)] for n in range(most)]


def _error(curve: Curve, at_us: int) -> str:
    x, y = _x(curve, at_us), HEIGHT - BOTTOM
    return f'<path class="error" d="M{x:.1f} {y - 9:.1f}l5 9h-10z"/>'
