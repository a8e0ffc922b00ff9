"""What every path of the API has in common."""

import requests


def look(url: str, method: str = "GET") -> tuple[int, object]:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, url, timeout=15)
        return answer.status_code, answer.json()


def test_health_says_that_the_process_answers(api: str) -> None:
    assert look(f"{api}/health") == (200, {"status": "ok"})


def test_an_unknown_path_is_an_error_in_the_one_shape(api: str) -> None:
    status, problem = look(f"{api}/nowhere")

    assert (status, problem) == (
        404,
        {
            "type": "urn:centavo:problem:not_found",
            "title": "Not Found",
            "status": 404,
            "detail": "Not Found",
            "code": "not_found",
        },
    )


def test_a_wrong_method_is_an_error_in_the_one_shape(api: str) -> None:
    status, problem = look(f"{api}/webhooks/stripe")

    assert isinstance(problem, dict)
    assert (status, problem["code"]) == (405, "method_not_allowed")


def test_there_are_no_pages_that_load_scripts_from_elsewhere(api: str) -> None:
    assert [look(f"{api}/{path}")[0] for path in ("docs", "redoc")] == [404, 404]
