import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { RecordEvents } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { type Attempt, openAttemptLog } from './attempt-log.ts';
import { addAuditRoutes, type AuditPorts } from './audit-routes.ts';
import { addAuthzRoutes, type AuthzPorts } from './authz-routes.ts';
import { addBanRoutes, type BanPorts } from './ban-routes.ts';
import { admit, type Door, sourceAddress } from './authenticate.ts';
import type { RandomBytes } from './bearer-token.ts';
import { addCaRoutes, type CaPorts } from './ca-routes.ts';
import { callerOf } from './caller.ts';
import { connectionsPerAddress, limitConnections } from './connection-limit.ts';
import { addEntryRoutes, type EntryPorts } from './entry-routes.ts';
import { answerUnread, everyAnswer, serverLimits } from './hardening.ts';
import { maxBodyBytes, parseJsonBody } from './json-body.ts';
import { addJwtRoutes } from './jwt-routes.ts';
import { checkMediaType } from './media-type.ts';
import { addNodeRoutes, type NodePorts } from './node-routes.ts';
import { addPolicyRoutes } from './policy-routes.ts';
import { problemMediaType, problemOf, type ReportFailure } from './problem.ts';
import { accessOf } from './roles.ts';
import { addSystemRoutes, type SystemPorts } from './system-routes.ts';
import { tlsSettings } from './tls-settings.ts';
import { addTokenRoutes, type TokenPorts } from './token-routes.ts';

/** All that the admin API needs of the rest of the house. */
export type AdminPorts = EntryPorts &
  AuditPorts &
  AuthzPorts &
  CaPorts &
  BanPorts &
  SystemPorts &
  TokenPorts & {
    readonly nodes: NodePorts;
    readonly recordEvents: RecordEvents;
    readonly clock: Clock;
    readonly randomBytes: RandomBytes;
    /** An error whose message stays inside; `errorId` is what the caller was told, empty when nobody was. */
    readonly reportFailure: ReportFailure;
  };

/**
 * Makes the admin REST API for one door; `listener.ts` opens it. Default-deny: every route has a line in `roles.ts`,
 * and a caller is admitted before a byte of the body is read.
 */
export async function createAdminApp(ports: AdminPorts, door: Door): Promise<FastifyInstance> {
  const app = fastify({
    serverFactory: (handler) => createServer(door, handler),
    bodyLimit: maxBodyBytes,
    exposeHeadRoutes: false,
    // A SPIFFE ID of 2,048 bytes, each escaped.
    routerOptions: { maxParamLength: 6_144 },
    clientErrorHandler: (error, socket) => answerUnread(error, socket),
    // A URL that cannot be decoded never reaches the hooks, so it is answered before anybody is known.
    frameworkErrors: (error, _request, reply: FastifyReply) => {
      void reply
        .headers(everyAnswer)
        .code(404)
        .type(problemMediaType)
        .send(JSON.stringify(problem(error)));
    },
  });
  const problem = (error: unknown) =>
    problemOf(error, ports.reportFailure, () => Buffer.from(ports.randomBytes(8)).toString('hex'));
  const attempts = openAttemptLog({
    record: ports.recordEvents,
    clock: ports.clock,
    report: ports.reportFailure,
  });
  const attempt = (request: FastifyRequest, rest: AttemptRest): Promise<void> =>
    attempts.note({
      method: request.method,
      route: request.routeOptions.url ?? '(none)',
      sourceAddress: { personal: sourceAddress(request, door) },
      ...rest,
    });

  app.addHook('onClose', () => attempts.close());
  app.addHook('onRoute', ({ method, url }) => {
    for (const one of [method].flat()) accessOf(one, url);
  });
  app.decorateRequest('caller', null);
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(everyAnswer);
    const admission = await admit(request, door, ports.findToken, ports.clock.now());
    if ('refusal' in admission) {
      const { error, actor, detail } = admission.refusal;
      await attempt(request, { action: 'refused', actor, code: error.code, detail }).catch((cause: unknown) =>
        ports.reportFailure('', cause),
      );
      // Nobody reads the body of a refused request: the connection goes, not the bytes.
      reply.header('connection', 'close');
      throw error;
    }
    request.caller = admission.caller;
    checkMediaType(request);
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (_request: unknown, body: Buffer) => parseJsonBody(body),
  );
  app.setErrorHandler(async (error, _request, reply) => {
    const answer = problem(error);
    if (answer.status === 401) reply.header('www-authenticate', 'Bearer');
    return reply.code(answer.status).type(problemMediaType).send(JSON.stringify(answer));
  });
  app.setNotFoundHandler(() => {
    throw new MeshError('route_not_found', 'no such route', { fix: 'see docs/rest-api.md for all routes' });
  });

  addSystemRoutes(app, ports);
  addEntryRoutes(app, ports);
  addPolicyRoutes(app, ports);
  addAuthzRoutes(app, ports);
  addBanRoutes(app, ports);
  addAuditRoutes(app, ports, (request, detail) =>
    attempt(request, { action: 'audit_read', actor: callerOf(request).actor, code: '', detail }),
  );
  addCaRoutes(app, ports);
  addJwtRoutes(app, ports);
  addTokenRoutes(app, ports, (request) => sourceAddress(request, door));
  addNodeRoutes(app, ports, (request) => sourceAddress(request, door));
  await app.ready();
  return app;
}

type AttemptRest = Pick<Attempt, 'action' | 'actor' | 'code' | 'detail'>;

function createServer(door: Door, handler: RequestListener): Server {
  const server =
    door.kind === 'unix'
      ? createHttpServer(serverLimits, handler)
      : createHttpsServer(
          {
            ...serverLimits,
            ...tlsSettings(door.certificate, door.privateKey),
            ALPNProtocols: ['http/1.1'],
            handshakeTimeout: 10_000,
          },
          handler,
        );
  if (door.kind === 'unix') server.maxConnections = maxConnections;
  else limitConnections(server, { total: maxConnections, perAddress: connectionsPerAddress });
  server.maxRequestsPerSocket = 10_000;
  return server;
}

const maxConnections = 256;
