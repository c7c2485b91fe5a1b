"""What a server holds, asked with nothing but the standard library."""

import json
import time
import urllib.parse
import urllib.request

DEADLINE_SECONDS = 30


def lines(url, query):
    """The lines that `query` finds within the last hour, oldest first, as (labels, line)."""
    now = time.time_ns()
    params = {
        "query": query,
        "start": now - 3_600_000_000_000,
        "end": now + 600_000_000_000,
        "limit": 5000,
        "direction": "forward",
    }
    with urllib.request.urlopen(f"{url}/loki/api/v1/query_range?{urllib.parse.urlencode(params)}", timeout=30) as answer:
        result = json.load(answer)["data"]["result"]
    found = [(int(ts), stream["stream"], line) for stream in result for ts, line, *_ in stream["values"]]
    return [(labels, line) for _, labels, line in sorted(found, key=lambda entry: entry[0])]


def expect(url, query, wanted, check_labels=lambda labels: None):
    """Waits until `query` finds exactly the lines `wanted`, in any order; fails otherwise."""
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = lines(url, query)
        if sorted(line for _, line in found) == sorted(wanted):
            break
        if time.monotonic() > end:
            got = {line for _, line in found}
            missing = [line for line in wanted if line not in got]
            raise SystemExit(f"{query}: wanted {len(wanted)} lines, found {len(found)}; missing {missing[:3]}")
        time.sleep(0.05)
    for labels, _ in found:
        check_labels(labels)
    print(f"ok: {query}: {len(found)} lines")
