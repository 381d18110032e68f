import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { TLSSocket } from 'node:tls';
import type { RecordEvents } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { Attempt } from './attempt-log.ts';
import { addAuditRoutes, type AuditPorts, type NoteRead } from './audit-routes.ts';
import { addAuthzRoutes, type AuthzPorts } from './authz-routes.ts';
import { addAuthzenRoutes, type AuthzenPorts } from './authzen-routes.ts';
import { addAuthzenSearchRoutes } from './authzen-search-routes.ts';
import { besideRequestId, echoRequestId, mediaTypeCode } from './authzen-transport.ts';
import { addLintRoutes, type LintPorts } from './lint-routes.ts';
import { addReachRoutes, type ReachPorts } from './reach-routes.ts';
import { addBanRoutes, type BanPorts } from './ban-routes.ts';
import { type AccessPorts, admit, type Door, hostsOf, sourceAddress } from './authenticate.ts';
import type { RandomBytes } from './bearer-token.ts';
import { addCaRoutes, type CaPorts } from './ca-routes.ts';
import { hasOwnRecord, isSensitiveRead, openCallLog } from './call-log.ts';
import { callerOf } from './caller.ts';
import { certificateShown } from './certificate-shown.ts';
import { connectionsPerAddress, limitConnections } from './connection-limit.ts';
import { addDecisionRoutes, type DecisionPorts } from './decision-routes.ts';
import { addEntryRoutes, type EntryPorts } from './entry-routes.ts';
import { addGrantRoutes } from './grant-routes.ts';
import { answerUnread, everyAnswer, noSchemas, serverLimits } from './hardening.ts';
import { maxBodyBytes, parseJsonBody } from './json-body.ts';
import { addJwtRoutes } from './jwt-routes.ts';
import { addLogRoutes, type LogPorts } from './log-routes.ts';
import { checkMediaType } from './media-type.ts';
import { addNodeAliasRoutes } from './node-alias-routes.ts';
import { addNodeRoutes, type NodePorts } from './node-routes.ts';
import { addOpenApiRoutes } from './openapi-routes.ts';
import { addPolicyRoutes } from './policy-routes.ts';
import { addProofRoutes } from './proof-routes.ts';
import { addQuestionRoutes, type AuditorPorts } from './question-routes.ts';
import { problemMediaType, problemOf, type ReportFailure } from './problem.ts';
import type { IsAdministrator } from './permit.ts';
import { addReplayRoutes, type ReplayRoutePorts } from './replay-routes.ts';
import { addRevisionRoutes, type RevisionPorts } from './revision-routes.ts';
import { addRolloutRoutes, type RolloutPorts } from './rollout-routes.ts';
import { accessOf, type RouteAccess } from './roles.ts';
import { addShredRoutes, type ShredPorts } from './shred-routes.ts';
import { addSuggestRoutes } from './suggest-routes.ts';
import { addSystemRoutes, type SystemPorts } from './system-routes.ts';
import { tlsSettings } from './tls-settings.ts';
import { addTrace, type TraceRequest } from './trace.ts';
import { addTokenRoutes, type TokenPorts } from './token-routes.ts';

