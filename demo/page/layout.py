"""The page: its components, and what happens when one of them is used."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demo.page.service import MAX_FRAMES, Result, Service, engines
from utils.cli import one_line
from utils.io.drawing import LEGEND_MIN_SHARE

INTRO = """# ICNet
Real-time semantic segmentation of street scenes. Everything stays on this machine."""
DEMO = Path(__file__).parents[1]
EXAMPLES = [DEMO / "leuven.jpg", *sorted((DEMO / "photos").glob("*.jpg"))]
MAX_FILE_SIZE = "200mb"  # of an upload
CONCURRENT = 4  # requests of a kind served at a time
LAST: dict[str, Any] = {  # of several requests while one is served, the last one counts
    "trigger_mode": "always_last",
    "concurrency_limit": CONCURRENT,
    "api_visibility": "private",
}
HEIGHT = "min(360px, 70vw)"  # of pictures; the latter on a phone
HOUR = 3600  # seconds
BAR = "<progress"  # how a progress bar starts
STYLE = """
.facts progress { all: revert; width: 100%; accent-color: var(--slider-color); }
.legend .wrap { display: grid; grid-template-columns: repeat(auto-fill, minmax(15em, 1fr)); }
.legend label { gap: 0.5em; white-space: nowrap; }
.legend label::before { content: ""; flex: 0 0 1em; height: 1em; border-radius: 3px; background: var(--class-color); }
"""


def build_page(service: Service) -> gr.Blocks:
    """Lay out the page."""
    with gr.Blocks(title="ICNet", analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as page:
        gr.Markdown(INTRO)
        with gr.Row():
            weights = gr.Dropdown(list(service.weights), label="Weights", min_width=300)
            engine = gr.Dropdown(engines(), label="Runtime and precision", min_width=300)
        with gr.Tab("Picture"), gr.Row():
            build_picture_tab(service, weights, engine)
        with gr.Tab("Video"), gr.Row():
            build_video_tab(service, weights, engine)
    return page


def launch(page: gr.Blocks, host: str, port: int) -> None:
    """Serve the page, without links to elsewhere."""
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=MAX_FILE_SIZE,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(primary_hue="blue", font="system-ui", font_mono="monospace"),
        css=STYLE,
    )


def build_picture_tab(service: Service, weights: gr.Dropdown, engine: gr.Dropdown) -> None:
    """Lay out the tab of pictures, the input at the left and the results at the right."""
    with gr.Column():
        picture = gr.Image(type="filepath", sources=["upload", "webcam", "clipboard"], show_label=False, height=HEIGHT)
        examples = gr.Examples([[str(path)] for path in EXAMPLES], picture)
    with gr.Column():
        with gr.Tab("Overlay"):
            overlay = gr.Image(interactive=False, buttons=["fullscreen"], show_label=False, height=HEIGHT)
        with gr.Tab("Compare"):
            sides = gr.ImageSlider(interactive=False, buttons=[], show_label=False)
        facts = gr.HTML(elem_classes="facts")
        with gr.Column(visible=False) as details:
            alpha = opacity_slider()
            shown = gr.CheckboxGroup(label="Classes drawn, with their shares of the picture", elem_classes="legend")
            with gr.Row():
                save_overlay = gr.DownloadButton("Save overlay", size="md", min_width=120)
                save_labels = gr.DownloadButton("Save label map", size="md", min_width=120)
    state = gr.State()
    drawings = [overlay, sides, save_overlay]
    results = [state, details, facts, shown, save_labels, *drawings]
    segment: dict[str, Any] = {
        "fn": partial(show_picture, service),
        "inputs": [picture, weights, engine, alpha],
        "outputs": results,
        "show_progress_on": [overlay, sides],
        "preprocess": False,  # which would reject a broken picture without saying why
    }
    events = [picture.input, weights.input, engine.input]
    for event in (gr.on(events, **segment, **LAST), examples.load_input_event.then(**segment, **LAST)):
        event.failure(show_nothing, None, results, api_visibility="private")
    redrawing = [partial(redraw, service), [state, alpha, shown], drawings]
    gr.on([alpha.input, shown.input], *redrawing, show_progress="hidden", **LAST)


def build_video_tab(service: Service, weights: gr.Dropdown, engine: gr.Dropdown) -> None:
    """Lay out the tab of videos, the input at the left and the overlay at the right."""
    with gr.Column():
        video = gr.Video(sources=["upload", "webcam"], label=f"Video of up to {MAX_FRAMES} frames", height=HEIGHT)
        alpha = opacity_slider()
        names = list(service.network(weights.value, engine.value).predictor.classes.names)
        shown = gr.Dropdown(names, value=[], multiselect=True, label="Classes drawn", info="leave empty to draw all")
        with gr.Row():
            start, stop = gr.Button("Segment the video", variant="primary"), gr.Button("Stop")
    with gr.Column():
        overlay = gr.Video(interactive=False, autoplay=True, loop=True, show_label=False, height=HEIGHT)
        facts = gr.HTML(elem_classes="facts")
    running = start.click(
        partial(show_video, service),
        [video, weights, engine, alpha, shown],
        [overlay, facts],
        show_progress_on=overlay,
        concurrency_limit=CONCURRENT,
        api_visibility="private",
    )
    stop.click(without_bar, facts, facts, cancels=running, api_visibility="private")
    weights.input(partial(list_classes, service), [weights, engine], shown, api_visibility="private")


def opacity_slider() -> gr.Slider:
    """Build the slider for the opacity of the colours."""
    return gr.Slider(0, 1, 0.5, step=0.05, label="Opacity of the colours")


def show_picture(
    service: Service, picture: Mapping[str, Any] | None, weights: str, engine: str, alpha: float
) -> list[Any]:
    """Segment a picture, if there is one; return the state and what the page shows of it."""
    if picture is None:
        return show_nothing()
    with errors_shown():
        file = Path(picture.get("path") or "").resolve()
        if not file.is_relative_to(service.folder.resolve()):  # without preprocessing, Gradio lets any path through
            raise ValueError("only uploaded pictures and examples are segmented: choose the picture again")
        result = service.segment(str(file), weights, engine)
        shares = result.shares()
        state = result, service.save_picture(f"{result.name}_original", result.image)
        choices = [(f"{name} {percentage(share)}", name) for name, share in shares.items()]
        return [
            state,
            gr.Column(visible=True),
            describe(result),
            gr.CheckboxGroup(choices, value=list(shares)),
            service.save_label_map(result),
            *redraw(service, state, alpha, list(shares)),
        ]


def show_nothing() -> list[Any]:
    """Return empty values for everything that `show_picture` returns, for no picture or an unreadable one."""
    return [None, gr.Column(visible=False), *6 * [None]]


def redraw(service: Service, state: tuple[Result, str] | None, alpha: float, shown: Sequence[str]) -> list[Any]:
    """Draw the overlay of a segmented picture: alone, beside the original, and to download."""
    with errors_shown():
        if state is None:
            raise ValueError("the server was restarted: choose the picture again")
        result, original = state
        overlay = service.save_picture(f"{result.name}_overlay", result.overlay(alpha, shown))
        return [overlay, (original, overlay), overlay]


def describe(result: Result) -> str:
    """Describe a result in HTML, with a style sheet for the colours of the legend."""
    colors = dict(zip(result.classes.names, result.classes.colors, strict=True))
    rules = (
        f".legend label:nth-child({number}) {{ --class-color: rgb{colors[name]} }}"
        for number, name in enumerate(result.shares(), start=1)
    )
    return f"Network: {result.milliseconds:.0f} ms in {result.engine}<style>{' '.join(rules)}</style>"


def percentage(share: float) -> str:
    """Format a share as a percentage, or as "< 0.1%" if it would round to 0.0%."""
    return f"{100 * share:.1f}%" if share >= LEGEND_MIN_SHARE else "< 0.1%"


def list_classes(service: Service, weights: str, engine: str) -> gr.Dropdown:
    """Offer the classes of other weights."""
    with errors_shown():
        return gr.Dropdown(list(service.network(weights, engine).predictor.classes.names), value=[])


def show_video(
    service: Service, video: str | None, weights: str, engine: str, alpha: float, shown: Sequence[str]
) -> Iterator[tuple[Any, str]]:
    """Segment a video; yield the progress after each frame, and finally the overlay."""
    with errors_shown():
        if video is None:
            raise ValueError("choose or record a video first")
        target = service.new_file(f"{Path(video).stem}_overlay.webm")
        facts = ""
        steps = service.segment_video(video, target, weights, engine, alpha=alpha, shown=shown)
        for done, total, milliseconds in steps:
            facts = f"{done} frames; network: {milliseconds:.0f} ms per frame"
            yield None, f"{facts}{BAR} {f'value={done} max={total}' if total else ''}></progress>"
        yield str(target), facts


def without_bar(facts: str | None) -> str:
    """Remove the progress bar of a video that was stopped."""
    return (facts or "").partition(BAR)[0]


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show on the page the errors that a visitor can correct."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(one_line(error), print_exception=False) from None
