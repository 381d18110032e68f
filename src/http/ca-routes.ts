import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { maxChainBytes, readChain } from '../ca/chain.ts';
import type { RevocationList } from '../ca/crl.ts';
import { MeshError, quote } from '../errors.ts';
import { encodePem } from '../spiffe/pem.ts';
import type { CaPort, CaReport } from './ca-report.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import type { JwtPort, JwtReport } from './jwt-report.ts';
import { addRoute } from './route.ts';

/** What the CA's routes need of the house. */
export type CaPorts = {
  readonly ca: CaPort;
  readonly jwt: JwtPort;
  /** One current revocation list of every CA that signs leaves. */
  readonly revocationLists: () => Promise<readonly RevocationList[]>;
};

/** Keys of both kinds: those that sign certificates and those that sign tokens. */
export type KeyReport = CaReport & JwtReport;

/** The CA's keys and their rotation. Every step answers with the report that follows it. */
export function addCaRoutes(app: FastifyInstance, { ca, jwt, revocationLists }: CaPorts): void {
  const withJwt = async (report: CaReport): Promise<KeyReport> => ({ ...report, ...(await jwt.report()) });
  const afterJwt = async (step: Promise<void>): Promise<KeyReport> => {
    await step;
    return withJwt(await ca.report());
  };
  addRoute(app, 'GET /v1/ca', async () => withJwt(await ca.report()));
  addRoute(app, 'GET /v1/ca/crl', async (request, reply) => {
    const { keyId } = parseInput(crlQuery, request.query, 'query_invalid');
    const lists = (await revocationLists()).filter(
      ({ issuerKeyId }) => keyId === undefined || issuerKeyId === keyId,
    );
    const [list, ...others] = lists;
    if (list === undefined) {
      throw new MeshError('authority_not_found', `no CA ${quote(keyId ?? '')} signs leaves`, {
        fix: 'see the intermediates of `countersign ca status`',
      });
    }
    if (request.headers.accept === derMediaType) {
      if (others.length === 0) return reply.type(derMediaType).send(Buffer.from(list.der));
      throw new MeshError('query_invalid', `there are ${lists.length} lists, and DER holds one`, {
        fix: 'name the CA with keyId',
      });
    }
    return reply
      .type('application/x-pem-file')
      .send(lists.map(({ der }) => encodePem('X509 CRL', der)).join(''));
  });
  addRoute(app, 'POST /v1/ca/rotate', async (request) => {
    const { scope, offline = false } = parseInput(rotateBody, request.body, 'body_invalid');
    const { actor } = callerOf(request);
    return scope === 'jwt' ? afterJwt(jwt.rotate(actor)) : withJwt(await ca.rotate(scope, actor, offline));
  });
  addRoute(app, 'GET /v1/ca/csr', async () => {
    const { keyId, csr } = ca.request();
    return { keyId, pem: encodePem('CERTIFICATE REQUEST', csr) };
  });
  addRoute(app, 'POST /v1/ca/import', async (request) => {
    const { pem, file = 'chain.pem' } = parseInput(importBody, request.body, 'body_invalid');
    return withJwt(await ca.importChain(readChain(pem, file), callerOf(request).actor));
  });
  addRoute(app, 'POST /v1/ca/activate', async (request) => {
    const { force = false, scope } = parseInput(forceBody, request.body, 'body_invalid');
    const { actor } = callerOf(request);
    return scope === 'jwt' ? afterJwt(jwt.activate(force, actor)) : withJwt(await ca.activate(force, actor));
  });
  addRoute(app, 'POST /v1/ca/retire', async (request) => {
    const { force = false, scope } = parseInput(forceBody, request.body, 'body_invalid');
    const { actor } = callerOf(request);
    return scope === 'jwt' ? afterJwt(jwt.retire(force, actor)) : withJwt(await ca.retire(force, actor));
  });
  addRoute(app, 'POST /v1/ca/taint', async (request) => {
    const { keyId } = parseInput(taintBody, request.body, 'body_invalid');
    const { actor } = callerOf(request);
    return jwt.owns(keyId) ? afterJwt(jwt.taint(keyId, actor)) : withJwt(await ca.taint(keyId, actor));
  });
}

/** The body of `POST /v1/ca/rotate`. */
export const rotateBody = z
  .strictObject({ scope: z.enum(['root', 'intermediate', 'jwt']), offline: z.boolean().optional() })
  .refine(({ scope, offline }) => offline !== true || scope === 'root', 'offline goes with the scope root');
/** The body of `POST /v1/ca/import`. */
export const importBody = z.strictObject({
  pem: z.string().max(maxChainBytes),
  file: z.string().max(4_096).optional(),
});
/** The body of `activate` and `retire`. */
export const forceBody = z.strictObject({
  force: z.boolean().optional(),
  scope: z.enum(['x509', 'jwt']).optional(),
});
const keyId = z.string().regex(/^[0-9a-f]{40}$/, '40 lower-case hex digits');
/** The body of `POST /v1/ca/taint`. */
export const taintBody = z.strictObject({ keyId });
/** The query of `GET /v1/ca/crl`. */
export const crlQuery = z.strictObject({ keyId: keyId.optional() });
const derMediaType = 'application/pkix-crl';
