"""What rows that enter a cached causal sequence are: rows to commit, then questions about the next row."""

import attrs
import torch
from jaxtyping import Bool
from torch import Tensor


@attrs.frozen(kw_only=True)
class NextRows:
    """Rows to commit, whose own next position is final, followed by candidates for the row after them.

    Each row sees all committed rows before it and itself; questions do not see each other. So every row gets what it
    would get in the causal pass over the committed rows and itself. The first question is committed as well, since the
    token it asks about usually comes next; `KeyValueCache.forget_last` takes that back.
    """

    num_rows: int
    num_questions: int

    @property
    def num_committed(self) -> int:
        """Rows that stay in the cache: all but the questions after the first."""
        return self.num_rows - max(0, self.num_questions - 1)

    def mask(self, num_cached: int, device: torch.device) -> Bool[Tensor, "rows all_rows"] | None:
        """Which of the cached rows and these each of these sees; None if that is all of them, for a single row."""
        if self.num_rows == 1:
            return None
        sees = torch.ones(self.num_rows, num_cached + self.num_rows, dtype=torch.bool, device=device)
        sees = sees.tril(diagonal=num_cached)
        first_question = self.num_rows - self.num_questions
        sees[first_question:, num_cached + first_question :] = torch.eye(
            self.num_questions, dtype=torch.bool, device=device
        )
        return sees
