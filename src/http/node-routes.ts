import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { AuditEvent, NodeEvent } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import {
  type AttestedNode,
  defaultJoinTokenSeconds,
  type JoinToken,
  maxJoinTokenSeconds,
  minJoinTokenSeconds,
  nodeSpiffeId,
  parseChosenNodeName,
} from '../identity/node.ts';
import type { NodePresence } from '../identity/node-presence.ts';
import { hashBytes, type RandomBytes } from './bearer-token.ts';
import type { AccessPorts } from './authenticate.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { addRoute } from './route.ts';

/** What nodes need of the house. */
export type NodePorts = {
  /** `host:port` of the node API, or null when it is off. */
  readonly nodeAddress: string | null;
  readonly registry: {
    readonly all: () => readonly AttestedNode[];
    readonly find: (name: string) => AttestedNode | undefined;
    /** @throws MeshError `node_not_found` */
    readonly evict: (name: string, actor: NodeEvent['actor']) => Promise<AttestedNode>;
  };
  /** What was seen of a node since the start. */
  readonly presence: (name: string) => NodePresence;
  readonly listJoinTokens: () => Promise<readonly JoinToken[]>;
  readonly createJoinToken: (token: JoinToken, events: readonly AuditEvent[]) => Promise<void>;
  /** @throws MeshError `join_token_not_found` */
  readonly revokeJoinToken: (id: string, events: readonly AuditEvent[]) => Promise<void>;
  /** What is carried to the node: the secret, and what the server will be known by. */
  readonly formatJoinSecret: (secret: string) => string;
};

/** A join token in a list: never its secret, nor the hash of it. */
export type JoinTokenView = Omit<JoinToken, 'secretSha256'>;

/** A node as the API shows it. */
export type NodeView = AttestedNode & {
  readonly state: 'joining' | 'attested' | 'expired' | 'evicted' | 'banned';
  readonly presence: NodePresence;
};

/** Nodes and the tokens that let them in. */
export function addNodeRoutes(
  app: FastifyInstance,
  ports: {
    readonly nodes: NodePorts;
    readonly access: Pick<AccessPorts, 'bans' | 'trustDomain'>;
    readonly clock: Clock;
    readonly randomBytes: RandomBytes;
  },
  sourceAddress: (request: FastifyRequest) => string,
): void {
  const { nodes, access, clock, randomBytes } = ports;
  const eventOf = (
    request: FastifyRequest,
    action: 'token_created' | 'token_revoked',
    node: string,
    id: string,
  ): NodeEvent => ({
    type: 'node',
    time: clock.now(),
    action,
    node,
    method: 'join_token',
    selectors: [`join_token:id:${id}`],
    serial: '',
    code: '',
    actor: callerOf(request).actor,
    sourceAddress: { personal: sourceAddress(request) },
  });

  const isBanned = ({ name }: AttestedNode, now: Date): boolean =>
    access.bans().find({ id: nodeSpiffeId(access.trustDomain, name) }, now) !== undefined;
  const viewOf = (node: AttestedNode, now: Date): NodeView => ({
    ...node,
    state: isBanned(node, now) ? 'banned' : stateOf(node, now),
    presence: nodes.presence(node.name),
  });

  addRoute(app, 'GET /v1/nodes', async (request) => {
    const query = parseInput(pageQuery, request.query, 'query_invalid');
    const now = clock.now();
    return pageOf(new Map(nodes.registry.all().map((node) => [node.name, viewOf(node, now)])), query);
  });
  addRoute<{ name: string }>(app, 'GET /v1/nodes/:name', async (request) => {
    const { name } = request.params;
    const node = nodes.registry.find(name);
    if (node !== undefined) return viewOf(node, clock.now());
    throw new MeshError('node_not_found', `there is no node ${quote(name)}`, {
      fix: 'countersign node list shows all nodes',
    });
  });
  addRoute<{ name: string }>(app, 'POST /v1/nodes/:name/evict', async (request) => {
    parseInput(evictBody, request.body, 'body_invalid');
    return viewOf(await nodes.registry.evict(request.params.name, callerOf(request).actor), clock.now());
  });
  addRoute(app, 'GET /v1/join-tokens', async (request) => {
    const query = parseInput(pageQuery, request.query, 'query_invalid');
    const tokens = await nodes.listJoinTokens();
    return pageOf(new Map(tokens.map((token) => [token.id, tokenView(token)])), query);
  });
  addRoute(app, 'POST /v1/join-tokens', async (request, reply) => {
    const { node, lifeSeconds = defaultJoinTokenSeconds } = parseInput(
      tokenBody,
      request.body,
      'body_invalid',
    );
    if (nodes.nodeAddress === null) {
      throw new MeshError('node_api_off', 'no node can join: the node API is off', {
        fix: 'run countersign server, or set nodeAddress',
      });
    }
    const now = clock.now();
    const secret = randomBytes(secretBytes);
    const token: JoinToken = {
      id: Buffer.from(randomBytes(idBytes)).toString('hex'),
      node: parseChosenNodeName(node),
      secretSha256: hashBytes(secret),
      createdAt: now,
      expiresAt: new Date(now.getTime() + lifeSeconds * 1_000),
      usedAt: null,
    };
    await nodes.createJoinToken(token, [eventOf(request, 'token_created', token.node, token.id)]);
    const text = nodes.formatJoinSecret(Buffer.from(secret).toString('hex'));
    return reply.code(201).send({ ...tokenView(token), token: text, nodeAddress: nodes.nodeAddress });
  });
  addRoute<{ id: string }>(app, 'DELETE /v1/join-tokens/:id', async (request, reply) => {
    const { id } = request.params;
    const known = (await nodes.listJoinTokens()).find((token) => token.id === id);
    await nodes.revokeJoinToken(id, [eventOf(request, 'token_revoked', known?.node ?? '', id)]);
    return reply.code(204).send();
  });
}

function tokenView({ id, node, createdAt, expiresAt, usedAt }: JoinToken): JoinTokenView {
  return { id, node, createdAt, expiresAt, usedAt };
}

function stateOf(node: AttestedNode, now: Date): Exclude<NodeView['state'], 'banned'> {
  if (node.evictedAt !== null) return 'evicted';
  return node.serials.length === 0 ? 'joining' : node.notAfter <= now ? 'expired' : 'attested';
}

/** The body that evicts a node: there is nothing to say. */
export const evictBody = z.strictObject({});
/** The body that makes a join token. */
export const tokenBody = z.strictObject({
  node: z.string().max(4_096),
  lifeSeconds: z.number().int().min(minJoinTokenSeconds).max(maxJoinTokenSeconds).optional(),
});
const secretBytes = 32;
const idBytes = 8;
