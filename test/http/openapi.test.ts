import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { errorKinds } from '../../src/errors.ts';
import { codesOf, createOpenApiDocument, type JsonObject, routeDocs } from '../../src/http/openapi.ts';
import { routeAccess, type RouteName } from '../../src/http/roles.ts';
import { createAnswerCheck, operationsOf } from './openapi-check.ts';
import { type Harness, startHarness } from './harness.ts';

const document = createOpenApiDocument();
const names = Object.keys(routeDocs) as RouteName[];

describe('the document', () => {
  test('is a valid OpenAPI 3.1 document', () => {
    const ajv = new Ajv2020({ strict: false, validateFormats: false });
    // Ajv follows a $dynamicRef to the wrong place here; nobody extends the schema, so that a plain one means the same.
    const text = readFileSync('test/vectors/openapi-3.1.schema.json', 'utf8')
      .replaceAll('"$dynamicRef": "#meta"', '"$ref": "#/$defs/schema"')
      .replaceAll(/"\$dynamicAnchor": "\w+",?/g, '');
    const validate = ajv.compile(JSON.parse(text) as object);
    validate(document);
    expect(validate.errors?.slice(0, 3) ?? []).toEqual([]);
    expect(validate({ ...document, paths: { healthz: {} } })).toBe(false);
  });

  test('holds valid JSON Schemas of 2020-12, all of which are used and all of whose references lead somewhere', () => {
    const ajv = new Ajv2020({ strict: false, validateFormats: false });
    ajv.addSchema(document, 'api');
    const schemas = Object.keys((document['components'] as JsonObject)['schemas'] as JsonObject);
    expect(schemas.length).toBeGreaterThan(30);
    for (const name of schemas) {
      expect(() => ajv.compile({ $ref: `api#/components/schemas/${name}` }), name).not.toThrow();
    }
    const referred = new Set(
      [...JSON.stringify(document).matchAll(/"#\/components\/schemas\/([A-Za-z0-9]+)"/g)].map(
        ([, name]) => name,
      ),
    );
    expect(schemas.filter((name) => !referred.has(name))).toEqual([]);
  });

  test('has every route of the table, and no other', () => {
    const described = operationsOf(document).map(({ name }) =>
      name.replace('{path}', '*').replace(/\{([a-z]+)\}/gi, ':$1'),
    );
    expect(
      described.toSorted(),
      'a route of src/http/roles.ts needs an entry in the openapi-*.ts of its room, and an entry its route',
    ).toEqual([...routeAccess.keys()].toSorted());
  });

  test.each(names)(
    '%s has every parameter of its path, its role, and its refusals by their statuses',
    (name) => {
      const [method = '', pattern = ''] = name.split(' ');
      const path = pattern.replace('*', ':path').replace(/:([a-z]+)/gi, '{$1}');
      const paths = document['paths'] as Record<string, Record<string, Operation>>;
      const operation = paths[path]?.[method.toLowerCase()];
      if (operation === undefined) throw new Error(`${name} is not in the document`);
      const inPath = (operation.parameters ?? []).filter((one) => one.in === 'path').map((one) => one.name);
      expect(inPath).toEqual([...path.matchAll(/\{([a-z]+)\}/gi)].map(([, parameter]) => parameter));
      // Without one a client of the document would send none, which is 415.
      expect(operation.requestBody !== undefined).toBe(['POST', 'PATCH'].includes(method));
      const isPublic = routeAccess.get(name) === 'public';
      expect(operation.security).toEqual(isPublic ? [] : undefined);
      expect(operation['x-countersign-permission']).toBe(isPublic ? undefined : routeAccess.get(name));
      expect(operation.summary).toMatch(/^[a-z].*[^.]$/);
      const codes = [...codesOf(name, routeDocs[name])];
      expect(codes.filter((code) => !Object.hasOwn(errorKinds, code))).toEqual([]);
      // What is documented as an answer is no problem: see /readyz.
      const told = Object.entries(operation.responses)
        .filter(
          ([status, { content = {} }]) => Number(status) >= 400 && 'application/problem+json' in content,
        )
        .flatMap(([, { description }]) => description.split(', '));
      const answered = Object.keys(routeDocs[name].answers).map(Number);
      expect(told.length).toBeGreaterThanOrEqual(codes.length - (answered.includes(503) ? 1 : 0));
    },
  );

  test('has one id for each operation', () => {
    const ids = [...JSON.stringify(document).matchAll(/"operationId":"([A-Za-z]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(names.length);
  });
});

describe('a server', () => {
  let harness: Harness;
  beforeAll(async () => {
    harness = await startHarness();
  });
  afterAll(() => harness.close());

  test('serves the document to a viewer, and to nobody who is unknown', async () => {
    const { status, json, headers } = await harness.overTls({ path: '/v1/openapi.json' }, 'viewer');
    expect([status, headers['content-type']]).toEqual([200, 'application/json; charset=utf-8']);
    expect(json).toEqual(JSON.parse(JSON.stringify(document)));
    expect((await harness.overTls({ path: '/v1/openapi.json' }, null)).status).toBe(401);
  });
});

describe('the check that every answer in these tests goes through', () => {
  const good = {
    type: 'about:blank',
    title: 'Not Found',
    status: 404,
    code: 'entry_not_found',
    detail: 'no',
  };
  const answer = (change: Partial<Parameters<ReturnType<typeof createAnswerCheck>['check']>[0]>) => ({
    method: 'GET',
    path: '/v1/entries/web?x=1',
    status: 404,
    contentType: 'application/problem+json; charset=utf-8',
    text: JSON.stringify(good),
    ...change,
  });

  test('passes what the document has', () => {
    expect(() => createAnswerCheck().check(answer({}))).not.toThrow();
  });

  test.each<[string, ReturnType<typeof answer>]>([
    [
      'a code that the route does not have',
      answer({ text: JSON.stringify({ ...good, code: 'ban_not_found' }) }),
    ],
    ['a field that nobody described', answer({ text: JSON.stringify({ ...good, secret: 1 }) })],
    ['a field that is missing', answer({ text: JSON.stringify({ ...good, detail: undefined }) })],
    ['another status', answer({ status: 418 })],
    ['another media type', answer({ contentType: 'text/html' })],
    ['a path that is in no table', answer({ status: 200, path: '/v1/secrets' })],
    ['another method', answer({ status: 200, method: 'PUT' })],
    [
      'a body where there is none',
      answer({ method: 'DELETE', path: '/v1/tokens/x', status: 204, text: 'gone' }),
    ],
  ])('fails %s', (_, seen) => {
    expect(() => createAnswerCheck().check(seen)).toThrow();
  });
});

type Operation = {
  readonly summary: string;
  readonly requestBody?: object;
  readonly security?: readonly unknown[];
  readonly 'x-countersign-permission'?: string;
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
  readonly responses: Readonly<Record<string, { description: string; content?: Record<string, unknown> }>>;
};
