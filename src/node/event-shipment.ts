import type { AuditEvent, DecisionEvent, LossEvent } from '../audit/event.ts';
import { MeshError } from '../errors.ts';
import type { Caller, Decision, EventBatch } from '../wire/node.ts';
import { dateOf, integerOf, required } from './wire-values.ts';

/** A batch of events of one agent: numbered, so that one that is sent twice is kept once. */
export type Shipment = {
  readonly node: string;
  /** 32 lower-case hex digits, chosen by each start of an agent. */
  readonly epoch: string;
  readonly sequence: number;
  readonly events: readonly AuditEvent[];
};

/**
 * Stores the events, unless the node has shipped this batch or a later one of the epoch before.
 * @returns whether they were stored
 */
export type StoreShipment = (shipment: Shipment) => Promise<boolean>;

/** The most decisions in one batch: encoding them holds up everybody else meanwhile. */
export const maxShippedDecisions = 250;
const maxShippedLosses = 16;

/**
 * Reads a batch. What a node says of its own callers is taken down as what it says: the name of the node goes with it.
 * @throws MeshError `message_invalid`
 */
export function readShipment(node: string, batch: EventBatch): Shipment {
  if (!/^[0-9a-f]{32}$/.test(batch.epoch)) throw invalid('has no epoch');
  const sequence = integerOf(batch.sequence, 'a sequence');
  if (sequence === 0) throw invalid('has the sequence 0');
  if (batch.decisions.length > maxShippedDecisions || batch.losses.length > maxShippedLosses) {
    throw invalid(`has more than ${maxShippedDecisions} decisions or ${maxShippedLosses} losses`);
  }
  const losses = batch.losses.map(({ count, fromMs, toMs, cause }): LossEvent => ({
    type: 'loss',
    time: dateOf(toMs),
    what: 'decision',
    count: integerOf(count, 'a count'),
    from: dateOf(fromMs),
    to: dateOf(toMs),
    cause: `node ${node}: ${cause}`,
  }));
  return {
    node,
    epoch: batch.epoch,
    sequence,
    events: [...losses, ...batch.decisions.map((decision) => decisionOf(node, decision))],
  };
}

/** Writes a batch. @param events decisions and losses */
export function writeShipment({ epoch, sequence, events }: Omit<Shipment, 'node'>): EventBatch {
  const batch: EventBatch = { epoch, sequence: BigInt(sequence), decisions: [], losses: [] };
  for (const event of events) {
    if (event.type === 'decision') batch.decisions.push(decisionToWire(event));
    else if (event.type === 'loss') {
      const { count, from, to, cause } = event;
      const [fromMs, toMs] = [BigInt(from.getTime()), BigInt(to.getTime())];
      batch.losses.push({ count: BigInt(count), fromMs, toMs, cause });
    }
  }
  return batch;
}

/** What a node says of the process that asked. @throws MeshError `message_invalid` */
export function callerOf(node: string, caller: Caller | undefined): DecisionEvent['caller'] {
  const { pid, uid, gid } = required(caller, 'caller');
  return {
    pid: integerOf(pid, 'a pid'),
    uid: integerOf(uid, 'a uid'),
    gid: integerOf(gid, 'a gid'),
    node,
  };
}

/** A caller as it travels; the node is told by the connection. */
export function callerToWire({ pid, uid, gid }: DecisionEvent['caller']): Caller {
  return { pid: BigInt(pid), uid: BigInt(uid), gid: BigInt(gid) };
}

function decisionOf(node: string, decision: Decision): DecisionEvent {
  const { timeMs, verdict, revision, path, port, sourceAddress, caller, ...texts } = decision;
  if (verdict !== 'allow' && verdict !== 'deny') throw invalid('has a decision that is neither');
  return {
    ...texts,
    type: 'decision',
    time: dateOf(timeMs),
    verdict,
    revision: integerOf(revision, 'a revision'),
    path: { personal: path },
    port: integerOf(port, 'a port'),
    sourceAddress: { personal: sourceAddress },
    caller: callerOf(node, caller),
  };
}

function decisionToWire({ time, caller, ...event }: DecisionEvent): Decision {
  return {
    ...event,
    timeMs: BigInt(time.getTime()),
    revision: BigInt(event.revision),
    path: event.path.personal.toWellFormed(),
    port: BigInt(event.port),
    sourceAddress: event.sourceAddress.personal.toWellFormed(),
    caller: callerToWire(caller),
  };
}

function invalid(why: string): MeshError {
  return new MeshError('message_invalid', `the batch of events ${why}`);
}
