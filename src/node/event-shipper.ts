import type { AuditEvent, LossEvent, RecordEvents } from '../audit/event.ts';
import { MeshError } from '../errors.ts';
import { EventBatch, type EventsAccepted, type NodeClient } from '../wire/node.ts';
import { writeShipment } from './event-shipment.ts';
import { failureOf } from './node-client.ts';

/** Takes decisions and losses to the server's log. */
export type EventShipper = {
  /**
   * Takes a batch in. It resolves when the batch before it is durable at the server and this one is on its way: one
   * batch at most is in hand, and is sent again under its number until it is acknowledged. Answers no indexes.
   * @throws MeshError `server_unreachable` while the one in hand cannot be shipped, `message_too_large` when a part of
   *   the batch has to go alone: nothing of this batch was taken in
   */
  readonly record: RecordEvents;
  /** Events in hand. */
  readonly inHand: () => number;
  /** Ships what is in hand, once. */
  readonly flush: () => Promise<void>;
};

/** @param epoch 32 lower-case hex digits, new with each process */
export function createEventShipper(parts: {
  readonly client: () => NodeClient;
  readonly epoch: string;
  readonly withinMs?: number;
}): EventShipper {
  const { epoch, withinMs = 10_000 } = parts;
  let sequence = 0;
  let inHand: readonly AuditEvent[] = [];

  const flush = async (): Promise<void> => {
    while (inHand.length > 0) {
      try {
        await ship(parts.client(), { epoch, sequence, events: inHand }, withinMs);
        inHand = [];
      } catch (error) {
        if (!(error instanceof MeshError) || (error.kind !== 'invalid' && error.kind !== 'too_large'))
          throw error;
        // INVARIANT: what the server will never take does not hold up what comes after it.
        inHand = inHand.every(({ type }) => type === 'loss') ? [] : [lossOf(inHand, error.code)];
      }
    }
  };
  return {
    record: async (events) => {
      // Whoever can send long requests could else make a batch that the server cannot receive.
      const bytes = EventBatch.encode(writeShipment({ epoch, sequence, events })).finish().length;
      if (bytes > maxBatchBytes)
        throw new MeshError('message_too_large', 'the events are too large for one batch');
      await flush();
      sequence += 1;
      inHand = events;
      // INVARIANT: from here on the batch is ours: whoever gave it must not give it again, or it would be kept twice.
      await flush().catch(() => undefined);
      return [];
    },
    inHand: () => inHand.length,
    flush,
  };
}

function ship(
  client: NodeClient,
  batch: Parameters<typeof writeShipment>[0],
  withinMs: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = client.shipEvents({ deadline: Date.now() + withinMs } as never);
    call.on('data', ({ epoch, sequence }: EventsAccepted) => {
      if (epoch === batch.epoch && sequence === BigInt(batch.sequence)) resolve();
      call.end();
    });
    call.on('error', (error) => reject(failureOf(error)));
    call.on('end', () => reject(new MeshError('server_unreachable', 'the server did not take the events')));
    call.write(writeShipment(batch));
  });
}

/** One record for events that were refused. */
function lossOf(events: readonly AuditEvent[], cause: string): LossEvent {
  const times = events.flatMap((event) =>
    event.type === 'loss' ? [event.from.getTime(), event.to.getTime()] : [event.time.getTime()],
  );
  const [from, to] = [new Date(Math.min(...times)), new Date(Math.max(...times))];
  const count = events.reduce((sum, event) => sum + (event.type === 'loss' ? event.count : 1), 0);
  return { type: 'loss', time: to, what: 'decision', count, from, to, cause };
}

// The server receives 1 MiB.
const maxBatchBytes = 786_432;
