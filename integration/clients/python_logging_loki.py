"""python-logging-loki pushes through Python's logging, in the current form and in the one of old Loki versions."""

import logging
import sys

import logging_loki

import answers

AWKWARD = ["plain", 'say "hi"', "tab\there", "back\\slash", "two\nlines", "grüße 日本語 👩‍👩‍👧", "<b>&amp;</b>", "", "x" * 5000]


def push(url, path, version):
    app = f"python-logging-loki-{version}"
    handler = logging_loki.LokiHandler(url=url + path, tags={"app": app}, version=version)
    refused = []
    handler.handleError = lambda record: refused.append((record.getMessage(), sys.exc_info()[1]))
    logger = logging.getLogger(app)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    wanted = AWKWARD + [f"line {i}" for i in range(50)]
    for i, line in enumerate(wanted):
        logger.log(logging.ERROR if i % 2 else logging.INFO, "%s", line, extra={"tags": {"release": "v1"}})
    if refused:
        raise SystemExit(f"{app}: {len(refused)} lines were refused, the first: {refused[0]}")

    def check_labels(labels):
        assert labels["app"] == app and labels["service_name"] == app and labels["release"] == "v1", labels
        assert labels["severity"] in ("info", "error"), labels

    answers.expect(url, f'{{app="{app}"}}', wanted, check_labels)
    errors = [line for i, line in enumerate(wanted) if i % 2 and "line 1" in line]
    answers.expect(url, f'{{app="{app}", severity="error"}} |= "line 1"', errors)


if __name__ == "__main__":
    push(sys.argv[1], "/loki/api/v1/push", "1")
    push(sys.argv[1], "/api/prom/push", "0")
