import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { MeshError, quote } from '../errors.ts';
import type { Administration } from '../identity/administration.ts';
import type { EntryInput } from '../identity/entry.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import { formatEntry } from '../identity/entry-parse.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { addRoute } from './route.ts';

/** What entries and policies need of the house. */
export type EntryPorts = { readonly administration: Administration };

/** An entry as JSON: what its author may write, and the revision that last changed it. */
export type EntryView = Required<EntryInput> & { readonly revision: number };

/** Registration entries, and files of entries and policies. */
export function addEntryRoutes(app: FastifyInstance, { administration }: EntryPorts): void {
  addRoute(app, 'GET /v1/entries', async (request) => {
    const { entries, revision } = administration.current();
    const page = pageOf(entries, parseInput(pageQuery, request.query, 'query_invalid'));
    return { items: page.items.map(entryView), next: page.next, revision };
  });
  addRoute(app, 'POST /v1/entries', async (request, reply) => {
    const input = parseInput(entryBody, request.body, 'body_invalid');
    const entry = await administration.createEntry(input as EntryInput, callerOf(request).actor);
    return reply.code(201).send(entryView(entry));
  });
  addRoute<ById>(app, 'GET /v1/entries/:id', async (request) => {
    const { id } = request.params;
    const entry = administration.current().entries.get(id);
    if (entry === undefined) {
      throw new MeshError('entry_not_found', `no entry has the id ${quote(id)}`, {
        fix: 'countersign entry list shows all ids',
      });
    }
    return entryView(entry);
  });
  addRoute<ById>(app, 'PATCH /v1/entries/:id', async (request) => {
    const patch = parseInput(entryPatch, request.body, 'body_invalid');
    const { actor } = callerOf(request);
    return entryView(await administration.updateEntry(request.params.id, patch as EntryPatch, actor));
  });
  addRoute<ById>(app, 'DELETE /v1/entries/:id', async (request) => {
    const deleted = await administration.deleteEntry(request.params.id, callerOf(request).actor);
    return { entry: entryView(deleted.entry), certificatesValidUntil: deleted.certificatesValidUntil };
  });
  addRoute(app, 'POST /v1/apply', async (request) => {
    const { files, dryRun } = parseInput(applyBody, request.body, 'body_invalid');
    return administration.apply(files, callerOf(request).actor, { dryRun: dryRun ?? false });
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
const entryBody = z.strictObject({ id: text, ...entryFields });
const entryPatch = z.strictObject(entryFields).partial();
const applyBody = z.strictObject({
  files: z
    .array(z.strictObject({ file: z.string().min(1).max(1_024), text: z.string() }))
    .min(1)
    .max(256),
  dryRun: z.boolean().optional(),
});
