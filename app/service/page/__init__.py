"""The page for people: Gradio's tabs and uploads around the HTTP API, in Chinese and English.

What is here asks the HTTP API like any other client; nothing here knows the engine or the job store. The parts:

    gate.py         what is served below /ui, and to whom
    documents.py    its HTML documents, made to load nothing from elsewhere
    blocks.py       tabs, buttons and what they do; the only module that knows Gradio
    elements.py     what passes between those handlers and our scripts
    api.py          requests to our own API
    holdings.py     files that Gradio keeps, and when they go
    zipping.py      the transcripts of a batch as one archive
    texts.py        words and languages
    own/            the scripts, the style and the texts that a browser gets
"""
