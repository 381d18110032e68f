import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { MeshError } from '../errors.ts';
import type { RandomBytes } from './bearer-token.ts';
import { everyAnswer, hasBody } from './hardening.ts';
import { checkHost, checkOrigin } from './origin.ts';
import { problemMediaType, problemOf, type ReportFailure } from './problem.ts';
import type { AgentReadiness } from './status-report.ts';

/** What the endpoint of an agent needs of the house; a door for metrics alone leaves out the status. */
export type AgentPorts = {
  readonly readiness: () => AgentReadiness;
  /** OpenMetrics text. */
  readonly metricsText: () => string;
  readonly status?: () => unknown;
  readonly randomBytes: RandomBytes;
  readonly reportFailure: ReportFailure;
};

/** Where it answers, and therefore whom: uids on a Unix socket; everybody on a loopback address. */
export type AgentDoor =
  | {
      readonly kind: 'unix';
      /** The uid at the other end, from the kernel. Throwing refuses the caller. */
      readonly peerUid: (socket: Socket) => number;
      /** Who may use it. */
      readonly adminUids: ReadonlySet<number>;
    }
  | { readonly kind: 'loopback' };

/** Whom a route answers: `public` anybody, `owner` the uids of the door. */
export type AgentAccess = 'public' | 'owner';

// INVARIANT: what is not in the table of a door is not answered there.
const routes: Readonly<Record<AgentDoor['kind'], Readonly<Record<string, AgentAccess>>>> = {
  unix: { '/healthz': 'public', '/readyz': 'public', '/metrics': 'owner', '/v1/status': 'owner' },
  loopback: { '/healthz': 'public', '/readyz': 'public', '/metrics': 'public' },
};

/** The paths of a door, all for GET, and whom they answer. */
export function agentRoutes(door: AgentDoor['kind']): ReadonlyMap<string, AgentAccess> {
  return new Map(Object.entries(routes[door]));
}

/**
 * Answers what an agent tells of itself: GET alone, no body is read. Whoever asks is known before anything is looked at.
 * Its 404 says where the rest of the admin API is.
 */
export function createAgentHandler(ports: AgentPorts, door: AgentDoor): RequestListener {
  const known = agentRoutes(door.kind);
  return (request, response) => {
    for (const [name, value] of Object.entries(everyAnswer)) response.setHeader(name, value);
    void answer(request, response).catch((error: unknown) => refuse(error, response));
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = ''] = (request.url ?? '').split('?', 1);
    const access = known.get(path);
    // An unknown path answers 404 only to those who may look around.
    if (access !== 'public' || door.kind === 'loopback') admit(request);
    if (access === undefined) {
      throw new MeshError('route_not_found', 'no such route: this is what an agent tells of itself', {
        fix: 'ask the server for everything else; an agent has /healthz, /readyz, /metrics and /v1/status',
      });
    }
    if (request.method !== 'GET') {
      response.setHeader('allow', 'GET');
      throw new MeshError('method_not_allowed', 'this can only be read', { fix: 'use GET' });
    }
    if (hasBody(request)) {
      throw new MeshError('body_invalid', 'the request has a body, which nobody reads', {
        fix: 'send none',
      });
    }
    const { status, type, body } = await answerOf(path);
    response.setHeader('content-type', type);
    response.setHeader('content-length', Buffer.byteLength(body));
    response.writeHead(status).end(body);
  }

  function admit(request: IncomingMessage): void {
    const misled = checkHost(request, localHosts) ?? checkOrigin(request, false);
    if (misled !== undefined) throw misled;
    if (door.kind === 'loopback') return;
    let uid: number;
    try {
      uid = door.peerUid(request.socket);
    } catch {
      throw new MeshError('unauthenticated', 'the kernel did not say who is connected');
    }
    if (door.adminUids.has(uid)) return;
    throw new MeshError('forbidden', `uid ${uid} may not use this socket`, {
      fix: 'run the command as the user of the agent or as root, or add the uid to adminUids',
    });
  }

  async function answerOf(path: string): Promise<Found> {
    switch (path) {
      case '/healthz':
        return json(200, { status: 'ok' });
      case '/readyz': {
        const readiness = ports.readiness();
        return json(readiness.ready ? 200 : 503, readiness);
      }
      case '/metrics':
        return { status: 200, type: openMetricsType, body: ports.metricsText() };
      default:
        return json(200, await ports.status?.());
    }
  }

  function refuse(error: unknown, response: ServerResponse): void {
    const problem = problemOf(error, ports.reportFailure, () =>
      Buffer.from(ports.randomBytes(8)).toString('hex'),
    );
    if (response.headersSent) return void response.destroy();
    const body = JSON.stringify(problem);
    response.setHeader('content-type', problemMediaType);
    response.setHeader('content-length', Buffer.byteLength(body));
    // Nobody reads the body of a refused request: the connection goes, not the bytes.
    response.setHeader('connection', 'close');
    response.writeHead(problem.status).end(body);
  }
}

type Found = { readonly status: number; readonly type: string; readonly body: string };

function json(status: number, value: unknown): Found {
  return { status, type: 'application/json; charset=utf-8', body: JSON.stringify(value ?? null) };
}

// A socket made reachable by some relay, or a name rebound to this machine, must not be reachable from web pages.
const localHosts: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]']);
const openMetricsType = 'application/openmetrics-text; version=1.0.0; charset=utf-8';
