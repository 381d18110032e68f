import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { RetentionEvent } from '../audit/retention-event.ts';
import { parseMoment } from '../audit/moment.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { addRoute } from './route.ts';

/** Which personal values are meant; all that is given must hold. As the store has it. */
export type PersonalWanted = {
  readonly address: string | null;
  readonly subject: string | null;
  readonly indexes: readonly number[];
  readonly beforeMs: number | null;
};

/** Values that one bounded step has found; `next` is null when there are no more. */
export type PersonalFound = {
  readonly ids: readonly number[];
  readonly entries: number;
  readonly first: number;
  readonly last: number;
  readonly next: number | null;
};

/** What shredding needs of the house. */
export type ShredPorts = {
  readonly findPersonal: (wanted: PersonalWanted, from: number) => Promise<PersonalFound>;
  /** In one transaction with the event. @throws MeshError `revision_conflict` */
  readonly shredPersonal: (found: PersonalFound, event: RetentionEvent) => Promise<void>;
  /** @returns false when copies of what was shredded are still in a file beside the database */
  readonly foldLog: () => Promise<boolean>;
  /** Names of older copies of the database, which still have the values. */
  readonly oldCopies: () => readonly string[];
  readonly clock: Clock;
};

/** What one request has done. */
export type ShredView = {
  /** Entries and values that are, or with `dryRun` would be, without their values. */
  readonly entries: number;
  readonly values: number;
  /** Where to go on, as `from`; null when all of the log was looked through. */
  readonly next: number | null;
  /** Whether no copy is left in the files of the database. */
  readonly erased: boolean;
  /** Copies that migrations have made, and that still have the values. */
  readonly oldCopies: readonly string[];
};

/** Personal values that are to be forgotten. The entries stay, and so do all proofs. */
export function addShredRoutes(app: FastifyInstance, ports: ShredPorts): void {
  addRoute(app, 'POST /v1/audit/shred', async (request): Promise<ShredView> => {
    const body = parseInput(shredBody, request.body, 'body_invalid');
    const wanted = wantedOf(body, ports.clock.now());
    const deadlineMs = ports.clock.now().getTime() + budgetMs;
    let [entries, values, steps] = [0, 0, 0];
    let next: number | null = body.from ?? 0;
    // INVARIANT: bounded: whoever asked goes on at `next`.
    while (next !== null && steps++ < maxSteps && ports.clock.now().getTime() <= deadlineMs) {
      const found = await ports.findPersonal(wanted, next);
      if (found.ids.length > 0 && body.dryRun !== true) {
        await ports.shredPersonal(found, {
          type: 'retention',
          time: ports.clock.now(),
          action: 'shredded',
          class: 'personal',
          first: found.first,
          last: found.last,
          entries: found.entries,
          values: found.ids.length,
          types: [],
          olderThan: null,
          by: filtersOf(body),
          reason: body.reason,
          actor: callerOf(request).actor,
        });
      }
      entries += found.entries;
      values += found.ids.length;
      ({ next } = found);
    }
    const erased = body.dryRun !== true && (await foldSoon(ports));
    return { entries, values, next, erased, oldCopies: values === 0 ? [] : ports.oldCopies() };
  });
}

function wantedOf(
  { address, subject, index, before }: z.output<typeof shredBody>,
  now: Date,
): PersonalWanted {
  if ([address, subject, index, before].every((given) => given === undefined)) {
    throw new MeshError('audit_shred_invalid', 'nothing says which values are meant', {
      fix: 'give address, subject, index or before',
    });
  }
  const moment = before === undefined ? undefined : parseMoment(before, now);
  if (before !== undefined && moment === undefined) {
    throw new MeshError('audit_shred_invalid', 'before is no time', {
      fix: 'write 30d or 2026-01-31T12:00:00Z',
    });
  }
  return {
    address: address ?? null,
    subject: subject ?? null,
    indexes: index ?? [],
    beforeMs: moment?.getTime() ?? null,
  };
}

/** Who reads at this moment is in the way for as long as a question takes. */
async function foldSoon({ foldLog, clock }: ShredPorts): Promise<boolean> {
  for (let attempt = 0; attempt < foldAttempts; attempt++) {
    if (await foldLog()) return true;
    await clock.sleep(foldPauseMs);
  }
  return false;
}

function filtersOf(body: z.output<typeof shredBody>): readonly string[] {
  return (['address', 'before', 'index', 'subject'] as const).filter((name) => body[name] !== undefined);
}

const value = z.string().min(1).max(2_048);
/** The body of `POST /v1/audit/shred`. */
export const shredBody = z.strictObject({
  address: value.optional(),
  subject: value.optional(),
  index: z.array(z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)).min(1).max(1_000).optional(),
  before: z.string().max(64).optional(),
  reason: z.string().trim().min(1).max(1_024),
  from: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  dryRun: z.boolean().optional(),
});
const budgetMs = 5_000;
const maxSteps = 1_000;
const foldAttempts = 5;
const foldPauseMs = 100;
