import type { sendUnaryData, ServerReadableStream } from '@grpc/grpc-js';
import { MeshError } from '../errors.ts';
import type { UnixPeer } from '../identity/evidence.ts';
import { peerOf } from './connections.ts';
import { createPartialMessages } from './partial-messages.ts';
import { grpcFailure } from './status.ts';

/** How much streams of a service may take up. */
export type ClientStreamLimits = {
  readonly streamsPerConnection: number;
  readonly streams: number;
  /** Of messages that have not come to their end, on the streams of one uid. */
  readonly partialBytesPerUid: number;
  /** The same of all streams. */
  readonly partialBytes: number;
};

/** The messages of one stream, of which the next is taken off the connection when it is asked for. */
export type ClientMessages = {
  /**
   * The next message, or how the stream ended.
   * @throws MeshError `stream_limit` when too much has come that is not whole
   */
  readonly next: () => Promise<Buffer | 'end' | 'broken'>;
  /** Whether it was cut off, which is said a little after its end. */
  readonly isCut: () => boolean;
};

/** The streams of a service whose clients tell and are told nothing. */
export type ClientStreams = {
  /**
   * Serves a stream until `take` is done with it: OK, with an empty message, or what `take` throws.
   * Fails with `stream_limit` and `shutting_down` by itself.
   */
  readonly serve: (
    call: ServerReadableStream<Buffer, Buffer>,
    callback: sendUnaryData<Buffer>,
    take: (messages: ClientMessages, peer: UnixPeer) => Promise<void>,
  ) => Promise<void>;
  /** Ends every stream, and refuses any other. */
  readonly close: () => void;
};

/**
 * Admits the streams of a service and bounds what they hold.
 * @param options `report` is told of failures of ours, `crowded` of a stream that is ended for what it holds
 */
export function createClientStreams(options: {
  readonly limits: ClientStreamLimits;
  readonly report: (error: unknown) => void;
  readonly crowded?: (peer: UnixPeer, error: MeshError) => void;
}): ClientStreams {
  const { limits, report, crowded = () => undefined } = options;
  const partial = createPartialMessages({
    bytesPerUid: limits.partialBytesPerUid,
    bytes: limits.partialBytes,
  });
  const perConnection = new Map<string, number>();
  const open = new Set<Pull>();
  let isClosed = false;

  function admit(pull: Pull, { connectionId }: UnixPeer): () => void {
    if (isClosed) throw new MeshError('shutting_down', 'the service is shutting down');
    const ofConnection = perConnection.get(connectionId) ?? 0;
    if (open.size >= limits.streams || ofConnection >= limits.streamsPerConnection) {
      throw new MeshError('stream_limit', `the connection has ${ofConnection} streams open`);
    }
    open.add(pull);
    perConnection.set(connectionId, ofConnection + 1);
    return () => {
      open.delete(pull);
      const left = (perConnection.get(connectionId) ?? 1) - 1;
      if (left > 0) perConnection.set(connectionId, left);
      else perConnection.delete(connectionId);
    };
  }

  return {
    serve: async (call, callback, take) => {
      let leave: (() => void) | undefined;
      let cut: (() => void) | undefined;
      const pull = openPull(call);
      try {
        const peer = peerOf(call);
        leave = admit(pull, peer);
        const watched = partial.watch(call, peer.uid, () => {
          ({ cut } = watched);
          const error = new MeshError('stream_limit', 'too many messages are on their way and not whole');
          crowded(peer, error);
          pull.refuse(error);
        });
        await take(pull, peer);
        callback(null, Buffer.alloc(0));
      } catch (error) {
        if (!(error instanceof MeshError) || error.kind === 'internal') report(error);
        callback(grpcFailure(error));
      } finally {
        leave?.();
        cut?.();
      }
    },
    close: () => {
      isClosed = true;
      for (const pull of open) pull.stop();
    },
  };
}

type Pull = ClientMessages & {
  /** Ends it for whoever waits. */
  readonly stop: () => void;
  /** Ends it with an error, which whoever waits is given. */
  readonly refuse: (error: Error) => void;
};

function openPull(call: ServerReadableStream<Buffer, Buffer>): Pull {
  // Sixteen messages of a quarter of a megabyte each wait in a stream otherwise.
  const state: unknown = Reflect.get(call, '_readableState');
  if (typeof state === 'object' && state !== null) Reflect.set(state, 'highWaterMark', 1);
  let end: 'end' | 'broken' | undefined;
  let isStopped = false;
  let refused: Error | undefined;
  let wake = (): void => undefined;
  const on = (event: string, note: () => void): void => {
    call.on(event, () => {
      note();
      wake();
    });
  };
  on('readable', () => undefined);
  on('end', () => {
    end ??= 'end';
  });
  for (const event of ['cancelled', 'error', 'close']) {
    on(event, () => {
      end ??= 'broken';
    });
  }
  return {
    isCut: () => call.cancelled && !isStopped,
    stop: () => {
      isStopped = true;
      end ??= 'end';
      wake();
    },
    refuse: (error) => {
      refused = error;
      wake();
    },
    next: async () => {
      for (;;) {
        if (refused !== undefined) throw refused;
        const message: unknown = call.read();
        if (Buffer.isBuffer(message)) return message;
        if (end !== undefined) return end;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}
