import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { tileWidth } from '../audit/merkle-tree.ts';
import type { ConsistencyProof, EntryProof } from '../audit/proof.ts';
import { parseTilePath, type TileName } from '../audit/tile-path.ts';
import { formatTlogProof } from '../audit/tlog-proof.ts';
import { MeshError, quote } from '../errors.ts';
import { type Grant, rolesWith, scopeOf } from '../identity/access.ts';
import type { NoteRead } from './audit-routes.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { addRoute } from './route.ts';
import type { WitnessReport } from './witness-report.ts';

/** What proving the log needs of the house. */
export type LogPorts = {
  /** The latest checkpoint, a signed note; null until somebody signs. */
  readonly auditCheckpoint: () => Promise<string | null>;
  /** The key that verifies it, as text. */
  readonly auditKey: () => Promise<string | null>;
  /** The latest that a quorum of witnesses has cosigned; null while there is none. */
  readonly witnessedCheckpoint: () => Promise<string | null>;
  readonly auditWitnesses: () => Promise<WitnessReport>;
  /** Null for a tile that the latest checkpoint does not cover. */
  readonly auditTile: (tile: TileName) => Promise<Uint8Array | null>;
  /** What is left of a bundle that has lost contents; null for any other. */
  readonly auditRemains: (tile: TileName) => Promise<Uint8Array | null>;
  /** Null for an entry that the checkpoint does not cover: the latest, or the latest that a quorum has cosigned. */
  readonly proveEntry: (index: number, isWitnessed?: boolean) => Promise<EntryProof | null>;
  readonly proveConsistency: (from: number) => Promise<ConsistencyProof | null>;
};

/** A proof of one entry. Hashes are lower-case hex. */
export type EntryProofView = {
  readonly index: number;
  readonly size: number;
  readonly leafHash: string;
  readonly hashes: readonly string[];
  readonly checkpoint: string;
};

/** A proof that the log begins with what it was. Hashes are lower-case hex. */
export type ConsistencyProofView = {
  readonly from: number;
  readonly fromRoot: string;
  readonly size: number;
  readonly hashes: readonly string[];
  readonly checkpoint: string;
};

/**
 * The log as others verify it: checkpoint, tiles and proofs. What stands below `/v1/audit/log/` is laid out as C2SP's
 * tlog-tiles are.
 * @see https://c2sp.org/tlog-tiles
 */
