"""A table's figure as horizontal bars in SVG: the median as a bar, smallest and largest as a whisker. Pure."""

from __future__ import annotations

from html import escape

from measure import Figure, Section, rounded

WIDTH = 760
LETTER_WIDTH = 7.3  # of a label, on the safe side
VALUE_WIDTH = 70
ROW = 26
BAR = 14
TOP = 40
BOTTOM = 46

OURS, OTHERS, LINE, TEXT, FAINT = "#2f6f9f", "#b9c2ca", "#333a40", "#1d2226", "#6b747c"


def plot(section: Section, figure: Figure) -> str:
    """The SVG. Lightbus's bars are the dark ones."""
    names = [name for name in section.turns if section.values(name, figure.key)]
    left = round(26 + LETTER_WIDTH * max(map(len, names)))
    largest = max(max(section.values(name, figure.key)) for name in names) or 1.0
    scale = (WIDTH - left - VALUE_WIDTH) / largest
    height = TOP + ROW * len(names) + BOTTOM
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
    parts = [
        svg + 'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="bold" fill="{TEXT}">{escape(section.title)}</text>',
    ]
    for number, name in enumerate(names):
        values, median = section.values(name, figure.key), section.median(name, figure.key)
        middle = TOP + ROW * number + ROW / 2
        low, high = left + min(values) * scale, left + max(values) * scale
        colour = OURS if "lightbus" in name else OTHERS
        label, base = escape(name), middle + 4.5
        top, width = middle - BAR / 2, median * scale
        whisker = f"M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
        parts += [
            f'<text x="{left - 10}" y="{base:.1f}" text-anchor="end" fill="{TEXT}">{label}</text>',
            f'<rect x="{left}" y="{top:.1f}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="{whisker}" stroke="{LINE}" fill="none"/>',
            f'<text x="{high + 8:.1f}" y="{base:.1f}" fill="{TEXT}">{rounded(median)}</text>',
        ]
    rounds = max(len(section.values(name, figure.key)) for name in names)
    note = f"{figure.heading}; bar: median of {rounds}, line: smallest to largest"
    parts += [
        f'<path d="M{left} {TOP}V{TOP + ROW * len(names)}" stroke="{LINE}"/>',
        f'<text x="16" y="{height - 26}" font-size="12" fill="{FAINT}">{escape(note)}</text>',
        f'<rect x="16" y="{height - 17}" width="10" height="10" fill="{OURS}"/>',
        f'<text x="31" y="{height - 8}" font-size="12" fill="{FAINT}">Lightbus</text>',
        f'<rect x="101" y="{height - 17}" width="10" height="10" fill="{OTHERS}"/>',
        f'<text x="116" y="{height - 8}" font-size="12" fill="{FAINT}">others</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
