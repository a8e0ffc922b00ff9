import subprocess
import sys

PROJECT = {"centavo", "billing", "config", "db", "payments", "services", "tasks", "worker", "api", "cli", "sandbox"}
REFERENCE_POINTS = ["bench.workload", "bench.measure", "bench.ceiling", "bench.naive.worker", "bench.naive.record"]


def test_the_reference_points_load_nothing_of_the_project_that_they_are_compared_with() -> None:
    program = f"import sys, {', '.join(REFERENCE_POINTS)}; print(*sys.modules)"

    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "bench" in loaded
    assert loaded & PROJECT == set()
