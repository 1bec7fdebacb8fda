"""What each column adds to the champion's log odds: exact TreeSHAP, as LightGBM computes it.

Lundberg et al. (2020), *From local explanations to global understanding with explainable AI for
trees*, Nature Machine Intelligence 2.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from learners.encoding import pad
from learners.lean_lightgbm import lightgbm


def shapley(text: str, row: NDArray[np.float64]) -> tuple[list[float], float]:
    """Each column's Shapley value and the model's expected value, in log odds.

    They sum to the raw score of `row` by the model in `text`, on float32 as the champion is asked.
    """
    booster = lightgbm.Booster(model_str=text)
    asked = pad(row, booster.num_feature()).astype(np.float32)
    values = cast(
        NDArray[np.float64],
        booster.predict(asked[np.newaxis, :], pred_contrib=True, num_threads=1),
    )
    *terms, expected = values[0].tolist()
    return terms, expected