/** All that the admin API needs of the rest of the house. */
export type AdminPorts = Omit<EntryPorts, 'isAdministrator'> &
  AuditPorts &
  AuditorPorts &
  ReplayRoutePorts &
  LogPorts &
  ShredPorts &
  AuthzPorts &
  DecisionPorts &
  AuthzenPorts &
  Omit<ReachPorts, 'administration'> &
  Pick<LintPorts, 'policySet'> &
  CaPorts &
  Omit<BanPorts, 'isAdministrator'> &
  Omit<RevisionPorts, 'isAdministrator'> &
  Pick<RolloutPorts, 'rollouts'> &
  SystemPorts &
  TokenPorts & {
    readonly nodes: NodePorts;
    readonly access: Omit<AccessPorts, 'findToken'>;
    readonly recordEvents: RecordEvents;
    readonly clock: Clock;
    readonly randomBytes: RandomBytes;
    /** An error whose message stays inside; `errorId` is what the caller was told, empty when nobody was. */
    readonly reportFailure: ReportFailure;
    readonly trace?: TraceRequest;
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
    schemaController: noSchemas,
    // No header is longer, so none is too long for the router, which would answer by itself.
    routerOptions: { maxParamLength: serverLimits.maxHeaderSize },
    // The router would answer what it cannot decode before anybody is known; so it is sent where nothing is.
    rewriteUrl: ({ url = '' }) => (isDecodable(url) ? url : '/'),
    clientErrorHandler: (error, socket) => answerUnread(error, socket),
    // What the router refuses all the same never reaches the hooks.
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
  const { access } = ports;
  const isAdministrator: IsAdministrator = (id) =>
    access.isConfiguredAdmin(id) || access.grants().forSpiffeId(id).length > 0;
  const calls = openCallLog({
    record: ports.recordEvents,
    clock: ports.clock,
    report: ports.reportFailure,
  });
  const attemptOf = (request: FastifyRequest, rest: AttemptRest): Attempt => ({
    method: request.method,
    route: request.routeOptions.url ?? '(none)',
    sourceAddress: { personal: sourceAddress(request, door) },
    ...rest,
  });

  addTrace(app, ports.trace);
  app.addHook('onClose', () => calls.close());
  app.addHook('onRoute', ({ method, url }) => {
    for (const one of [method].flat()) accessOf(one, url);
  });
  app.decorateRequest('caller', null);
  app.decorateRequest('failure', null);
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(everyAnswer);
    echoRequestId(request, reply);
    const known = { ...access, findToken: ports.findToken };
    const admission = await admit(request, door, known, ports.clock.now());
    if ('refusal' in admission) {
      const { error, actor, detail } = admission.refusal;
      const refused = attemptOf(request, { action: 'refused', actor, code: error.code, detail });
      await calls.note(refused, undefined);
      // Nobody reads the body of a refused request: the connection goes, not the bytes.
      reply.header('connection', 'close');
      throw error;
    }
    request.caller = admission.caller;
    checkMediaType(request, mediaTypeCode(request));
  });
  app.addHook('preHandler', async (request) => {
    if (request.caller === null || !isSensitiveRead(accessOfRequest(request))) return;
    const { actor } = request.caller;
    await calls.demand(attemptOf(request, { action: 'called', actor, code: '', detail: '' }));
  });
  app.addHook('onSend', async (request) => {
    const { caller, failure } = request;
    const required = accessOfRequest(request);
    // What has been recorded already is not recorded twice.
    const isRecorded = failure === null && hasOwnRecord(required);
    if (caller === null || isRecorded) return;
    const { code, detail } = failure ?? { code: '', detail: '' };
    const isRefused = code === 'forbidden';
    await calls.note(
      attemptOf(request, {
        action: isRefused ? 'refused' : 'called',
        actor: caller.actor,
        code,
        detail: isRefused ? detail : '',
      }),
      required,
    );
  });
  app.addHook('onSend', async (_request, reply, payload) => besideRequestId(reply, payload));
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (_request: unknown, body: Buffer) => parseJsonBody(body),
  );
  app.setErrorHandler(async (error, request, reply) => {
    const answer = problem(error);
    request.failure = { code: answer.code, detail: answer.detail };
    if (answer.status === 401) reply.header('www-authenticate', 'Bearer');
    return reply.code(answer.status).type(problemMediaType).send(JSON.stringify(answer));
  });
  app.setNotFoundHandler(() => {
    throw new MeshError('route_not_found', 'no such route', { fix: 'see docs/rest-api.md for all routes' });
  });

  addSystemRoutes(app, ports);
  addOpenApiRoutes(app);
  addEntryRoutes(app, { ...ports, isAdministrator });
  addPolicyRoutes(app, ports);
  addRevisionRoutes(app, { ...ports, isAdministrator }, access.trustDomain);
  addRolloutRoutes(app, { ...ports, isAdministrator });
  addAuthzRoutes(app, ports, access.trustDomain);
  addReachRoutes(app, ports, access.trustDomain);
  addAuthzenRoutes(app, ports, access.trustDomain, hostsOf(door));
  addAuthzenSearchRoutes(app, ports, access.trustDomain);
  addLintRoutes(app, ports, access.trustDomain);
  addProofRoutes(app, ports, access.trustDomain);
  addBanRoutes(app, { ...ports, isAdministrator }, access.trustDomain);
  const noteRead: NoteRead = (request, detail) => {
    const { actor } = callerOf(request);
    return calls.demand(attemptOf(request, { action: 'audit_read', actor, code: '', detail }));
  };
  addAuditRoutes(app, ports, noteRead);
  addDecisionRoutes(app, ports, noteRead);
  addQuestionRoutes(app, ports, noteRead);
  addReplayRoutes(app, ports, noteRead);
  addSuggestRoutes(app, ports, noteRead);
  addLogRoutes(app, ports, noteRead);
  addShredRoutes(app, ports);
  addCaRoutes(app, ports);
  addJwtRoutes(app, ports);
  addTokenRoutes(app, ports, (request) => sourceAddress(request, door));
  addGrantRoutes(app, ports);
  addNodeAliasRoutes(app, { ...ports, isAdministrator });
  addNodeRoutes(app, ports, (request) => sourceAddress(request, door));
  await app.ready();
  return app;
}

type AttemptRest = Pick<Attempt, 'action' | 'actor' | 'code' | 'detail'>;

function isDecodable(url: string): boolean {
  try {
    decodeURIComponent(url.split('?', 1)[0] ?? '');
    return true;
  } catch {
    return false;
  }
}

/** Undefined for a path that is no route. */
function accessOfRequest({ method, routeOptions: { url } }: FastifyRequest): RouteAccess | undefined {
  return url === undefined ? undefined : accessOf(method, url);
}

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
            // INVARIANT: TLS proves the key of a certificate and nothing else; authenticate.ts judges it at every request.
            requestCert: true,
            rejectUnauthorized: false,
          },
          handler,
        );
  server.on('secureConnection', (socket: TLSSocket) => {
    // Nothing is resumed, for tickets are off: a session that is would carry a certificate that nobody has shown.
    if (socket.isSessionReused()) socket.destroy();
    // Read while the connection is sure to be open.
    else certificateShown(socket);
  });
  // An expectation that nobody knows is passed over: Node would answer 417 before anybody is known.
  server.on('checkExpectation', handler);
  if (door.kind === 'unix') server.maxConnections = maxConnections;
  else limitConnections(server, { total: maxConnections, perAddress: connectionsPerAddress });
  server.maxRequestsPerSocket = 10_000;
  return server;
}

const maxConnections = 256;
