import {
  type ExportRecord,
  type ExportSeverity,
  type ExportSource,
  readExportHead,
} from './export-record.ts';

type AnyValue =
  { readonly stringValue: string } | { readonly intValue: string } | { readonly boolValue: boolean };
type Attribute = { readonly key: string; readonly value: AnyValue };

/**
 * Records as one ExportLogsServiceRequest in the JSON encoding of OTLP: what is posted to `/v1/logs`, and a line of the file
 * format. The body of each is the exact text of the leaf.
 * @see OpenTelemetry protocol 1.x, opentelemetry/proto/logs/v1/logs.proto
 */
export function toOtlpLogs(
  records: readonly ExportRecord[],
  { origin, version }: ExportSource,
): Record<string, unknown> {
  return {
    resourceLogs: [
      {
        resource: {
          attributes: [
            text('service.name', 'countersign'),
            text('service.version', version),
            text('countersign.audit.origin', origin),
          ],
        },
        scopeLogs: [{ scope: { name: 'countersign.audit', version }, logRecords: records.map(logRecord) }],
      },
    ],
  };
}

function logRecord(record: ExportRecord): Record<string, unknown> {
  const { index, leafHash, leaf, event, personal } = record;
  const { type, timeMs, code, subject, severity } = readExportHead(record);
  const [severityNumber, severityText] = severities[severity];
  // Nanoseconds, as text: JSON numbers do not hold them.
  const nanos = `${BigInt(timeMs) * 1_000_000n}`;
  const fields = Object.entries(event).flatMap(([name, value]) => {
    const scalar = name === 'v' || name === 'type' || name === 'time' ? undefined : scalarOf(value);
    return scalar === undefined ? [] : [{ key: `countersign.audit.event.${name}`, value: scalar }];
  });
  return {
    timeUnixNano: nanos,
    observedTimeUnixNano: nanos,
    severityNumber,
    severityText,
    eventName: `countersign.audit.${type}`,
    body: { stringValue: leaf },
    attributes: [
      { key: 'countersign.audit.index', value: { intValue: `${index}` } },
      text('countersign.audit.leaf_hash', leafHash),
      text('countersign.audit.code', code),
      text('countersign.audit.subject', subject),
      ...fields,
      ...Object.entries(personal).map(([name, value]) => text(`countersign.audit.personal.${name}`, value)),
    ] satisfies readonly Attribute[],
  };
}

/** Lists and objects are in the body alone. */
function scalarOf(value: unknown): AnyValue | undefined {
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  return Number.isSafeInteger(value) ? { intValue: `${value as number}` } : undefined;
}

function text(key: string, value: string): Attribute {
  return { key, value: { stringValue: value } };
}

// SeverityNumber of logs.proto: INFO, INFO2, WARN, ERROR.
const severities: Record<ExportSeverity, readonly [number, string]> = {
  info: [9, 'INFO'],
  low: [10, 'INFO2'],
  medium: [13, 'WARN'],
  high: [17, 'ERROR'],
};
