import { z } from 'zod';
import { type ErrorCode, MeshError } from '../errors.ts';
import { rolesWith } from '../identity/access.ts';
import { accessDocs } from './openapi-access.ts';
import { auditDocs } from './openapi-audit.ts';
import { authzenDocs } from './openapi-authzen.ts';
import { banDocs } from './openapi-bans.ts';
import { decisionDocs } from './openapi-decisions.ts';
import { entryDocs } from './openapi-entries.ts';
import { keyDocs } from './openapi-keys.ts';
import { logDocs } from './openapi-log.ts';
import { nodeDocs } from './openapi-nodes.ts';
import { proofDocs } from './openapi-proofs.ts';
import { questionDocs } from './openapi-questions.ts';
import { replayDocs } from './openapi-replay.ts';
import { revisionDocs } from './openapi-revisions.ts';
import { rolloutDocs } from './openapi-rollout.ts';
import { problemSchema, type RouteAnswer, type RouteDoc, type RouteDocs } from './openapi-route.ts';
import { systemDocs } from './openapi-system.ts';
import { statusOf } from './problem.ts';
import { routeAccess, type RouteName } from './roles.ts';

/**
 * What is told of every route.
 *
 * INVARIANT: a route of `roles.ts` without an entry does not compile. Its entry goes into the `openapi-*.ts` of its room.
 */
export const routeDocs: Readonly<Record<RouteName, RouteDoc>> = {
  ...systemDocs.routes,
  ...entryDocs.routes,
  ...authzenDocs.routes,
  ...auditDocs.routes,
  ...banDocs.routes,
  ...keyDocs.routes,
  ...logDocs.routes,
  ...nodeDocs.routes,
  ...accessDocs.routes,
  ...revisionDocs.routes,
  ...rolloutDocs.routes,
  ...decisionDocs.routes,
  ...questionDocs.routes,
  ...proofDocs.routes,
  ...replayDocs.routes,
};

/** A JSON value, as far as a document is made of it. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };

/** A part of the document. */
export type JsonObject = { readonly [name: string]: Json };

/**
 * Makes the OpenAPI document of the admin API, from the schemas that its routes parse with and from those of their
 * answers.
 * @param closed answers may have no field that is not named: for checking answers of this very version. Clients must bear
 *   new ones, so the document that is served says nothing of the kind.
 * @throws MeshError `internal` when a schema is not among the named ones
 * @see OpenAPI Specification 3.1.1
 */
export function createOpenApiDocument(closed = false): JsonObject {
  const named = namedSchemas();
  const refOf = (schema: z.ZodType): JsonObject => {
    const name = named.get(schema);
    if (name === undefined) throw new MeshError('internal', 'a schema of the API has no name');
    return { $ref: `${schemaPath}${name}` };
  };
  return {
    openapi: '3.1.1',
    info: {
      title: 'Countersign admin API',
      version: '1.0.0',
      summary: 'What operators and programs ask of the authority.',
      description: preface,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [
      { url: 'https://localhost:7443', description: 'TLS, with a token or a certificate' },
      { url: 'http://localhost', description: 'the admin socket of this machine; the kernel says who asks' },
    ],
    security: [{ bearer: [] }, { certificate: [] }],
    paths: pathsOf(refOf),
    components: {
      schemas: componentsOf(named, closed),
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'a token that `countersign token create` made',
        },
        certificate: { type: 'mutualTLS', description: 'an X509-SVID of an administrator' },
      },
    },
  };
}

const rooms: readonly RouteDocs[] = [
  systemDocs,
  entryDocs,
  authzenDocs,
  auditDocs,
  banDocs,
  keyDocs,
  logDocs,
  nodeDocs,
  accessDocs,
  revisionDocs,
  proofDocs,
  rolloutDocs,
  decisionDocs,
  questionDocs,
  replayDocs,
];

function namedSchemas(): ReadonlyMap<z.ZodType, string> {
  return new Map(
    [['Problem', problemSchema] as const, ...rooms.flatMap(({ schemas }) => Object.entries(schemas))].map(
      ([name, schema]) => [schema, name],
    ),
  );
}

function componentsOf(named: ReadonlyMap<z.ZodType, string>, closed: boolean): JsonObject {
  const registry = z.registry<{ id: string }>();
  for (const [schema, id] of named) registry.add(schema, { id });
  const { schemas } = z.toJSONSchema(registry, {
    uri: (id) => `${schemaPath}${id}`,
    io: closed ? 'output' : 'input',
    // Bodies are what callers write; `closed` is for answers, which nothing is transformed in.
    unrepresentable: 'any',
    override: ({ jsonSchema }) => {
      // `format` says it, and better than an expression of 300 characters.
      if (jsonSchema.format === 'date-time') delete jsonSchema.pattern;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
    },
  });
  return Object.fromEntries(
    Object.entries(schemas).map(([name, schema]) => {
      const plain: Record<string, unknown> = { ...schema };
      delete plain['$schema'];
      delete plain['$id'];
      return [name, plain as JsonObject];
    }),
  );
}

