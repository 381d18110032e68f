import { hash } from 'node:crypto';
import { MeshError } from '../errors.ts';
import { canonicalJson } from './canonical-json.ts';
import type { AuditEvent, Personal } from './event.ts';
import { personalFieldsOf } from './fields.ts';
import { fitEvent } from './fit.ts';

/** The most bytes of a leaf: tlog-tiles bundles prefix each with a 16-bit length (c2sp.org/tlog-tiles). */
export const maxLeafBytes = 65_535;

/** What opens a commitment: kept beside the log, deleted when a person asks to be forgotten. */
export type PersonalValue = {
  readonly field: string;
  /** 32 bytes, lower-case hex. */
  readonly salt: string;
  /** As committed to: well-formed and cut to its limit. */
  readonly value: string;
};

/** An event as it is stored. */
export type EncodedEvent = {
  /** The event as it was encoded: see `fitEvent`. */
  readonly fitted: AuditEvent;
  readonly leaf: Uint8Array;
  readonly personal: readonly PersonalValue[];
};

/**
 * Encodes an event as the bytes of a leaf, version 1: canonical JSON of the fitted event (see `fitEvent`) with `"v":1`,
 * times as RFC 3339 in UTC with milliseconds, and each personal field as
 * `{"commitment": hex SHA-256(salt || UTF-8 value)}`. Personal fields are salted in the order of their names.
 * @param randomBytes called with 32 once for each personal field
 * @throws MeshError `audit_event_too_large` over 65,535 bytes, which no event of this version is; `internal` for a
 *   value JSON cannot hold or a time outside the years 0 to 9999
 */
export function encodeEvent(event: AuditEvent, randomBytes: (count: number) => Uint8Array): EncodedEvent {
  const fitted = fitEvent(event);
  const members: Record<string, unknown> = { ...fitted, v: 1 };
  for (const name of Object.keys(members)) {
    const value = members[name];
    if (value instanceof Date) members[name] = formatTime(value);
  }
  const personal = personalFieldsOf(event.type).map((field) => {
    const committed = commit(field, members[field] as Personal, randomBytes(saltBytes));
    members[field] = { commitment: committed.commitment };
    return committed.opened;
  });
  // Bytes of their own: a view into a shared pool would take the pool along between threads.
  const leaf = encoder.encode(canonicalJson(members));
  if (leaf.length > maxLeafBytes) {
    throw new MeshError(
      'audit_event_too_large',
      `an audit event of ${leaf.length} bytes is over the limit of ${maxLeafBytes}`,
    );
  }
  return { fitted, leaf, personal };
}

/** SHA-256(salt || UTF-8 value), lower-case hex: what a leaf holds in place of a personal value. */
export function commitment(salt: Uint8Array, value: string): string {
  const text = Buffer.from(value, 'utf8');
  const opened = Buffer.allocUnsafe(salt.length + text.length);
  opened.set(salt);
  opened.set(text, salt.length);
  return hash('sha256', opened, 'hex');
}

function commit(
  field: string,
  value: Personal,
  salt: Uint8Array,
): { commitment: string; opened: PersonalValue } {
  if (salt.length !== saltBytes) {
    throw new MeshError('internal', `a salt has ${salt.length} bytes instead of ${saltBytes}`);
  }
  const text = value.personal.toWellFormed();
  return {
    commitment: commitment(salt, text),
    opened: { field, salt: hexOf(salt), value: text },
  };
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}

function formatTime(time: Date): string {
  const text = Number.isNaN(time.getTime()) ? '' : time.toISOString();
  if (text.length !== 'yyyy-mm-ddThh:mm:ss.sssZ'.length) {
    throw new MeshError('internal', 'an audit event holds a time outside the years 0 to 9999');
  }
  return text;
}

const encoder = new TextEncoder();
const saltBytes = 32;
