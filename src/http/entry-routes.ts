import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { MeshError, quote } from '../errors.ts';
import type { Administration } from '../identity/administration.ts';
import type { EntryInput } from '../identity/entry.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import { formatEntry } from '../identity/entry-parse.ts';
import { covers, scopeOf } from '../identity/access.ts';
import type { IsAdministrator } from './permit.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { namespaceOf, permitOf, withinScope } from './permit.ts';
import { addRoute } from './route.ts';

/** What entries and policies need of the house. */
export type EntryPorts = {
  readonly administration: Administration;
  readonly isAdministrator: IsAdministrator;
};

/** An entry as JSON: what its author may write, and the revision that last changed it. */
export type EntryView = Required<EntryInput> & { readonly revision: number };

/** Registration entries, and files of entries and policies. */
export function addEntryRoutes(app: FastifyInstance, { administration, isAdministrator }: EntryPorts): void {
  const permit = (request: FastifyRequest) => permitOf(callerOf(request), isAdministrator);
  const scope = (request: FastifyRequest) => scopeOf(callerOf(request).grants, 'entries:read');
  addRoute(app, 'GET /v1/entries', async (request) => {
    const { entries, revision } = administration.current();
    const within = withinScope(entries, scope(request), ({ spiffeId }) => namespaceOf(spiffeId));
    const page = pageOf(within, parseInput(pageQuery, request.query, 'query_invalid'));
    return { items: page.items.map(entryView), next: page.next, revision };
  });
  addRoute(app, 'POST /v1/entries', async (request, reply) => {
    const input = parseInput(entryBody, request.body, 'body_invalid');
    const { actor } = callerOf(request);
    const entry = await administration.createEntry(input as EntryInput, actor, permit(request));
    return reply.code(201).send(entryView(entry));
  });
  addRoute<ById>(app, 'GET /v1/entries/:id', async (request) => {
    const { id } = request.params;
    const entry = administration.current().entries.get(id);
    // What somebody may not see is not there for them.
    if (entry === undefined || !covers(scope(request), namespaceOf(entry.spiffeId))) {
      throw new MeshError('entry_not_found', `no entry has the id ${quote(id)}`, {
        fix: 'countersign entry list shows all ids',
      });
    }
    return entryView(entry);
  });
  addRoute<ById>(app, 'PATCH /v1/entries/:id', async (request) => {
    const patch = parseInput(entryPatch, request.body, 'body_invalid');
    const { actor } = callerOf(request);
    const { id } = request.params;
    return entryView(await administration.updateEntry(id, patch as EntryPatch, actor, permit(request)));
  });
  addRoute<ById>(app, 'DELETE /v1/entries/:id', async (request) => {
    const { actor } = callerOf(request);
    const deleted = await administration.deleteEntry(request.params.id, actor, permit(request));
    return { entry: entryView(deleted.entry), certificatesValidUntil: deleted.certificatesValidUntil };
  });
  addRoute(app, 'POST /v1/apply', async (request) => {
    const { files, ...asked } = parseInput(applyBody, request.body, 'body_invalid');
    const { dryRun = false, message = '', policiesOnly = false } = asked;
    const options = { dryRun, message, policiesOnly, permit: permit(request) };
    return administration.apply(files, callerOf(request).actor, options);
  });
  // Beside that route, because it demands the same: whoever may not write a policy is not told how it would fare.
  addRoute(app, 'POST /v1/policies/test', async (request) => {
    const { files } = parseInput(testBody, request.body, 'body_invalid');
    return administration.testPolicies(files, permit(request));
  });
}

/** An entry as the API shows it. */
export function entryView(entry: RegistrationEntry): EntryView {
  return { ...formatEntry(entry), revision: entry.revision };
}

type ById = { id: string };
type EntryPatch = Partial<Omit<EntryInput, 'id'>>;

// Bounds here only keep absurd input short; identity/ decides what an entry may be.
const text = z.string().max(4_096);
const entryFields = {
  spiffeId: text,
  selectors: z.array(text).max(256),
  ttlSeconds: z.number().optional(),
  dnsNames: z.array(text).max(256).optional(),
  labels: z.record(text, text).optional(),
  hint: text.optional(),
  expiresAt: text.nullable().optional(),
  nodes: z.array(text).max(256).optional(),
};
/** The body that makes an entry. */
export const entryBody = z.strictObject({ id: text, ...entryFields });
/** The body that changes one. */
export const entryPatch = z.strictObject(entryFields).partial();
/** Files as they are sent. */
export const filesField = z
  .array(z.strictObject({ file: z.string().min(1).max(1_024), text: z.string() }))
  .min(1)
  .max(256);
/** The body of `POST /v1/apply`. */
export const applyBody = z.strictObject({
  files: filesField,
  dryRun: z.boolean().optional(),
  message: text.optional(),
  policiesOnly: z.boolean().optional(),
});
/** The body of `POST /v1/policies/test`. */
export const testBody = applyBody.pick({ files: true });
