"""The tabs, boxes and buttons of the page, and what happens when they are used. The only module that knows Gradio.

A button sends files to the API and shows an element named asr-..., which our scripts in own/ fill with progress, text
and downloads straight from the API. So no transcript passes through Gradio, and none is kept here.
"""

from __future__ import annotations

import os

# Before Gradio is imported: it would report its use to its makers, and look for newer versions.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from app.service.page.api import ApiClient, Caller, Sent
from app.service.page.elements import jobs_in, results
from app.service.page.holdings import KEEP_SECONDS, SWEEP_SECONDS, Holdings
from app.service.page.texts import FALLBACK, labels, load_texts
from app.service.settings import Settings

_FONTS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "sans-serif",
)
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
_UPLOADS_AT_ONCE = 4
# What a tab showed is remembered by the browser until that tab is closed, so that a reload loses nothing.
_REMEMBERED = "() => [window.sessionStorage.getItem('asr-jobs') || '{}']"


@dataclass(frozen=True)
class _Desk:
    """What the handlers work with."""

    settings: Settings
    api: ApiClient
    holdings: Holdings

    def caller(self, request: gr.Request) -> Caller:
        client = request.client
        return Caller(request.headers.get("authorization", ""), str(client.host) if client else "")


@dataclass(frozen=True)
class _Form:
    """The parts of one tab that belong together. `kind` is its name in holdings and in the browser."""

    kind: str
    files: gr.File | gr.Audio
    hotwords: gr.Textbox
    start: gr.Button
    clear: gr.Button
    fault: gr.HTML
    result: gr.HTML
    jobs: gr.State


def make_gradio_app(settings: Settings, api: ApiClient, holdings: Holdings) -> FastAPI:
    """An application with the page at /; its lifespan must be entered by the caller."""
    os.environ["GRADIO_TEMP_DIR"] = str(holdings.folder)
    words = gr.I18n(**labels(settings))
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        made,
        _blocks(_Desk(settings, api, holdings), words),
        path="/",
        i18n=words,
        theme=_theme(),
        max_file_size=settings.max_upload_bytes,
        footer_links=[],
        run_history=False,
        show_error=True,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    return made


def _theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="md", font=_FONTS, font_mono=_MONO
    )
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        block_shadow="none",
        body_background_fill="*neutral_50",
        # Grey and teal that can be read: 4.5 to 1 on their ground.
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        color_accent="*primary_700",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


def _blocks(desk: _Desk, words: gr.I18n) -> gr.Blocks:
    cache = (int(SWEEP_SECONDS), int(KEEP_SECONDS))
    with gr.Blocks(
        # Plain: Gradio translates no title. asr-header sets it in the browser's language.
        title=load_texts()[FALLBACK]["title"],
        analytics_enabled=False,
        delete_cache=cache,
        fill_width=False,
    ) as page:
        _html("<asr-header></asr-header>")
        with gr.Tabs():
            with gr.Tab(words("tab_file"), id="file"):
                one = _form(words, "file", _file(words, several=False))
            with gr.Tab(words("tab_batch"), id="batch"):
                many = _form(words, "batch", _file(words, several=True))
            with gr.Tab(words("tab_microphone"), id="microphone"):
                spoken = _form(words, "microphone", _microphone(words))
            with gr.Tab(words("tab_system"), id="system"):
                _html("<asr-system></asr-system>")
        for form in (one, many, spoken):
            _connect(desk, form)
        _connect_page(desk, page, (one, many, spoken))
    page.queue(api_open=False, default_concurrency_limit=_UPLOADS_AT_ONCE, max_size=200)
    blocks: gr.Blocks = page
    return blocks


def _file(words: gr.I18n, *, several: bool) -> gr.File:
    kind = "batch" if several else "file"
    made = gr.File(
        label=words(f"{kind}_label"),
        file_count="multiple" if several else "single",
        type="filepath",
        height=180,
        elem_id=f"{kind}-input",
    )
    # Gradio's own way leaves an empty temporary file behind for each file that a handler is given.
    made.preprocess = _names  # type: ignore[method-assign]
    return made


def _names(payload: Any) -> list[str]:
    """Paths of the files in a box, as Gradio has checked them."""
    if payload is None:
        return []
    files = payload.root if hasattr(payload, "root") else [payload]
    return [str(file.path) for file in files]


