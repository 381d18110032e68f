import { type ExportRecord, type ExportSource, readExportHead } from './export-record.ts';

/**
 * A record as a CloudEvent in the JSON event format. `id` is the index of the entry, so that `source` and `id` name one entry;
 * `leafhash` is what proves it.
 * @see CloudEvents 1.0.2, JSON event format 1.0.2
 */
export function toCloudEvent(record: ExportRecord, { origin }: ExportSource): Record<string, unknown> {
  const { index, leafHash, event, personal } = record;
  const { type, time, subject } = readExportHead(record);
  return {
    specversion: '1.0',
    id: `${index}`,
    source: sourceOf(origin),
    type: `countersign.audit.${type}`,
    // An attribute is never empty.
    ...(subject === '' ? {} : { subject: visible(subject) }),
    time,
    datacontenttype: 'application/json',
    leafhash: leafHash,
    data: Object.keys(personal).length === 0 ? { event } : { event, personal },
  };
}

/** A URI reference. A colon in the first step would make a scheme of it. */
function sourceOf(origin: string): string {
  const encoded = encodeURI(origin);
  return /^[^/]*:/.test(encoded) ? `./${encoded}` : encoded;
}

/** Attributes of type String hold no control characters. */
function visible(text: string): string {
  return text.replace(/\p{Cc}/gu, '\ufffd');
}
