"""The CT-Transformer network for inference: embeddings of tokens in, scores of punctuation marks out.

CT-Transformer (arXiv 2003.01309) with the SAN-M layers of model.py. Module names are FunASR's own, so its state dicts
load as they are. Which tokens are looked at together, and what follows from the scores, is marks.py's part.
"""

from __future__ import annotations

from torch import Tensor, nn

from app.asr.architecture import PunctuationShape
from app.asr.model import Encoder


class PunctuationNetwork(nn.Module):
    """Table, encoder and head; the table is looked up apart, so that a pack need not hold it in memory."""

    def __init__(self, shape: PunctuationShape) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary_size, shape.feature_size)
        self.encoder = Encoder(shape)
        self.decoder = nn.Linear(shape.size, len(shape.marks))

    def forward(self, rows: Tensor) -> Tensor:
        """rows (1, N, width), the embeddings of N tokens -> scores (1, N, marks)."""
        scores: Tensor = self.decoder(self.encoder(rows, None))
        return scores