def _microphone(words: gr.I18n) -> gr.Audio:
    return gr.Audio(
        label=words("microphone_label"),
        sources=["microphone"],
        type="filepath",
        buttons=[],
        elem_id="microphone-input",
    )


def _html(text: str, name: str | None = None) -> gr.HTML:
    return gr.HTML(text, elem_id=name, elem_classes="asr-html", apply_default_css=False, js_on_load=None)


def _form(words: gr.I18n, kind: str, files: gr.File | gr.Audio) -> _Form:
    """A tab: the recording (made already), limits, hot words, buttons, and room for what comes of it."""
    _html(f'<asr-limits kind="{kind}"></asr-limits>')
    hotwords = gr.Textbox(
        label=words("hotwords_label"),
        info=words("hotwords_info"),
        placeholder=words("hotwords_placeholder"),
        lines=2,
        max_lines=8,
        elem_id=f"{kind}-hotwords",
    )
    with gr.Row():
        start = gr.Button(words("start"), variant="primary", scale=3, elem_id=f"{kind}-start")
        clear = gr.Button(words("clear"), scale=1, elem_id=f"{kind}-clear")
    fault = _html("", f"{kind}-fault")
    result = _html("", f"{kind}-result")
    return _Form(kind, files, hotwords, start, clear, fault, result, gr.State([]))


def _connect(desk: _Desk, form: _Form) -> None:
    several = form.kind == "batch"

    def holds(files: Any, request: gr.Request) -> None:
        desk.holdings.hold(_session(request), form.kind, _paths(files))

    async def send(files: Any, hotwords: str, old: list[str], request: gr.Request) -> tuple[Any, ...]:
        """Sends what was chosen. When nothing is accepted, what is shown stays, and the reason stands above it."""
        paths, caller = _paths(files), desk.caller(request)
        if not paths:
            return results("", [Sent("", code="no_file")]), gr.skip(), old, gr.skip()
        if several and len(paths) > desk.settings.page_batch_files:
            return results("", [Sent("", code="too_many_files")]), gr.skip(), old, gr.skip()
        sent = []
        for path in paths:
            missing = Sent(path.name, code="file_gone")
            sent.append(await desk.api.send(caller, path, hotwords) if path.is_file() else missing)
        jobs = [one.job for one in sent if one.job]
        if not jobs:
            return results("", sent), gr.skip(), old, gr.skip()
        await desk.api.forget(caller, old)
        if not several:
            return "", results(form.kind, sent, paths[0]), jobs, gr.skip()
        # A batch has no player: what is accepted is not needed here any more.
        desk.holdings.hold(_session(request), form.kind, ())
        return "", results(form.kind, sent), jobs, None

    async def clear(jobs: list[str], request: gr.Request) -> tuple[Any, ...]:
        desk.holdings.hold(_session(request), form.kind, ())
        await desk.api.forget(desk.caller(request), jobs)
        return None, "", "", "", []

    # Only what may take long goes through Gradio's queue: its browser side can lose an event that is sent just as the
    # one before it ends.
    form.files.change(holds, [form.files], None, show_progress="hidden", queue=False)
    form.start.click(
        send,
        [form.files, form.hotwords, form.jobs],
        [form.fault, form.result, form.jobs, form.files],
        show_progress="full",
        show_progress_on=form.start,
    )
    form.clear.click(
        clear,
        [form.jobs],
        [form.files, form.hotwords, form.fault, form.result, form.jobs],
        show_progress="hidden",
        queue=False,
    )


def _connect_page(desk: _Desk, page: gr.Blocks, forms: Sequence[_Form]) -> None:
    remembered = gr.Textbox(visible=False)

    def restore(text: str) -> tuple[Any, ...]:
        found = jobs_in(text)
        shown: list[Any] = []
        for form in forms:
            jobs = found.get(form.kind, [])
            sent = [Sent("", job=job) for job in jobs]
            shown += [results(form.kind, sent), jobs] if jobs else [gr.skip(), gr.skip()]
        return tuple(shown)

    def leave(request: gr.Request) -> None:
        desk.holdings.release(_session(request))

    outputs = [part for form in forms for part in (form.result, form.jobs)]
    page.load(restore, [remembered], outputs, js=_REMEMBERED, show_progress="hidden", queue=False)
    page.unload(leave)


def _session(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _paths(files: Any) -> list[Path]:
    if not files:
        return []
    return [Path(str(file)) for file in (files if isinstance(files, list) else [files])]