export function addLogRoutes(app: FastifyInstance, ports: LogPorts, noteRead: NoteRead): void {
  addRoute(app, 'GET /v1/audit/log/checkpoint', async (request, reply) => {
    await noteRead(request, 'checkpoint of the log');
    return reply.type(plainText).send(there(await ports.auditCheckpoint()));
  });
  addRoute(app, 'GET /v1/audit/log/witnessed', async (request, reply) => {
    await noteRead(request, 'witnessed checkpoint of the log');
    const note = await ports.witnessedCheckpoint();
    if (note !== null) return reply.type(plainText).send(note);
    throw new MeshError('audit_quorum_missing', 'no quorum of witnesses has cosigned the log yet', {
      fix: 'see countersign audit witnesses: who is asked, and what is in the way',
    });
  });
  addRoute(app, 'GET /v1/audit/witnesses', () => ports.auditWitnesses());
  addRoute(app, 'GET /v1/audit/log/key', async (request, reply) => {
    await noteRead(request, 'key of the log');
    return reply.type(plainText).send(`${there(await ports.auditKey())}\n`);
  });
  addRoute<{ readonly '*': string }>(app, 'GET /v1/audit/log/tile/*', async (request, reply) => {
    const path = `tile/${request.params['*']}`;
    const tile = parseTilePath(path);
    if (tile === undefined) throw noTile(path);
    if (tile.level === 'entries') demandDecisions(callerOf(request).grants);
    const { pruned } = parseInput(tileQuery, request.query, 'query_invalid');
    await noteRead(request, tile.level === 'entries' ? 'entries of the log' : 'hashes of the log');
    const bytes = await (pruned === 'empty' ? ports.auditRemains(tile) : ports.auditTile(tile));
    if (bytes === null) throw noTile(path);
    // Nobody but who asked may keep it; it never changes, and a narrow one is not asked for once there is a wider one.
    // What is left may become less.
    const maxAge = tile.width === tileWidth && pruned === undefined ? yearSeconds : hourSeconds;
    return reply
      .header('cache-control', `private, max-age=${maxAge}, immutable`)
      .type('application/octet-stream')
      .send(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  });
  addRoute<{ readonly index: string }>(app, 'GET /v1/audit/proof/:index', async (request, reply) => {
    const { format, witnessed } = parseInput(proofQuery, request.query, 'query_invalid');
    const isWitnessed = witnessed === 'true';
    const index = parseIndex(request.params.index);
    await noteRead(request, `proof of entry ${index}`);
    const proof = await ports.proveEntry(index, isWitnessed);
    if (proof === null) throw isWitnessed ? notWitnessed(index) : noEntry(request.params.index);
    if (format !== 'tlog-proof') return entryProofView(proof);
    // The entry itself goes along to whoever may read every entry.
    const extra = mayReadAll(callerOf(request).grants) ? proof.leaf : null;
    return reply.type(plainText).send(formatTlogProof({ ...proof, extra }));
  });
  addRoute(app, 'GET /v1/audit/consistency', async (request) => {
    const { from } = parseInput(consistencyQuery, request.query, 'query_invalid');
    const size = parseIndex(from);
    await noteRead(request, `consistency from ${size}`);
    const proof = await ports.proveConsistency(size);
    if (proof === null) {
      throw new MeshError('audit_log_shorter', `the log has fewer than ${from} entries`, {
        fix: 'where it had as many, it was set back to an older state',
      });
    }
    return consistencyProofView(proof);
  });
}

function entryProofView({ index, size, leafHash, path, checkpoint }: EntryProof): EntryProofView {
  return { index, size, leafHash: toHex(leafHash), hashes: path.map(toHex), checkpoint };
}

function consistencyProofView(proof: ConsistencyProof): ConsistencyProofView {
  const { from, fromRoot, size, path, checkpoint } = proof;
  return { from, fromRoot: toHex(fromRoot), size, hashes: path.map(toHex), checkpoint };
}

/** Entries are all leaves as they are: decisions stand among them. @throws MeshError `forbidden` */
function demandDecisions(grants: readonly Grant[]): void {
  if (mayReadAll(grants)) return;
  throw new MeshError('forbidden', 'entries of the log need the permission audit:decisions', {
    fix: `use a grant that gives it: ${rolesWith('audit:decisions').join(', ')}`,
  });
}

function mayReadAll(grants: readonly Grant[]): boolean {
  return scopeOf(grants, 'audit:decisions') === 'everywhere';
}

function there(text: string | null): string {
  if (text !== null) return text;
  throw new MeshError('audit_tile_not_found', 'the log has not been signed yet', {
    fix: 'restart the server',
  });
}

function parseIndex(text: string): number {
  if (!/^(0|[1-9][0-9]{0,15})$/.test(text) || !Number.isSafeInteger(Number(text))) throw noEntry(text);
  return Number(text);
}

function noEntry(text: string): MeshError {
  return new MeshError('audit_entry_not_found', `the log has no entry ${quote(text)}`, {
    fix: 'its checkpoint says how many it has; the first is 0',
  });
}

function notWitnessed(index: number): MeshError {
  return new MeshError('audit_quorum_missing', `no quorum of witnesses has cosigned entry ${index}`, {
    fix: 'wait a few seconds; countersign audit witnesses says who is in the way',
  });
}

function noTile(path: string): MeshError {
  return new MeshError('audit_tile_not_found', `the log has no ${quote(path)}`, {
    fix: 'its checkpoint says how many entries there are; tiles are named as in c2sp.org/tlog-tiles',
  });
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}

/** The query of `GET /v1/audit/log/tile/*`: `empty` for what is left of a bundle, with nothing for what is gone. */
export const tileQuery = z.strictObject({ pruned: z.enum(['empty']).optional() });
/** The query of `GET /v1/audit/proof/:index`. */
export const proofQuery = z.strictObject({
  format: z.enum(['json', 'tlog-proof']).optional(),
  witnessed: z.enum(['true', 'false']).optional(),
});
/** The query of `GET /v1/audit/consistency`. */
export const consistencyQuery = z.strictObject({
  from: z.string().regex(/^(0|[1-9][0-9]{0,15})$/, 'the number of entries of an older checkpoint'),
});
const plainText = 'text/plain; charset=utf-8';
const yearSeconds = 31_536_000;
const hourSeconds = 3_600;
