import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { isDecisionId } from '../audit/columns.ts';
import type { LoggedMetadata } from '../wire/access_log.ts';

/** What a proxy was told with the decision about a call, as it comes back with the call. */
export type DecisionNote = {
  readonly decisionId: string;
  readonly verdict: string;
  readonly rule: string;
  /** Whether the decision has a record of its own: always for a denial. */
  readonly isRecorded: boolean;
};

/**
 * Reads what `ext-authz/response.ts` gave the proxy out of the metadata of its entry. Undefined when nobody was asked.
 * Callers cannot write there: the filter of the proxy alone does.
 */
export function readDecisionNote(metadata: LoggedMetadata | undefined): DecisionNote | undefined {
  const space = metadata?.filterMetadata.find(({ key }) => filters.has(key));
  if (space === undefined) return undefined;
  const { decisionId, verdict, rule, isRecorded } = readFields(space.value);
  // A denial that could not be encoded has none.
  if (!isDecisionId(decisionId)) return undefined;
  return { decisionId, verdict, rule, isRecorded: verdict !== 'allow' || isRecorded };
}

/**
 * Of a google.protobuf.Struct the few fields that are of use: it comes with each call, and most of it is for others. What a
 * length inside says is believed as far as the bytes go.
 */
function readFields(struct: Buffer): Written<DecisionNote> {
  const note = { decisionId: '', verdict: '', rule: '', isRecorded: false };
  const reader = new BinaryReader(struct);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1 && wireType === WireType.LengthDelimited) readField(struct, reader, note);
    else reader.skip(wireType, field);
  }
  return note;
}

/** An entry of the map: a name and a google.protobuf.Value, in this order. */
function readField(struct: Buffer, reader: BinaryReader, note: Written<DecisionNote>): void {
  const end = enter(reader);
  let name = '';
  while (reader.pos < end) {
    const [field, wireType] = reader.tag();
    if (wireType !== WireType.LengthDelimited || field > 2) reader.skip(wireType, field);
    else if (field === 1) name = textOf(struct, reader);
    else if (wanted.has(name)) readValue(struct, reader, name, note);
    else reader.pos = enter(reader);
  }
}

function readValue(struct: Buffer, reader: BinaryReader, name: string, note: Written<DecisionNote>): void {
  const end = enter(reader);
  while (reader.pos < end) {
    const [field, wireType] = reader.tag();
    if (field === stringValue && wireType === WireType.LengthDelimited && name !== 'recorded') {
      const text = textOf(struct, reader);
      if (name === 'decision_id') note.decisionId = text;
      else if (name === 'verdict') note.verdict = text;
      else note.rule = text;
    } else if (field === boolValue && wireType === WireType.Varint && name === 'recorded') {
      note.isRecorded = reader.bool();
    } else reader.skip(wireType, field);
  }
}

/** Where what has its length here ends. */
function enter(reader: BinaryReader): number {
  const length = reader.uint32();
  return Math.min(reader.len, reader.pos + length);
}

function textOf(struct: Buffer, reader: BinaryReader): string {
  const end = enter(reader);
  const text = struct.toString('utf8', reader.pos, end);
  reader.pos = end;
  return text;
}

type Written<T> = { -readonly [K in keyof T]: T[K] };

const wanted: ReadonlySet<string> = new Set(['decision_id', 'verdict', 'rule', 'recorded']);
const [stringValue, boolValue] = [3, 4];
const filters: ReadonlySet<string> = new Set([
  'envoy.filters.http.ext_authz',
  'envoy.filters.network.ext_authz',
]);
