import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Actor } from '../audit/event.ts';
import { MeshError, quote } from '../errors.ts';
import { covers, type Scope, scopeOf } from '../identity/access.ts';
import type { Administration } from '../identity/administration.ts';
import type { NewPolicyRevision, PolicyDocument } from '../identity/mesh.ts';
import type { PolicyChange } from '../identity/policy-edits.ts';
import { policyInForce, type PolicyInForce, type PolicyRevision } from '../identity/policy-revision.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { defaultPageSize, pageQuery } from './page.ts';
import { type IsAdministrator, permitOf } from './permit.ts';
import { addRoute } from './route.ts';

/** What is kept of earlier revisions. */
export type RevisionArchive = {
  /** Revisions below a number, the latest first. */
  readonly page: (below: number, limit: number) => Promise<readonly NewPolicyRevision[]>;
  readonly policiesOf: (number: number) => Promise<ReadonlyMap<string, Omit<PolicyDocument, 'source'>>>;
  readonly policyOf: (number: number, key: string) => Promise<PolicyDocument | null>;
  readonly policiesIn: (number: number, namespaces: readonly string[]) => Promise<readonly PolicyDocument[]>;
};

/** What revisions need of the house. */
export type RevisionPorts = {
  readonly administration: Administration;
  readonly revisions: RevisionArchive;
  readonly isAdministrator: IsAdministrator;
};

/** A revision as JSON. */
export type RevisionView = Omit<PolicyRevision, 'time'> & {
  readonly time: string;
  readonly active: boolean;
  readonly restores: number | null;
  /** Who and why; null for those who may see nothing of what it changed. */
  readonly author: Actor | null;
  readonly message: string | null;
  /** How many policies it changed, of those that whoever asks may see. */
  readonly changes: { readonly created: number; readonly updated: number; readonly deleted: number };
};

/** One page of revisions, and what it takes to verify them. */
export type RevisionPage = {
  readonly items: readonly RevisionView[];
  readonly next: string | null;
  readonly trustDomain: string;
};

/** What became, or with a dry run would become, of policies. */
export type ActivationView = {
  readonly active: PolicyInForce;
  readonly restores: number;
  readonly changes: readonly PolicyChange[];
  /** Tests that fail under them and bar no way back, and break-glass grants among them. */
  readonly warnings: readonly string[];
};

/** Revisions of policies: look at them, and go back to one. */
export function addRevisionRoutes(
  app: FastifyInstance,
  { administration, revisions, isAdministrator }: RevisionPorts,
  trustDomain: TrustDomain,
): void {
  const active = (): number => administration.current().policyRevision?.number ?? 0;
  const view = (request: FastifyRequest, revision: NewPolicyRevision): RevisionView =>
    revisionView(revision, active(), scopeOf(callerOf(request).grants, 'policies:read'));
  addRoute(app, 'GET /v1/policy-revisions', async (request) => {
    const { limit = defaultPageSize, cursor } = parseInput(pageQuery, request.query, 'query_invalid');
    const found = await revisions.page(cursor === undefined ? noLimit : parseCursor(cursor), limit + 1);
    const items = found.slice(0, limit).map((revision) => view(request, revision));
    const last = items.at(-1);
    const next = found.length > limit && last !== undefined ? `${last.number}` : null;
    return { items, next, trustDomain: trustDomain.name } satisfies RevisionPage;
  });
  addRoute<ByNumber>(app, 'GET /v1/policy-revisions/:number', async (request) => {
    const { number } = request.params;
    const found = await findRevision(revisions, number === 'active' ? active() : parseNumber(number));
    return view(request, found);
  });
  addRoute<ByNumber>(app, 'POST /v1/policy-revisions/:number/activate', async (request) => {
    const { number } = request.params;
    const {
      message = '',
      dryRun = false,
      expectActive,
    } = parseInput(activateBody, request.body, 'body_invalid');
    const caller = callerOf(request);
    const result = await administration.activatePolicies(
      number === 'previous' ? number : parseNumber(number),
      caller.actor,
      { message, dryRun, expectActive, permit: permitOf(caller, isAdministrator) },
    );
    const { number: now, id } = result.active;
    return { ...result, active: { number: now, id } } satisfies ActivationView;
  });
  addRoute(app, 'POST /v1/policy-revisions/renumber', async (request) => {
    const { after, message = '' } = parseInput(renumberBody, request.body, 'body_invalid');
    await administration.renumberPolicies(after, callerOf(request).actor, message);
    return policyInForce(administration.current());
  });
}

/**
 * A revision that is kept.
 * @throws MeshError `policy_revision_not_found`
 */
export async function findRevision(
  revisions: Pick<RevisionArchive, 'page'>,
  number: number,
): Promise<NewPolicyRevision> {
  const [found] = await revisions.page(number + 1, 1);
  return found?.record.number === number ? found : refuse(`${number}`);
}

/** A number from a URL. @throws MeshError `policy_revision_not_found` */
export function parseNumber(text: string): number {
  return /^[1-9][0-9]{0,14}$/.test(text) ? Number(text) : refuse(text);
}

type ByNumber = { number: string };

function revisionView(
  { record, changes: all }: NewPolicyRevision,
  active: number,
  scope: Scope | undefined,
): RevisionView {
  const { author, message, time, ...revision } = record;
  const seen = all.filter(({ namespace }) => covers(scope, namespace));
  const isSeen = scope === 'everywhere' || seen.length > 0;
  const sum = (of: 'created' | 'updated' | 'deleted') => seen.reduce((n, change) => n + change[of], 0);
  return {
    ...revision,
    time: time.toISOString(),
    active: record.number === active,
    author: isSeen ? author : null,
    message: isSeen ? message : null,
    changes: { created: sum('created'), updated: sum('updated'), deleted: sum('deleted') },
  };
}

function parseCursor(cursor: string): number {
  if (/^[1-9][0-9]{0,14}$/.test(cursor)) return Number(cursor);
  throw new MeshError('query_invalid', 'the cursor is not one of a page before', {
    fix: 'pass the "next" of a page on unchanged, or leave cursor out',
  });
}

function refuse(number: string): never {
  // The number of the one in force while there is none.
  const isFirst = number === '0';
  const what = isFirst
    ? 'there is no revision of policies yet'
    : `there is no policy revision ${quote(number)}`;
  throw new MeshError('policy_revision_not_found', what, {
    fix: isFirst ? 'apply a policy first' : 'countersign policy log shows those that are kept',
  });
}

const noLimit = Number.MAX_SAFE_INTEGER;
// Bounds here only keep absurd input short; identity/ decides what a message may be.
const text = z.string().max(4_096);
/** The body that puts a revision in force. */
export const activateBody = z.strictObject({
  message: text.optional(),
  dryRun: z.boolean().optional(),
  expectActive: z.number().int().min(1).optional(),
});
/** The body that moves the number ahead. */
export const renumberBody = z.strictObject({ after: z.number().int().min(0), message: text.optional() });
/** The query of a policy, or of all, as they were. */
export const pastQuery = z.strictObject({ policyRevision: z.string().max(32).optional() });
/** The query that deletes a policy. */
export const deleteQuery = z.strictObject({ message: text.optional() });
