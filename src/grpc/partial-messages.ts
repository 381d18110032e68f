import type { Http2Stream } from 'node:http2';
import { MeshError } from '../errors.ts';

/** How many bytes of messages that have not come to their end are held, of all streams that are watched. */
export type PartialMessages = {
  /**
   * Counts what a stream of gRPC holds of a message, until it ends.
   * @param call of grpc-js, of which nothing was read yet
   * @param onFull called once, when there is no room for what has come; then `cut` is to be called
   * @returns `cut` ends the stream, and gives free what it holds, once it has been answered
   * @throws MeshError `internal` for a call whose stream cannot be found
   */
  readonly watch: (call: object, uid: number, onFull: () => void) => { readonly cut: () => void };
  readonly held: () => number;
};

/**
 * A budget of bytes for messages that are on their way: grpc-js holds what it has of each, up to the largest message, for as
 * long as its stream is open. Streams that are paused in the middle of a message hold theirs rightly, so the bounds are to leave
 * them room.
 * @param limits of one uid, and of all
 */
export function createPartialMessages(limits: {
  readonly bytesPerUid: number;
  readonly bytes: number;
}): PartialMessages {
  const perUid = new Map<number, number>();
  let all = 0;
  const add = (uid: number, bytes: number): boolean => {
    const ofUid = (perUid.get(uid) ?? 0) + bytes;
    all += bytes;
    if (ofUid > 0) perUid.set(uid, ofUid);
    else perUid.delete(uid);
    return ofUid <= limits.bytesPerUid && all <= limits.bytes;
  };
  return {
    held: () => all,
    watch: (call, uid, onFull) => {
      const stream = streamOf(call);
      const message = createMessageGauge();
      let isOver = false;
      let isFull = false;
      const held = (bytes: number): void => {
        if (isOver || add(uid, bytes) || bytes <= 0 || isFull) return;
        isFull = true;
        onFull();
      };
      stream.on('data', (chunk: Buffer) => {
        if (!isFull) held(message.grow(chunk));
      });
      stream.once('close', () => {
        held(-message.held());
        isOver = true;
      });
      return { cut: () => void setImmediate(() => stream.close()) };
    },
  };
}

/** Follows the frames of a stream: a byte, a length of four and the message (gRPC over HTTP/2, Length-Prefixed-Message). */
function createMessageGauge() {
  let [header, size, body] = [0, 0, 0];
  return {
    /** What there is of the message that has not come to its end. */
    held: () => header + body,
    /** @returns how much more, or less, is held with these bytes */
    grow: (chunk: Uint8Array): number => {
      const before = header + body;
      for (let at = 0; at < chunk.length;) {
        if (header < headerBytes) {
          if (header > 0) size = size * 256 + (chunk[at] ?? 0);
          header += 1;
          at += 1;
        } else {
          const more = Math.min(size - body, chunk.length - at);
          body += more;
          at += more;
        }
        if (header === headerBytes && body === size) [header, size, body] = [0, 0, 0];
      }
      return header + body - before;
    },
  };
}

/** The stream of HTTP/2 below a call. grpc-js has no other way to it; a version that has it elsewhere serves nobody here. */
function streamOf(call: object): Http2Stream {
  let at: unknown = Reflect.get(call, 'call');
  for (let depth = 0; depth < maxDepth && typeof at === 'object' && at !== null; depth++) {
    const stream: unknown = Reflect.get(at, 'stream');
    if (isStream(stream)) return stream;
    at = Reflect.get(at, 'nextCall');
  }
  throw new MeshError('internal', 'a call has no stream that can be watched');
}

function isStream(value: unknown): value is Http2Stream {
  return typeof value === 'object' && value !== null && 'rstCode' in value && 'session' in value;
}

const headerBytes = 5;
const maxDepth = 8;
