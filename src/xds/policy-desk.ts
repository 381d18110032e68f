import { compileProxyPolicy, type ProxyPolicy, type ProxyPolicyInput } from '../authz/proxy-policy.ts';
import type { Steps } from '../authz/steps.ts';
import { MeshError } from '../errors.ts';
import type { Breathe } from '../identity/breath.ts';
import { inBreaths } from '../identity/breath.ts';
import type { SpiffeId } from '../spiffe/id.ts';

/** What policies for proxies are made of, at one moment. */
export type PolicyState = Pick<ProxyPolicyInput, 'snapshot' | 'bannedIds'> & {
  /** The number of the policy revision in force; 0 while there is none. */
  readonly number: number;
  /** A reason for which every call to a destination must be asked about; null when there is none. */
  readonly asksAll: (destination: SpiffeId) => string | null;
};

/** The policy of one destination. Another one is another object. */
export type DeskPolicy = {
  readonly policy: ProxyPolicy;
  /** The latest policy revision that it is the same under; it grows as long as this is the policy of now. */
  number: number;
};

/** Somebody's interest in the policy of one destination. */
export type DeskLease = {
  /** Undefined while the first is being made. */
  readonly current: () => DeskPolicy | undefined;
  readonly release: () => void;
};

/** Keeps the policies of those destinations whose proxies ask for them, each made once for all who ask. */
export type PolicyDesk = {
  /** @param onChange called when there is another policy, or the first */
  readonly hold: (destination: SpiffeId, onChange: () => void) => DeskLease;
};

export type PolicyDeskParts = {
  readonly state: () => PolicyState;
  /** Calls back when the state may be another. */
  readonly onChange: (listener: () => void) => () => void;
  readonly breathe: Breathe;
  /** Told how long one took to make, others' work in between included. */
  readonly compiled: (seconds: number) => void;
  /** Told of a policy that could not be made, or may not be used. What is served in its place asks about every call. */
  readonly failed: (destination: SpiffeId, error: unknown) => void;
  readonly compile?: (input: ProxyPolicyInput) => Steps<ProxyPolicy>;
};

/**
 * One policy is in the making at a time, in small steps, and of the state of the moment at which it is begun: what changes
 * in bursts is made once. Whoever waits longest is next, so that changes without end keep nobody waiting for ever.
 *
 * INVARIANT: what is served for a destination never goes back: neither in time, as one is made after the other, nor to a
 * policy revision below one that was served, whatever the state says.
 */
export function createPolicyDesk(parts: PolicyDeskParts): PolicyDesk {
  const { breathe, compile = compileProxyPolicy } = parts;
  const rows = new Map<string, Row>();
  const due = new Set<Row>();
  let isRunning = false;
  let highest = 0;
  const make = async (row: Row): Promise<void> => {
    const { destination } = row;
    const { snapshot, bannedIds, number, asksAll } = parts.state();
    const isOlder = number < highest;
    highest = Math.max(highest, number);
    if (isOlder) {
      const message = `policy revision ${number} comes after ${highest}, which proxies were served`;
      parts.failed(destination, new MeshError('policy_replayed', message));
    }
    const input = { snapshot, destination, bannedIds };
    const reason = isOlder ? 'older_revision' : asksAll(destination);
    const startedAt = performance.now();
    const isWanted = (): boolean => row.listeners.size > 0;
    const policy = await inBreaths(compile({ ...input, asksAll: reason }), breathe, isWanted).catch(
      (error: unknown) => {
        parts.failed(destination, error);
        return inBreaths(compile({ ...input, asksAll: 'compile_failed' }), breathe, isWanted);
      },
    );
    if (policy === undefined) return;
    parts.compiled((performance.now() - startedAt) / 1_000);
    publish(row, policy, isOlder ? highest : number);
  };
  const run = async (): Promise<void> => {
    for (let [row] = due; row !== undefined; [row] = due) {
      due.delete(row);
      if (row.listeners.size === 0) continue;
      await make(row).catch((error: unknown) => parts.failed(row.destination, error));
      await breathe();
    }
    isRunning = false;
  };
  const plan = (row: Row): void => {
    due.add(row);
    if (isRunning) return;
    isRunning = true;
    // Whoever announces a change goes on first: what else it announces in the same turn is the same change.
    queueMicrotask(() => void run());
  };
  parts.onChange(() => {
    for (const row of rows.values()) plan(row);
  });
  return {
    hold: (destination, onChange) => {
      const row = rows.get(destination.text) ?? { destination, listeners: new Set(), current: undefined };
      rows.set(destination.text, row);
      const own = (): void => onChange();
      row.listeners.add(own);
      if (row.current === undefined) plan(row);
      return {
        current: () => row.current,
        release: () => {
          if (row.listeners.delete(own) && row.listeners.size === 0) rows.delete(destination.text);
        },
      };
    },
  };
}

function publish(row: Row, policy: ProxyPolicy, number: number): void {
  const before = row.current;
  // INVARIANT: the same policy is the same object, so that it is encoded once and sent to nobody twice.
  if (before?.policy.version === policy.version) {
    before.number = number;
    return;
  }
  row.current = { policy, number };
  for (const listener of [...row.listeners]) listener();
}

type Row = {
  readonly destination: SpiffeId;
  readonly listeners: Set<() => void>;
  current: DeskPolicy | undefined;
};