function pathsOf(refOf: (schema: z.ZodType) => JsonObject): JsonObject {
  const paths = new Map<string, Map<string, JsonObject>>();
  for (const [name, doc] of Object.entries(routeDocs)) {
    const [method = '', pattern = ''] = name.split(' ');
    const path = pattern.replace('*', ':path').replace(/:([a-z]+)/gi, '{$1}');
    const operations = paths.get(path) ?? new Map<string, JsonObject>();
    operations.set(method.toLowerCase(), operationOf(name as RouteName, doc, refOf));
    paths.set(path, operations);
  }
  return Object.fromEntries([...paths].map(([path, operations]) => [path, Object.fromEntries(operations)]));
}

function operationOf(name: RouteName, doc: RouteDoc, refOf: (schema: z.ZodType) => JsonObject): JsonObject {
  const access = routeAccess.get(name);
  const { summary, query, body, answers } = doc;
  const parameters = [...pathParameters(name), ...(query === undefined ? [] : queryParameters(query))];
  const content = body === undefined ? undefined : { 'application/json': { schema: refOf(body) } };
  return {
    operationId: operationId(name),
    summary,
    ...(access === undefined || access === 'public'
      ? { security: [] }
      : { 'x-countersign-permission': access, 'x-countersign-roles': rolesWith(access) }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(content === undefined ? {} : { requestBody: { required: true, content } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(answers).map(([status, answer]) => [status, answerOf(Number(status), answer, refOf)]),
      ),
      ...refusalsOf(name, doc, refOf(problemSchema)),
    },
  };
}

function operationId(name: RouteName): string {
  const words = name
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== 'v1' && word !== '');
  return words.map((word, i) => (i === 0 ? word : word.charAt(0).toUpperCase() + word.slice(1))).join('');
}

function pathParameters(name: RouteName): readonly JsonObject[] {
  return [...name.replace('*', ':path').matchAll(/:([a-z]+)/gi)].map(([, parameter = '']) => ({
    name: parameter,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
}

function queryParameters(query: z.ZodObject): readonly JsonObject[] {
  const { properties = {}, required = [] } = z.toJSONSchema(query, { io: 'input' });
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    schema: schema as JsonObject,
  }));
}

function answerOf(status: number, answer: RouteAnswer, refOf: (schema: z.ZodType) => JsonObject): JsonObject {
  const description = successes.get(status) ?? 'the answer';
  if (answer === null) return { description };
  const content = Object.entries(answer).map(([mediaType, schema]) => [
    mediaType,
    { schema: schema instanceof z.ZodString ? { type: 'string' } : refOf(schema) },
  ]);
  return { description, content: Object.fromEntries(content) as JsonObject };
}

/** Refusals by their status: one problem each, with the codes it may have. */
function refusalsOf(name: RouteName, doc: RouteDoc, problem: JsonObject): JsonObject {
  const byStatus = new Map<number, Set<ErrorCode>>();
  for (const code of codesOf(name, doc)) {
    const status = statusOf(code);
    byStatus.set(status, (byStatus.get(status) ?? new Set()).add(code));
  }
  return Object.fromEntries(
    [...byStatus]
      // What /readyz answers with 503 is no problem but its answer.
      .filter(([status]) => doc.answers[status] === undefined)
      .map(([status, codes]) => {
        const schema = { allOf: [problem], properties: { code: { enum: [...codes].sort() } } };
        return [
          `${status}`,
          {
            description: [...codes].sort().join(', '),
            content: { 'application/problem+json': { schema } },
          },
        ];
      }),
  );
}

/** Every code that a route may refuse with. */
export function codesOf(name: RouteName, { query, codes }: RouteDoc): ReadonlySet<ErrorCode> {
  return new Set<ErrorCode>([
    'internal',
    ...(routeAccess.get(name) === 'public' ? [] : guardedCodes),
    ...(name.includes(':') ? (['route_not_found'] as const) : []),
    ...(query === undefined ? [] : (['query_invalid'] as const)),
    ...bodyCodes,
    ...codes,
  ]);
}

const guardedCodes = [
  'unauthenticated',
  'oidc_unavailable',
  'identity_banned',
  'forbidden',
  'host_not_allowed',
  'origin_not_allowed',
  'store_unavailable',
] as const satisfies readonly ErrorCode[];
// Whatever the method: a body is judged before anybody asks what it is for.
const bodyCodes = [
  'body_invalid',
  'body_too_large',
  'media_type_unsupported',
] as const satisfies readonly ErrorCode[];
const successes: ReadonlyMap<number, string> = new Map([
  [200, 'ok'],
  [201, 'created'],
  [204, 'done; there is no body'],
  [503, 'not ready'],
]);
const schemaPath = '#/components/schemas/';
const preface = `Errors are application/problem+json (RFC 9457): \`code\` never changes its meaning. Lists answer
\`items\` and \`next\`; pass \`next\` on as \`cursor\`, it is null at the end. Answers may gain fields. A path that is not
here answers 404 to those who may look around, and 401 to others.`;
