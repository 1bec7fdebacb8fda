"""The API keeps to its own OpenAPI document, whatever is asked: schemathesis makes the requests.

Right ones and wrong ones of every operation, with the token and without. Each answer has a status
and a form that the document has, and none is a failure.
"""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from streams import connect
from tests.engine.histories import entries, history, run
from tests.engine.test_api import BEARER, Stand

STAND = Stand(connect("memory://schema"))
run(STAND.core, entries(*history(80)))
STAND.show()
schema = schemathesis.openapi.from_dict(STAND.app.openapi())
schema.app = STAND.app


@schema.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_the_document_says(case: Case) -> None:
    for headers in (BEARER, {}):
        case.call_and_validate(
            base_url="http://127.0.0.1",
            headers=headers,
            # No schema says all: no year 0, no command without its arguments.
            excluded_checks=[positive_data_acceptance],
        )
