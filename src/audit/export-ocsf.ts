import { type ExportRecord, type ExportSource, isKnown, readExportHead } from './export-record.ts';
import type { OcsfEvent } from './export-ocsf-event.ts';
import { readFields } from './export-ocsf-fields.ts';
import { ocsfMappings, unknownEvent } from './export-ocsf-mappings.ts';

/** The version of the schema that records are written in. */
export const ocsfVersion = '1.8.0';

/**
 * A record as an OCSF event. `metadata.uid` is the hash of the leaf and `metadata.sequence` its index; `raw_data` is the exact
 * text of the leaf. What the class has no place for is in `unmapped`.
 * @see https://schema.ocsf.io/1.8.0
 */
export function toOcsf(record: ExportRecord, { origin, version }: ExportSource): Record<string, unknown> {
  const { index, leafHash, leaf } = record;
  const { type, time, timeMs, code, subject, severity } = readExportHead(record);
  const fields = readFields(record);
  const { ocsfClass, activity, status, profiles, ...body }: OcsfEvent = isKnown(type)
    ? ocsfMappings[type](fields)
    : unknownEvent();
  const { uid, category, name } = ocsfClass;
  const correlation = fields.text('decisionId');
  const [severityId, severityName] = severities[severity];
  const [activityId, activityName] = activity;
  return {
    ...body.members,
    category_uid: category,
    class_uid: uid,
    class_name: name,
    activity_id: activityId,
    activity_name: activityName,
    type_uid: uid * 100 + activityId,
    severity_id: severityId,
    severity: severityName,
    status_id: status === 'success' ? 1 : 2,
    status: status === 'success' ? 'Success' : 'Failure',
    time: timeMs,
    message: [code, subject].filter((part) => part !== '').join(' '),
    metadata: {
      version: ocsfVersion,
      product: { name: 'Countersign', vendor_name: 'Countersign', version },
      uid: leafHash,
      sequence: index,
      event_code: code,
      log_name: origin,
      original_time: time,
      ...(correlation === '' ? {} : { correlation_uid: correlation }),
      ...(profiles === undefined ? {} : { profiles }),
    },
    raw_data: leaf,
    unmapped: fields.rest(),
  };
}

const severities = {
  info: [1, 'Informational'],
  low: [2, 'Low'],
  medium: [3, 'Medium'],
  high: [4, 'High'],
} as const;
