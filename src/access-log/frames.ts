import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';

/** One entry of a message, not decoded yet. */
export type Frame = { readonly kind: 'http' | 'tcp'; readonly bytes: Uint8Array };

/**
 * The entries of an `envoy.service.accesslog.v3.StreamAccessLogsMessage`, one after the other as they are asked for: a
 * message may hold a hundred thousand, and whoever reads them has others to serve between.
 * @throws Error where the message is none
 */
export function* framesOf(message: Uint8Array): Generator<Frame, void> {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    const kind = kinds.get(field);
    if (kind === undefined || wireType !== WireType.LengthDelimited) reader.skip(wireType, field);
    else yield* entriesOf(kind, reader.bytes());
  }
}

function* entriesOf(kind: Frame['kind'], entries: Uint8Array): Generator<Frame, void> {
  const reader = new BinaryReader(entries);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === logEntry && wireType === WireType.LengthDelimited) yield { kind, bytes: reader.bytes() };
    else reader.skip(wireType, field);
  }
}

const kinds: ReadonlyMap<number, Frame['kind']> = new Map([
  [2, 'http'],
  [3, 'tcp'],
]);
const logEntry = 1;
