import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { splitAuthority } from '../authz/host.ts';
import { canonicalPath } from '../authz/path.ts';
import { canReach, never, type PartialCall, type Reach, whoCan } from '../authz/reach.ts';
import { isMethod } from '../authz/request.ts';
import type { Snapshot } from '../authz/snapshot.ts';
import type { Steps } from '../authz/steps.ts';
import { MeshError, quote } from '../errors.ts';
import { scopeOf } from '../identity/access.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { callerOf } from './caller.ts';
import type { EntryPorts } from './entry-routes.ts';
import { parseInput } from './input.ts';
import { pageOf } from './page.ts';
import { demandNamespace, namespaceOf, withinScope } from './permit.ts';
import { addRoute } from './route.ts';

/** What `who-can` and `can-reach` need of the house. */
export type ReachPorts = Pick<EntryPorts, 'administration'> & {
  /** Puts a question to the current policy, in small steps between other work. */
  readonly survey: <T>(question: (snapshot: Snapshot, now: Date) => Steps<T>) => Promise<T>;
  /** Whether a ban denies calls between the two, whatever the policy says. */
  readonly isBanned: (source: SpiffeId, destination: SpiffeId) => boolean;
};

/** Who may call, and where somebody may: for identities of the registration entries, and in rules for everybody else. */
export function addReachRoutes(app: FastifyInstance, ports: ReachPorts, trustDomain: TrustDomain): void {
  const { administration, survey, isBanned } = ports;
  const judged = <T extends Reach>(answer: T, source: SpiffeId, destination: SpiffeId) => {
    const banned = isBanned(source, destination);
    return { ...answer, ...(banned ? never : {}), banned };
  };
  addRoute(app, 'POST /v1/authz/who-can', async (request) => {
    const body = parseInput(whoCanBody, request.body, 'body_invalid');
    const destination = SpiffeId.parseWorkload(body.destination);
    const { grants } = callerOf(request);
    const namespace = destination.memberOf(trustDomain) ? namespaceOf(destination) : undefined;
    demandNamespace(callerOf(request), 'authz:explain', namespace, `calls to ${quote(destination.text)}`);
    const { entries, revision } = administration.current();
    // Who else is registered is not for everybody to see.
    const seen = withinScope(identitiesOf(entries), scopeOf(grants, 'entries:read'), namespaceOf);
    const { items } = pageOf(seen, body);
    const call = readCall(body);
    const { anybody, callers } = await survey((snapshot, now) =>
      whoCan(snapshot, destination, call, items, now),
    );
    return {
      destination: destination.text,
      anybody,
      items: callers.map((answer, i) => judged(answer, items[i] ?? destination, destination)),
      next: nextAfter(seen, body, callers.length),
      revision,
    };
  });
  addRoute(app, 'POST /v1/authz/can-reach', async (request) => {
    const body = parseInput(canReachBody, request.body, 'body_invalid');
    const source = SpiffeId.parseWorkload(body.source);
    const { entries, revision } = administration.current();
    const scope = scopeOf(callerOf(request).grants, 'authz:explain');
    const seen = withinScope(identitiesOf(entries), scope, namespaceOf);
    const { items } = pageOf(seen, body);
    const call = readCall(body);
    const answers = await survey((snapshot, now) => canReach(snapshot, source, call, items, now));
    return {
      source: source.text,
      items: answers.map((answer, i) => judged(answer, source, items[i] ?? source)),
      next: nextAfter(seen, body, answers.length),
      revision,
    };
  });
}

/** Where the page goes on that ends with the last of those that were answered for. */
function nextAfter(
  seen: ReadonlyMap<string, SpiffeId>,
  { cursor }: { readonly cursor?: string | undefined },
  answered: number,
): string | null {
  return answered === 0 ? null : pageOf(seen, { cursor, limit: answered }).next;
}

/** The identities that entries give, by their text; the same map for the same entries. */
export function identitiesOf(entries: ReadonlyMap<string, RegistrationEntry>): ReadonlyMap<string, SpiffeId> {
  const known = identities.get(entries);
  if (known !== undefined) return known;
  const found = new Map([...entries.values()].map(({ spiffeId }) => [spiffeId.text, spiffeId]));
  identities.set(entries, found);
  return found;
}

const identities = new WeakMap<ReadonlyMap<string, RegistrationEntry>, ReadonlyMap<string, SpiffeId>>();

/** @throws MeshError `body_invalid` for what no call can have */
function readCall({ method, path, host, port }: z.output<typeof callBody>): PartialCall {
  if (method !== undefined && !isMethod(method)) throw invalid('method', 'is no HTTP method');
  const canonical = path === undefined ? undefined : canonicalPath(path);
  if (typeof canonical === 'object') throw invalid('path', canonical.why);
  const authority = host === undefined ? undefined : splitAuthority(host);
  if (authority !== undefined && 'why' in authority) throw invalid('host', authority.why);
  return {
    ...(method === undefined ? {} : { method }),
    ...(canonical === undefined ? {} : { path: canonical }),
    ...authority,
    ...(port === undefined ? {} : { port }),
  };
}

function invalid(field: string, why: string): MeshError {
  return new MeshError('body_invalid', `${field} ${why}`, {
    fix: 'give what a call can have, or leave it out',
  });
}

const callBody = z.strictObject({
  method: z.string().max(128).optional(),
  /** Without query. */
  path: z.string().max(8_192).optional(),
  host: z.string().max(4_096).optional(),
  port: z.number().int().min(1).max(65_535).optional(),
  limit: z.number().int().min(1).max(1_000).optional(),
  cursor: z.string().max(4_096).optional(),
});

/** The body of `POST /v1/authz/who-can`; what is left out may be anything. */
export const whoCanBody = callBody.extend({ destination: z.string().max(4_096) });
/** The body of `POST /v1/authz/can-reach`. */
export const canReachBody = callBody.extend({ source: z.string().max(4_096) });
