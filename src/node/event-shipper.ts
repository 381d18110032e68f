import type { AuditEvent, LossEvent, RecordEvents } from '../audit/event.ts';
import { type Clock, systemClock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { createTurns } from '../identity/turns.ts';
import { EventBatch, type EventsAccepted, type NodeClient } from '../wire/node.ts';
import { writeShipment } from './event-shipment.ts';
import { cancelOn, failureOf } from './node-client.ts';

/** Takes decisions, refusals and losses to the server's log. */
export type EventShipper = {
  /**
   * Takes a batch in. It resolves when the batch before it is durable at the server and this one is on its way: one
   * batch at most is in hand, and is sent again under its number until it is acknowledged, whether or not another one
   * follows. Answers no indexes. Many may call at once; each waits for its turn.
   * @throws MeshError `server_unreachable` while the one in hand cannot be shipped, `message_too_large` when a part of
   *   the batch has to go alone: nothing of this batch was taken in
   */
  readonly record: RecordEvents;
  /** Events in hand. */
  readonly inHand: () => number;
  /** Events that the server refused, since the start; each is in its log as a loss. */
  readonly refused: () => number;
  /** Ships what is in hand, once. */
  readonly flush: () => Promise<void>;
  /** Ends the call under way and every one to come: for an end that does not wait for a server that says nothing. */
  readonly giveUp: () => void;
  /** Ships what is in hand, once, and gives up. @throws MeshError `server_unreachable`; what is in hand is lost then */
  readonly close: () => Promise<void>;
};

/** @param epoch 32 lower-case hex digits, new with each process */
export function createEventShipper(parts: {
  readonly client: () => NodeClient;
  readonly epoch: string;
  readonly withinMs?: number;
  readonly clock?: Clock;
}): EventShipper {
  const { epoch, withinMs = 10_000, clock = systemClock } = parts;
  const stop = new AbortController();
  const over = new AbortController();
  let isRetrying = false;
  const inTurn = createTurns(1);
  let sequence = 1;
  let refused = 0;
  /** INVARIANT: the first part goes under `sequence`, and stays as it is until it is acknowledged or refused. */
  let inHand: readonly (readonly AuditEvent[])[] = [];
  /** Refusals by the server since the batch in hand was taken in. */
  let refusals = 0;

  const flush = async (): Promise<void> => {
    for (;;) {
      const [first, ...rest] = inHand;
      if (first === undefined) return;
      try {
        await ship(parts.client(), { epoch, sequence, events: first }, withinMs, over.signal);
        [inHand, sequence] = [rest, sequence + 1];
      } catch (error) {
        if (!(error instanceof MeshError) || !isFinal(error)) throw error;
        // INVARIANT: what the server will never take does not hold up what comes after it, nor take it along.
        refusals += 1;
        inHand = [...withoutRefused(first, error.code), ...rest];
      }
    }
  };

  /** Whoever is the last to give something would else leave it in hand for ever. */
  const retry = async (): Promise<void> => {
    if (isRetrying) return;
    isRetrying = true;
    while (inHand.length > 0 && !stop.signal.aborted) {
      await clock.sleep(retryMs, stop.signal);
      if (!stop.signal.aborted) await inTurn(flush).catch(() => undefined);
    }
    isRetrying = false;
  };

  /** A batch that was refused in halves, until what is refused stands alone and is counted as lost. */
  const withoutRefused = (
    events: readonly AuditEvent[],
    code: string,
  ): readonly (readonly AuditEvent[])[] => {
    if (events.every(({ type }) => type === 'loss')) return [];
    if (events.length > 1 && refusals <= maxRefusals) {
      const middle = events.length >> 1;
      return [events.slice(0, middle), events.slice(middle)];
    }
    const loss = lossesOf(events, code);
    refused += loss.reduce((sum, { count }) => sum + count, 0);
    return [loss];
  };
  return {
    record: (events) =>
      inTurn(async () => {
        // Whoever can send long requests could else make a batch that the server cannot receive.
        const bytes = EventBatch.encode(writeShipment({ epoch, sequence, events })).finish().length;
        if (bytes > maxBatchBytes)
          throw new MeshError('message_too_large', 'the events are too large for one batch');
        await flush();
        [inHand, refusals] = [[events], 0];
        // INVARIANT: from here on the batch is ours: whoever gave it must not give it again, or it would be kept twice.
        await flush().catch(() => void retry());
        return [];
      }),
    inHand: () => inHand.reduce((sum, { length }) => sum + length, 0),
    refused: () => refused,
    flush: () => inTurn(flush),
    giveUp: () => over.abort('given up'),
    close: () => {
      stop.abort('closed');
      return inTurn(flush);
    },
  };
}

function ship(
  client: NodeClient,
  batch: Parameters<typeof writeShipment>[0],
  withinMs: number,
  signal: AbortSignal,
): Promise<void> {
  let forget = (): void => undefined;
  return new Promise<void>((resolve, reject) => {
    const call = client.shipEvents({ deadline: Date.now() + withinMs } as never);
    forget = cancelOn(signal, call);
    call.on('data', ({ epoch, sequence }: EventsAccepted) => {
      if (epoch === batch.epoch && sequence === BigInt(batch.sequence)) resolve();
      call.end();
    });
    call.on('error', (error) => reject(failureOf(error)));
    call.on('end', () => reject(new MeshError('server_unreachable', 'the server did not take the events')));
    call.write(writeShipment(batch));
  }).finally(() => forget());
}

/** Whether the same batch would be refused again. */
function isFinal({ kind, code }: MeshError): boolean {
  return kind === 'invalid' || kind === 'too_large' || code === 'identity_none';
}

/** One record for events of each kind that were refused. */
function lossesOf(events: readonly AuditEvent[], cause: string): readonly LossEvent[] {
  return (['decision', 'refusal', 'access_log'] as const).flatMap((what) => {
    const lost = events.filter((event) => whatOf(event) === what);
    if (lost.length === 0) return [];
    const times = lost.flatMap((event) =>
      'from' in event ? [event.from.getTime(), event.to.getTime()] : [event.time.getTime()],
    );
    const [from, to] = [new Date(Math.min(...times)), new Date(Math.max(...times))];
    const count = lost.reduce((sum, event) => sum + callsOf(event), 0);
    return [{ type: 'loss', time: to, what, count, from, to, cause }];
  });
}

/** What a proxy has counted is one record, however much that is. */
function callsOf(event: AuditEvent): number {
  return 'count' in event && event.type !== 'proxy_coverage' ? event.count : 1;
}

function whatOf(event: AuditEvent): string {
  if (event.type === 'loss') return event.what;
  if (accessTypes.has(event.type)) return 'access_log';
  return event.type === 'allowed_calls' || event.type === 'candidate_calls' ? 'decision' : event.type;
}

const accessTypes: ReadonlySet<string> = new Set([
  'outcome',
  'outcomes',
  'connections',
  'proxy_verdict',
  'proxy_verdicts',
  'proxy_coverage',
]);
const retryMs = 2_000;
// The server receives 1 MiB.
const maxBatchBytes = 786_432;
// Of one batch; each costs a question of the server. What is not told apart by then is lost together.
const maxRefusals = 48;
