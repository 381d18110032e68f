import type { RefusalEvent } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { CallerEvidence } from './evidence.ts';

/** Takes a refusal for the record; what becomes of it is its owner's care, the caller of a door does not wait. */
export type RecordRefusal = (event: RefusalEvent) => void;

/** A caller that was not given something. */
export type Refusal = {
  readonly code: ErrorCode;
  readonly message: string;
  /** The name that was asked for, or empty. */
  readonly resource: string;
  readonly selectors: readonly string[];
  readonly caller: CallerEvidence;
};

/** Refusals on their way to the record. */
export type Refusals = {
  readonly add: (refusal: Refusal) => void;
  /** Records what has been counted and stops. */
  readonly close: () => void;
};

/**
 * Records the first refusal of a kind at once, and its repeats within the window as one event with their number when
 * the window ends. A kind is code, uid, selectors and resource. A uid, or a certificate that was shown, may fill 32 kinds
 * in a window, all together 4,096: what a caller asks for beyond that is counted under the resource `*`, so that nobody can flood the log with
 * invented names; beyond 5,120 kinds of all uids nothing is kept until the window ends.
 */
export function createRefusals(
  record: RecordRefusal,
  clock: Clock,
  windowMs = 60_000,
  door: RefusalEvent['door'] = 'sds',
): Refusals {
  const stop = new AbortController();
  let open = new Map<string, { readonly refusal: Refusal; repeats: number }>();
  let perAccount = new Map<string, number>();

  const emit = (refusal: Refusal, count: number): void => {
    const { code, message, resource, selectors, caller } = refusal;
    record({
      type: 'refusal',
      time: clock.now(),
      door,
      code,
      message,
      resource,
      selectors,
      caller,
      count,
    });
  };
  const closeWindow = (): void => {
    const ended = open;
    open = new Map();
    perAccount = new Map();
    for (const { refusal, repeats } of ended.values()) if (repeats > 0) emit(refusal, repeats);
  };
  const add = (refusal: Refusal): void => {
    const key = keyOf(refusal);
    const known = open.get(key);
    if (known !== undefined) {
      known.repeats += 1;
      return;
    }
    const { uid, certificate } = refusal.caller;
    // Nobody has seen the process of who has shown a certificate: they all have one uid.
    const account = certificate ?? `uid ${uid}`;
    const ofAccount = perAccount.get(account) ?? 0;
    const crowded = ofAccount >= maxKindsPerUid || open.size >= maxKinds;
    if (crowded && refusal.resource !== '*') {
      add({ ...refusal, message: 'more names than are recorded one by one', resource: '*', selectors: [] });
      return;
    }
    if (crowded && open.size >= maxKinds + maxOverflow) return;
    if (open.size === 0) void clock.sleep(windowMs, stop.signal).then(closeWindow);
    open.set(key, { refusal, repeats: 0 });
    perAccount.set(account, ofAccount + 1);
    emit(refusal, 1);
  };
  return {
    add: (refusal) => {
      if (!stop.signal.aborted) add(refusal);
    },
    close: () => {
      closeWindow();
      stop.abort();
    },
  };
}

function keyOf({ code, resource, selectors, caller }: Refusal): string {
  return JSON.stringify([code, caller.uid, selectors, resource]);
}

const maxKindsPerUid = 32;
const maxKinds = 4_096;
const maxOverflow = 1_024;
