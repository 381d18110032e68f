import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { createOpenApiDocument, type JsonObject } from '../../src/http/openapi.ts';

/** An answer as it came from a door of the admin API. */
export type Seen = {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly status: number;
  readonly contentType: string | undefined;
  readonly text: string;
};

/** Answers that the document has: `GET /v1/status 200`. */
export type Answers = ReadonlySet<string>;

/**
 * Checks answers against the document that the server describes itself with. Answers may have no field that is not named
 * there: a field that somebody adds and forgets to describe fails the test that sees it.
 */
export function createAnswerCheck() {
  const document = createOpenApiDocument(true);
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  ajv.addFormat('date-time', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
  ajv.addSchema(document, 'api');
  const operations = operationsOf(document);
  const compiled = new Map<string, ValidateFunction>();
  const seen = new Set<string>();
  const compile = (pointer: string): ValidateFunction => {
    const known = compiled.get(pointer) ?? ajv.compile({ $ref: `api#${pointer}` });
    compiled.set(pointer, known);
    return known;
  };
  const checkJson = (where: string, pointer: string, text: string): void => {
    const validate = compile(pointer);
    if (validate(JSON.parse(text))) return;
    const wrong = validate.errors?.map(
      ({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
    );
    throw new Error(`${where} is not as the OpenAPI document says: ${wrong?.join('; ')}\n${text}`);
  };

  return {
    /** All that the document promises: every status that is no error of every operation. */
    successes: new Set(
      operations.flatMap(({ name, responses }) =>
        Object.keys(responses)
          .filter((status) => Number(status) < 400)
          .map((status) => `${name} ${status}`),
      ),
    ),
    seen: seen as Answers,
    /** @throws Error that says what is not in the document */
    check: ({ method, path, status, contentType, text }: Seen): void => {
      const bare = path.split('?')[0] ?? '';
      const mediaType = contentType?.split(';')[0];
      const operation = operations.find((one) => one.method === method && one.pattern.test(bare));
      const where = `${operation?.name ?? `${method} ${bare}`} ${status}`;
      if (operation === undefined) {
        if (status < 400) throw new Error(`${where} is not in the OpenAPI document`);
        checkJson(where, '/components/schemas/Problem', text);
        return;
      }
      const response = operation.responses[status];
      if (response === undefined) throw new Error(`${where} is not in the OpenAPI document: ${text}`);
      seen.add(where);
      const content = (response as { content?: Record<string, JsonObject> }).content ?? {};
      if (Object.keys(content).length === 0) {
        if (text !== '') throw new Error(`${where} has a body: ${text}`);
        return;
      }
      const found = Object.keys(content).find((one) => one.split(';')[0] === mediaType);
      if (found === undefined)
        throw new Error(
          `${where} is ${mediaType}, and only ${Object.keys(content).join(', ')} are in the document`,
        );
      if (!found.includes('json')) return;
      const pointer = [
        'paths',
        operation.path,
        method.toLowerCase(),
        'responses',
        `${status}`,
        'content',
        found,
        'schema',
      ];
      checkJson(
        where,
        pointer
          .map(
            (part) =>
              `/${part.replaceAll('~', '~0').replaceAll('/', '~1').replaceAll('{', '%7B').replaceAll('}', '%7D')}`,
          )
          .join(''),
        text,
      );
    },
  };
}

type Operation = {
  /** `GET /v1/entries/{id}`. */
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly pattern: RegExp;
  readonly responses: Readonly<Record<string, JsonObject>>;
};

/** Every operation of a document. */
export function operationsOf(document: JsonObject): readonly Operation[] {
  const paths = document['paths'] as Record<string, Record<string, JsonObject>>;
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      name: `${method.toUpperCase()} ${path}`,
      method: method.toUpperCase(),
      path,
      pattern: new RegExp(
        `^${path
          .replaceAll('.', '\\.')
          .replace('{path}', '.+')
          .replace(/\{[a-z]+\}/gi, '[^/]+')}$`,
      ),
      responses: operation['responses'] as Record<string, JsonObject>,
    })),
  );
}
