"""The content of a figure of matplotlib, as plain values: quicker and stricter than to look at its pixels."""

from matplotlib.colors import to_hex


def described(axes):
    """Everything that a plot of curves sets."""
    legend = axes.get_legend()
    grid = axes.xaxis.get_gridlines()[0]
    return {
        "title": axes.get_title(),
        "x": (axes.get_xlabel(), axes.get_xscale(), *axes.get_xlim()),
        "y": (axes.get_ylabel(), axes.get_yscale(), *axes.get_ylim()),
        "grid": grid.get_visible() and grid.get_alpha(),
        "legend": [text.get_text() for text in legend.get_texts()],
        "legend size": legend.get_texts()[0].get_fontsize(),
        "legend frame": legend.get_frame_on(),
    }


def lines(axes):
    """Label, points, and style of each curve."""
    return [
        {
            "label": line.get_label(),
            "points": line.get_xydata().tolist(),
            "steps": line.get_drawstyle(),
            "colour": to_hex(line.get_color()),
            "style": line.get_linestyle(),
            "width": line.get_linewidth(),
            "order": line.get_zorder(),
        }
        for line in axes.get_lines()
    ]


def page(figure):
    """Size in inches, and the layout."""
    return (*figure.get_size_inches().tolist(), type(figure.get_layout_engine()).__name__)
