import { z } from 'zod';
import { attestationMethods } from '../identity/node.ts';
import type { NodeAlias } from '../identity/node-alias.ts';
import type { NodeAliasReport } from './node-alias-routes.ts';
import { evictBody, type JoinTokenView, type NodeView, tokenBody as joinTokenBody } from './node-routes.ts';
import {
  count,
  json,
  pageSchema,
  revisedPageSchema,
  revision,
  type RouteDocs,
  time,
} from './openapi-route.ts';
import { pageQuery } from './page.ts';
import type { Travelled } from './travelled.ts';

const nodeSchema: z.ZodType<Travelled<NodeView>> = z.object({
  name: z.string(),
  method: z.enum(attestationMethods),
  selectors: z.array(z.string()),
  attestedAt: time,
  renewedAt: time,
  notAfter: time,
  serials: z.array(z.string()),
  evictedAt: time.nullable(),
  state: z.enum(['joining', 'attested', 'expired', 'evicted', 'banned']),
  presence: z.object({
    connected: z.boolean(),
    since: time.nullable(),
    lastContactAt: time.nullable(),
    agentVersion: z.string(),
    takesRollouts: z.boolean(),
    viewSent: count,
    viewInForce: count,
    behindSince: time.nullable(),
    report: z
      .object({
        eventsQueued: count,
        eventsLost: count,
        workloads: count,
        darkAt: time.nullable(),
        proxyPolicies: z
          .object({
            filters: count,
            behind: count,
            rejecting: count,
            lacking: count,
            oldestPolicy: count.nullable(),
          })
          .nullable(),
      })
      .nullable(),
  }),
});
const nodePageSchema = pageSchema(nodeSchema);
const joinTokenFields = {
  id: z.string(),
  node: z.string(),
  createdAt: time,
  expiresAt: time,
  usedAt: time.nullable(),
};
const joinTokenSchema: z.ZodType<Travelled<JoinTokenView>> = z.object(joinTokenFields);
const joinTokenPageSchema = pageSchema(joinTokenSchema);
const newJoinTokenSchema = z.object({ ...joinTokenFields, token: z.string(), nodeAddress: z.string() });

const aliasFields = { name: z.string(), selectors: z.array(z.string()), revision };
const nodeAliasSchema: z.ZodType<NodeAlias> = z.object(aliasFields);
const nodeAliasPageSchema = revisedPageSchema(nodeAliasSchema);
const nodeAliasReportSchema: z.ZodType<NodeAliasReport> = z.object({
  ...aliasFields,
  nodes: z.array(z.string()),
  nodeCount: count,
  entries: z.array(z.string()),
  entryCount: count,
});

/** Nodes and the tokens that let them in. */
export const nodeDocs = {
  schemas: {
    Node: nodeSchema,
    NodePage: nodePageSchema,
    Evict: evictBody,
    JoinToken: joinTokenSchema,
    JoinTokenPage: joinTokenPageSchema,
    JoinTokenWish: joinTokenBody,
    NewJoinToken: newJoinTokenSchema,
    NodeAlias: nodeAliasSchema,
    NodeAliasPage: nodeAliasPageSchema,
    NodeAliasReport: nodeAliasReportSchema,
  },
  routes: {
    'GET /v1/nodes': {
      summary: 'a page of nodes',
      query: pageQuery,
      answers: { 200: json(nodePageSchema) },
      codes: [],
    },
    'GET /v1/nodes/:name': {
      summary: 'one node',
      answers: { 200: json(nodeSchema) },
      codes: ['node_not_found'],
    },
    'POST /v1/nodes/:name/evict': {
      summary: 'refuses every certificate of a node from now on; it may attest again',
      body: evictBody,
      answers: { 200: json(nodeSchema) },
      codes: ['node_not_found', 'body_invalid', 'body_too_large', 'media_type_unsupported'],
    },
    'GET /v1/node-aliases': {
      summary: 'a page of node aliases',
      query: pageQuery,
      answers: { 200: json(nodeAliasPageSchema) },
      codes: [],
    },
    'GET /v1/node-aliases/:name': {
      summary: 'one node alias, the nodes behind it, and the entries that name it',
      answers: { 200: json(nodeAliasReportSchema) },
      codes: ['node_alias_not_found'],
    },
    'DELETE /v1/node-aliases/:name': {
      summary: 'deletes a node alias that no entry names',
      answers: { 204: null },
      codes: ['node_alias_not_found', 'node_alias_in_use', 'revision_conflict'],
    },
    'GET /v1/join-tokens': {
      summary: 'a page of join tokens, without their secrets',
      query: pageQuery,
      answers: { 200: json(joinTokenPageSchema) },
      codes: [],
    },
    'POST /v1/join-tokens': {
      summary: 'makes a join token; no other answer ever holds it',
      body: joinTokenBody,
      answers: { 201: json(newJoinTokenSchema) },
      codes: ['node_api_off', 'node_name_invalid'],
    },
    'DELETE /v1/join-tokens/:id': {
      summary: 'takes a join token back',
      answers: { 204: null },
      codes: ['join_token_not_found'],
    },
  },
} as const satisfies RouteDocs;
