"""The log exporter of OpenTelemetry's Python SDK pushes protobuf over HTTP, plain and compressed."""

import logging
import sys
import warnings

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

import answers

warnings.filterwarnings("ignore", category=DeprecationWarning)


def push(url, name, compression):
    service = f"otlp-{name}"
    provider = LoggerProvider(resource=Resource.create({"service.name": service, "host.name": "test-host"}))
    exporter = OTLPLogExporter(endpoint=f"{url}/otlp/v1/logs", compression=compression)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = logging.getLogger(service)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(LoggingHandler(logger_provider=provider))
    wanted = [f"record {i} grüße" for i in range(200)]
    for i, line in enumerate(wanted):
        logger.log(logging.WARNING if i % 4 == 0 else logging.INFO, line, extra={"order.id": f"o-{i}"})
    if not provider.force_flush():
        raise SystemExit(f"{service}: the exporter could not deliver")
    provider.shutdown()

    def check_labels(labels):
        assert labels["service_name"] == service and labels["host_name"] == "test-host", labels
        assert labels["severity_text"] in ("INFO", "WARN", "WARNING") and labels["order_id"].startswith("o-"), labels
        assert labels["detected_level"] == {"9": "info", "13": "warn"}[labels["severity_number"]], labels

    selector = f'{{service_name="{service}"}}'
    answers.expect(url, selector, wanted, check_labels)
    answers.expect(url, f'{selector} | order_id="o-7"', [wanted[7]])
    answers.expect(url, f'{selector} | detected_level="warn"', wanted[::4])


if __name__ == "__main__":
    push(sys.argv[1], "plain", Compression.NoCompression)
    push(sys.argv[1], "gzip", Compression.Gzip)
