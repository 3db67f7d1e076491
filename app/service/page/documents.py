"""The HTML documents of the page: Gradio's, made to load nothing from elsewhere, and two small ones of our own.

Scripts run only with a number that is made anew for each document, so that no text that gets into the page can be one.
"""

from __future__ import annotations

import re
from html import escape

from app.service.page.texts import FALLBACK, load_texts

# Gradio compiles small functions of its own from text ('unsafe-eval') and sets styles on elements ('unsafe-inline').
_CSP = (
    "default-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; connect-src 'self' blob: data:; "
    "font-src 'self' data:; img-src 'self' data: blob:; media-src 'self' blob:; manifest-src 'none'; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; script-src 'self' 'unsafe-eval' 'nonce-{nonce}'"
)
_CSP_OF_OWN = (
    "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
# What people upload comes back to them for their player; should it be a document, it can do nothing.
CSP_OF_FILES = "default-src 'none'; media-src 'self'; sandbox"
PERMISSIONS = "microphone=(self), camera=(), geolocation=(), display-capture=()"
# Pictures, cards and a manifest that Gradio offers to others; they lie elsewhere, or at the root of the host.
_FOREIGN = re.compile(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>|<link rel="manifest"[^>]*>')
_OWN_TAGS = (
    '<meta name="color-scheme" content="light dark" />'
    '<link rel="icon" type="image/svg+xml" href="./own/icon.svg" />'
    '<link rel="stylesheet" href="./own/page.css" />'
    '<script type="module" src="./own/main.js"></script>'
)

Document = tuple[str, int, dict[str, str]]


def csp_of_page(nonce: str) -> str:
    """The Content-Security-Policy of Gradio's document."""
    return _CSP.format(nonce=nonce)


def language_of(accepted: str) -> str:
    """The language for a value of Accept-Language: of the first one named that we have."""
    for part in accepted.split(","):
        code = part.split(";")[0].strip().split("-")[0].casefold()
        if code in {"zh", "en"}:
            return code
    return FALLBACK


def document_of(html: str, nonce: str, accepted: str, *, with_keys: bool) -> str:
    """Gradio's document: nothing foreign in it, our scripts and style added, every script marked with the nonce."""
    language = language_of(accepted)
    html = _FOREIGN.sub("", html)
    html = html.replace('lang="en"', f'lang="{_code(language)}" data-keys="{int(with_keys)}"', 1)
    html = html.replace("</head>", _OWN_TAGS + "</head>", 1)
    return html.replace("<script", f'<script nonce="{nonce}"')


def login_document(accepted: str, *, wrong: bool) -> Document:
    """Asks for the API key."""
    language = language_of(accepted)
    texts = load_texts()[language]
    fault = f'<p class="fault" role="alert">{escape(texts["login_wrong"])}</p>' if wrong else ""
    body = (
        f"<h1>{escape(texts['title'])}</h1><p>{escape(texts['login_intro'])}</p>{fault}"
        '<form method="post" action="./session">'
        f'<label for="key">{escape(texts["login_key"])}</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required autofocus />'
        f'<button type="submit">{escape(texts["login_enter"])}</button></form>'
        f"<p class=hint>{escape(texts['login_kept'])}</p>"
    )
    # The form may have been answered at ./session; relative addresses must mean the same there.
    return _document(language, texts["title"], body), 401, {"Content-Security-Policy": _CSP_OF_OWN}


def waiting_document(accepted: str) -> Document:
    """Shown until Gradio is loaded; asks again by itself."""
    language = language_of(accepted)
    texts = load_texts()[language]
    body = f"<h1>{escape(texts['title'])}</h1><p role=status>{escape(texts['page_loading'])}</p>"
    refresh = '<meta http-equiv="refresh" content="1" />'
    headers = {"Content-Security-Policy": _CSP_OF_OWN, "Retry-After": "1"}
    return _document(language, texts["title"], body, refresh), 200, headers


def _document(language: str, title: str, body: str, head: str = "") -> str:
    return (
        f'<!doctype html><html lang="{_code(language)}"><head><meta charset="utf-8" />'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />'
        f'{head}<title>{escape(title)}</title><link rel="icon" type="image/svg+xml" href="./own/icon.svg" />'
        '<link rel="stylesheet" href="./own/plain.css" /></head>'
        f"<body><main>{body}</main></body></html>"
    )


def _code(language: str) -> str:
    return "zh-CN" if language == "zh" else "en"
